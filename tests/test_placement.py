"""What torchrun, submitit and Slurm say in the environment."""

import pytest

from erflab.placement import Placement, read_placement

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "node2", "MASTER_PORT": "1234"}
STEP = {
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_ID": "3",
    "SLURM_NTASKS": "6",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "gpu[07-09]",
}


def test_torchrun_comes_before_slurm() -> None:
    found = read_placement(STEP | TORCHRUN)
    assert found == Placement(3, 8, 1, "node2", 1234)
    assert found.variables == TORCHRUN


def test_a_step_of_slurm() -> None:
    assert read_placement(STEP) == Placement(5, 6, 1, "gpu07", 27703)
    assert read_placement(STEP | {"SLURM_STEP_ID": "4"}).port != 27703


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("a", "a"), ("a1,b2", "a1"), ("a[1-3,7],b", "a1"), ("rack-2-n[003]-ib", "rack-2-n003-ib"), ("n[08,10]", "n08")],
)
def test_the_first_machine_of_a_list(nodes: str, first: str) -> None:
    assert read_placement(STEP | {"SLURM_STEP_NODELIST": nodes}).address == first


def test_a_batch_script_of_slurm_is_alone_however_many_tasks_its_job_has() -> None:
    script = {name: value for name, value in STEP.items() if not name.startswith("SLURM_STEP")}
    assert read_placement(script) == Placement()
    assert read_placement({}) == Placement()


def test_the_tasks_of_a_submitit_job(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    job = {"EXECUTOR": "local", "LOCAL_JOB_ID": "12", "LOCAL_NTASKS": "2", "LOCAL_GLOBALID": "1", "LOCAL_LOCALID": "1"}
    environment = {f"SUBMITIT_{name}": value for name, value in job.items()}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = read_placement(environment)
    assert (found.rank, found.size, found.local_rank) == (1, 2, 1)
    assert found.port == read_placement(environment).port
