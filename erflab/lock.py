"""One process a directory: it holds a lock, which the system lets go of when the process ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from erflab.errors import InUseError

LOCK = ".lock"


@contextlib.contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Hold a directory, which is made where there is none. Raises InUseError, naming the process that holds it already."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / LOCK
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InUseError(
            f"{directory} is in use: {_holder(file)} measures into it; wait until it has ended, or choose another directory "
            "(hydra.run.dir, hydra.sweep.dir)."
        ) from error
    try:
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same
            file.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        file.unlink(missing_ok=True)  # while it is held: whoever has it open already is then refused it
        lock.release()


def _holder(file: Path) -> str:
    try:
        return file.read_text() or "another process"
    except OSError:
        return "another process"
