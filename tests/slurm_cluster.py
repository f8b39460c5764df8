"""A Slurm cluster of one node on 127.0.0.1, with accounting, in a temporary directory: settings and processes."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

PACKAGES = ["slurm-wlm", "munge", "slurmdbd", "mariadb-server"]
PROGRAMS = ["slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "mariadb-install-db"]

SLURM = """
ClusterName=erflab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmdPort={slurmd}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
AccountingStoragePass={folder}/munge.socket
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=5,batch_sched_delay=1
KillWait=3
ReturnToService=2
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=10 State=UP
"""

ACCOUNTING = """
AuthType=auth/munge
AuthInfo={folder}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=slurm
StoragePass=slurm
PidFile={folder}/slurmdbd.pid
"""

MUNGE = """
munged --foreground --force --key-file={folder}/munge.key --socket={folder}/munge.socket --pid-file={folder}/munge.pid
--log-file={folder}/munge.log --seed-file={folder}/munge.seed
"""

DATABASE = """
mariadbd --no-defaults --user=root --datadir={folder}/data --socket={folder}/sql.socket --port={database}
--bind-address=127.0.0.1 --skip-grant-tables --innodb-flush-log-at-trx-commit=0 --pid-file={folder}/sql.pid
"""


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]


def install() -> None:
    """Debian's packages, unless they are there. Their services are not started: the tests start their own."""
    if not missing_programs():
        return
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
            subprocess.run(["apt-get", "-qq", *command], env=environment, check=True, timeout=240, capture_output=True)
    finally:
        if ours:
            policy.unlink()


@contextmanager
def cluster() -> Iterator[dict[str, str]]:
    """Start the cluster; what the environment of its commands must hold. All that was started is stopped, by process id."""
    folder = Path(tempfile.mkdtemp(prefix="erflab-slurm-", dir="/tmp"))
    environment = {
        **os.environ,
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        "SLURM_CONF": str(folder / "slurm.conf"),
    }
    try:
        with ExitStack() as stack:
            _start(folder, environment, stack)
            yield environment
    except BaseException as error:
        for log in sorted(folder.glob("*.log")):
            error.add_note(f"{log.name}: {log.read_text()[-1500:]}")
        raise
    finally:
        _end_jobs(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, environment: dict[str, str], stack: ExitStack) -> None:
    host = socket.gethostname().split(".")[0]
    names = ("ctld", "slurmd", "dbd", "database")
    values = {"folder": str(folder), "host": host, **dict(zip(names, _free_ports(len(names)), strict=True))}
    _write(folder / "slurm.conf", SLURM.format(**values))
    _write(folder / "slurmdbd.conf", ACCOUNTING.format(**values))
    _write(folder / "munge.key", os.urandom(64).hex())
    for name in ("state", "spool", "data"):
        (folder / name).mkdir()

    def run(command: str) -> str:
        done = subprocess.run(command.split(), env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def serve(command: str) -> None:
        stack.enter_context(_process(command.format(**values).split(), folder, environment))

    serve(MUNGE)
    run(f"mariadb-install-db --no-defaults --datadir={folder}/data --user=root --skip-test-db --skip-name-resolve")
    serve(DATABASE)
    _until(lambda: _answers(values["database"]), "the database listens")
    serve("slurmdbd -D")
    _until(lambda: _answers(values["dbd"]), "slurmdbd listens")
    run("sacctmgr -i add cluster erflab")
    serve("slurmctld -D")
    _until(lambda: _answers(values["ctld"]), "slurmctld listens")
    serve("slurmd -D -N {host}")
    _until(lambda: "idle" in run("sinfo --noheader --format=%T"), "the node is idle")


@contextmanager
def _process(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    with (folder / f"{command[0]}.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_jobs(folder: Path) -> None:
    """Kill what jobs have left: every process in whose environment this cluster's configuration stands, but this one."""
    mark = f"SLURM_CONF={folder}/".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(process.name) != os.getpid() and mark in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


def _until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds} s still not: {what}")
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _answers(port: int | str) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", int(port))) == 0


def _write(file: Path, text: str) -> None:
    file.touch(0o600)
    file.write_text(text)


if __name__ == "__main__":  # whether the tests that need a cluster can run here
    install()
    with cluster():
        pass
