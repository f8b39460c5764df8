"""The sums of a measurement while it runs, in one file, so that a run that was killed goes on where it was.

One safetensors file: tensors named by the keys that lead to them, all else as JSON in bytes (its own header ends at 100 MB).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from erflab.distributed import ALONE, Processes
from erflab.errors import ResultError
from erflab.history import History
from erflab.identity import contents, differences, refuse_another, told
from erflab.jsonfiles import write_atomically

FILE = "checkpoint.safetensors"
FORMAT = 1

_JSON = "json"

log = logging.getLogger("erflab")


State = dict[str, Any]
"""Tensors and what JSON takes, in dictionaries and lists."""


@dataclass
class Checkpoint:
    """What is followed while it is measured, and what was saved of it before.

    file: where it is written; None for nowhere. seconds: between two writes; None for never. about: what the sums are of.
    choices: what was found by trying, to be kept when going on. saved: the states that were read and not followed yet.
    processes: all ask whether to write, and the first does.
    """

    file: Path | None = None
    seconds: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    choices: dict[str, Any] = field(default_factory=dict)
    saved: dict[str, State] = field(default_factory=dict)
    history: History = field(default_factory=History)
    processes: Processes = ALONE
    _followed: dict[str, Callable[[], State]] = field(default_factory=dict)
    _written: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        """Note that this process begins."""
        self.history.start(self.images)

    @property
    def images(self) -> dict[str, int]:
        """Images that had been measured when going on, by name."""
        return {name: state["images"] for name, state in self.saved.items()}

    def follow(self, name: str, state: Callable[[], State]) -> State | None:
        """Write what `state` gives from now on, under this name; what was saved of it, None if nothing was."""
        if self.file is not None:
            self._followed[name] = state
        return self.saved.pop(name, None)

    def write_if_due(self) -> None:
        """Write, if the last time is long enough ago. Where that fails the file stays as it was, with a warning."""
        due = self.file is not None and self.seconds and time.monotonic() - self._written >= self.seconds
        if not self.processes.gathered(due)[0]:
            return
        states = self.saved | {name: state() for name, state in self._followed.items()}  # for which all must be asked
        if self.processes.first:
            self._write(states)
        self._written = time.monotonic()

    def _write(self, states: Mapping[str, State]) -> None:
        assert self.file is not None
        content = {"about": self.about, "choices": self.choices, "history": self.history.state(), "states": states}
        try:
            write(self.file, content)
        except OSError as error:
            log.warning("the checkpoint %s could not be written, and is as it was before: %s", self.file, error)


def shared_checkpoint(
    directory: Path | None, seconds: float | None, about: Callable[[], Mapping[str, Any]], processes: Processes
) -> Checkpoint:
    """The checkpoint in a directory as the first of the processes finds it (`open_checkpoint`); None keeps it nowhere."""
    found = Checkpoint() if directory is None else open_checkpoint(directory / FILE, seconds, about())
    checkpoint = processes.from_first(found)
    checkpoint.processes = processes
    if not processes.first:
        checkpoint.history.here()
    return checkpoint


def open_checkpoint(file: Path, seconds: float | None, about: Mapping[str, Any]) -> Checkpoint:
    """A checkpoint in `file`, with what it holds already.

    What is damaged, of another format or made in another environment is told in the log, and the measurement starts anew.

    Args:
        file: in a directory that is there.
        seconds: between two writes; None or 0 for never.
        about: what the sums are of, ready for JSON: `config`, `model` and `images` as a result records them, and `environment`.

    Raises:
        ResultError: the file holds sums of something else.
    """
    try:
        found = read(file) if file.exists() else None
    except ResultError as error:
        log.warning("measured anew, for the checkpoint is of no use: %s", error)
        found = None
    return Checkpoint(file, seconds, about) if found is None else _gone_on(file, seconds, about, found)


def _gone_on(file: Path, seconds: float | None, about: Mapping[str, Any], found: Mapping[str, Any]) -> Checkpoint:
    refuse_another(file.parent, "checkpoint", differences(_measured(found["about"]), _measured(about)))
    if changed := differences(found["about"]["environment"], about["environment"]):
        log.warning("measured anew, for the checkpoint was made in another environment (%s)", told(changed))
        return Checkpoint(file, seconds, about)
    history = History()
    history.restore(found["history"])
    checkpoint = Checkpoint(file, seconds, about, found["choices"], found["states"], history)
    log.info("goes on after so many images: %s", checkpoint.images)
    return checkpoint


def _measured(about: Mapping[str, Any]) -> dict[str, Any]:
    return {"config": about["config"], "model": about["model"], "images": contents(about["images"])}


def write(file: Path, tree: State) -> None:
    """Write nested dictionaries and lists of tensors and of what JSON takes, whole or not at all.

    Raises OSError where there is no room.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps({"format": FORMAT, "content": _without_tensors(tree, (), tensors)})
    tensors[_JSON] = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    content = save(tensors)  # not save_file, which leaves a file of a name of its own when it is killed
    write_atomically(file, lambda to: to.write_bytes(content))


def read(file: Path) -> State:
    """What `write` wrote, tuples as lists. Raises ResultError if the file is damaged, or has another format."""
    with _opened(file) as (content, opened):
        return _with_tensors(content, opened)


def read_about(file: Path) -> Mapping[str, Any]:
    """What the sums of a checkpoint are of, without reading them. Raises ResultError as `read`."""
    with _opened(file) as (content, _):
        about: Mapping[str, Any] = content["about"]
        return about


@contextmanager
def _opened(file: Path) -> Iterator[tuple[State, Any]]:
    """What a file holds but its tensors, and whatever gives those."""
    try:
        with safe_open(file, "pt") as opened:
            found = json.loads(opened.get_tensor(_JSON).numpy().tobytes())
            if (version := found["format"]) == FORMAT:
                yield found["content"], opened
                return
    except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
        raise ResultError(f"{file} cannot be read as a checkpoint: {error}") from error
    raise ResultError(f"{file} has checkpoint format {version}; this version reads format {FORMAT}.")


def _without_tensors(value: Any, path: tuple[str | int, ...], tensors: dict[str, Tensor]) -> Any:
    """The value with None for each tensor, which is put among `tensors` under the keys that lead to it."""
    if isinstance(value, Tensor):
        tensors[json.dumps(path)] = value.contiguous()
        return None
    if isinstance(value, Mapping):
        return {key: _without_tensors(item, (*path, key), tensors) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_tensors(item, (*path, place), tensors) for place, item in enumerate(value)]
    return value


def _with_tensors(content: State, opened: Any) -> State:
    for name in opened.keys():  # noqa: SIM118 (not a dictionary)
        if name != _JSON:
            *path, last = json.loads(name)
            reduce(getitem, path, content)[last] = opened.get_tensor(name)
    return content
