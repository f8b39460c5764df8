"""One run in its directory, and sweeps: nothing is repeated, mixed or lost, and one failure stops no other job."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image as Pillow
from safetensors.torch import save_file
from sweeping import TINY, erflab, folder

from erflab import collect, load
from erflab.collection import gather
from erflab.failure import FAILURE, read_configuration, read_ending, write_failure

__all__ = ["folder"]

RUN = [*TINY, "hydra.run.dir=run"]


def files(directory: Path) -> dict[str, bytes]:
    """What a directory holds but for the log."""
    found = sorted(f for f in directory.rglob("*") if f.is_file() and f.name != "run.log")
    return {str(f.relative_to(directory)): f.read_bytes() for f in found}


def error(capfd: pytest.CaptureFixture[str]) -> str:
    (line,) = (line for line in capfd.readouterr().err.splitlines() if line.startswith("erflab: error:"))
    return line


def test_a_finished_run_is_not_repeated_unless_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert erflab(monkeypatch, *RUN) == 0
    first = files(folder / "run")
    assert ".hydra/overrides.yaml" in first
    assert erflab(monkeypatch, *RUN) == 0
    assert files(folder / "run") == first
    assert erflab(monkeypatch, *RUN, "runtime.figures=true") == 0
    drawn = {"figures/erf.pdf", "figures/erf.png"}
    assert {name: content for name, content in files(folder / "run").items() if name not in drawn} == first
    assert erflab(monkeypatch, *RUN, "runtime.overwrite=true") == 0
    again = files(folder / "run")
    assert again["result.nc"] == first["result.nc"]  # neither time nor presentation is part of a result
    assert b"overwrite=true" in again[".hydra/overrides.yaml"].lower()


def test_a_result_of_another_configuration_is_refused_and_untouched(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert erflab(monkeypatch, *RUN) == 0
    first = files(folder / "run")
    assert erflab(monkeypatch, *RUN, "images.count=5", "seed=3") == 1
    told = error(capfd)
    for word in ("images.count: 4 there, 5 here", "seed: 0 there, 3 here", "runtime.overwrite=true"):
        assert word in told
    assert files(folder / "run") == first
    assert "another configuration" not in (folder / "run" / "run.log").read_text()
    assert erflab(monkeypatch, *RUN, "images.count=5", "seed=3", "runtime.overwrite=true") == 0
    assert load("run").attribute("config")["images"]["count"] == 5


def test_what_a_sweep_is_refused_is_told_beside_the_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert erflab(monkeypatch, *TINY, "hydra.run.dir=sweep/a") == 0
    first = files(folder / "sweep")
    sweep = ["-m", *TINY, "seed=3", "hydra.sweep.dir=sweep", "hydra.sweep.subdir=a"]
    assert erflab(monkeypatch, *sweep) == 1
    told = capfd.readouterr().err
    assert re.search(r"sweep/a holds a result of another configuration .*model.seed: 0 there, 3 here", told)
    assert "1 of 1 jobs in sweep failed" in told
    now = files(folder / "sweep")
    assert now.keys() - first.keys() == {f".refused/a/{FAILURE}", "multirun.yaml"}
    assert {name: now[name] for name in first} == first
    assert dict(collect("sweep")[["run", "status"]].to_numpy()) == {"sweep/.refused/a": "failed", "sweep/a": "finished"}
    assert erflab(monkeypatch, *sweep, "runtime.overwrite=true") == 0
    assert list(collect("sweep")["status"]) == ["finished"]


def test_files_of_others_in_a_run_directory_are_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = ["figures/mine.pdf", "figures/erfurt.png", "tensorboard/events.out.tfevents.1.host"]
    own = ["figures/erf.pdf", "figures/radial_layer1.png", "tensorboard/events.out.tfevents.2.host.erflab"]
    for name in [*foreign, *own]:
        (folder / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "run" / name).touch()
    assert erflab(monkeypatch, *RUN) == 0
    assert {name for name in files(folder / "run") if "/" in name and not name.startswith(".hydra")} == set(foreign)


@pytest.mark.parametrize("damage", ["truncated result", "empty summary", "no summary"])
def test_what_is_damaged_is_made_whole(folder: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    assert erflab(monkeypatch, *RUN) == 0
    first = files(folder / "run")
    if damage == "truncated result":
        (folder / "run" / "result.nc").write_bytes(first["result.nc"][:2000])
    elif damage == "empty summary":
        (folder / "run" / "summary.json").write_text("")
    else:
        (folder / "run" / "summary.json").unlink()
    assert erflab(monkeypatch, *RUN) == 0
    again = files(folder / "run")
    assert [again[name] == first[name] for name in ("result.nc", "summary.json")] == [True, True]


def test_other_content_under_the_same_name_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from tinynets import Tiny

    photos = folder / "photos"
    photos.mkdir()
    for k in range(5):
        Pillow.new("RGB", (40, 40), (50 * k, 9, 200)).save(photos / f"b{k}.png")
    torch.save(Tiny().state_dict(), folder / "w.pth")
    run = [*(o for o in RUN if o != "images=noise"), "images=folder", "images.path=photos", "model.weights=w.pth"]
    assert erflab(monkeypatch, *run) == 0
    assert erflab(monkeypatch, *run) == 0
    torch.save(Tiny().state_dict(), folder / "w.pth")
    Pillow.new("RGB", (40, 40)).save(photos / "b1.png")
    Pillow.new("RGB", (40, 40)).save(photos / "a.png")
    (photos / "b2.png").unlink()
    assert erflab(monkeypatch, *run) == 1
    told = error(capfd)
    for word in ("content of w.pth", "content of b1.png", "content of a.png: 'absent' there", "content of b2.png"):
        assert word in told
    assert "b0.png" not in told


def test_a_failed_job_leaves_its_reason_and_the_sweep_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep = ["-m", *TINY, "hydra.sweep.dir=sweep"]
    faults = "model.arguments.fault=memory,none"
    assert (
        erflab(monkeypatch, *sweep, f"+{faults}", "model.weights=none,missing.pth", "hydra.sweeper.max_batch_size=1")
        == 1
    )
    told = capfd.readouterr().err
    assert "3 of 4 jobs in sweep failed" in told
    assert "there is no such file" in told
    assert "MemoryError: 8 GiB for a small network. Lower runtime.batch_size" in told
    table = collect("sweep")
    assert sorted(table["status"]) == ["failed", "failed", "failed", "finished"]
    assert set(table["model.weights"]) == {"none", "missing.pth"}
    (finished,) = table.loc[table["status"] == "finished", "run"]
    stamp = (Path(finished) / "result.nc").stat().st_mtime_ns

    from tinynets import Tiny

    torch.save(Tiny().state_dict(), folder / "missing.pth")
    assert erflab(monkeypatch, *sweep, f"+{faults}", "model.weights=none,missing.pth") == 1
    assert "2 of 4 jobs in sweep failed" in capfd.readouterr().err
    assert (Path(finished) / "result.nc").stat().st_mtime_ns == stamp
    assert sorted(collect("sweep")["status"]) == ["failed", "failed", "finished", "finished"]


def test_directories_bear_the_measurement_not_its_presentation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = ["-m", *TINY, "hydra.sweep.dir=sweep"]
    assert erflab(monkeypatch, *sweep, "model.seed=0,1") == 0
    assert erflab(monkeypatch, *sweep, "model.seed=2,1", "runtime.strict=true", "runtime.accept=[few_groups]") == 1
    runs = sorted(path.name for path in Path("sweep").iterdir() if path.is_dir())
    assert len(runs) == 3
    assert all(name.startswith("custom_") for name in runs)
    # What runtime.strict refuses is complete, and kept beside the reason.
    assert all((Path("sweep") / name / "result.nc").exists() for name in runs)
    assert len(list(Path("sweep").rglob(FAILURE))) == 2


def test_a_damaged_record_of_a_failure_is_told(tmp_path: Path) -> None:
    assert read_ending(tmp_path) is None
    write_failure(ValueError("x\ny"), tmp_path, {"config": {"seed": 1}})
    assert (read_ending(tmp_path), read_configuration(tmp_path)) == (("failed", "ValueError: x"), {"seed": 1})
    (tmp_path / FAILURE).write_text("{")
    assert read_ending(tmp_path) == ("failed", "failure.json is damaged; run.log may tell why")
    assert read_configuration(tmp_path) == {}


JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


STUDY = [
    "-m",
    "model=test_byobnet,test_convnext,test_convnext2,test_convnext3,test_mambaout,test_nfnet",
    "model.weights=none,weights/${model.name}.safetensors",
    "target.layer=stages.0,stages.1",
    *TINY[3:],
    "images.size=32",
    "images.count=2",
    "falloff=gaussian",
    "hydra.sweep.dir=sweep",
]


@pytest.mark.slow
def test_a_study_over_joblib_gives_its_table_and_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="hydra-joblib-launcher is not installed")
    (folder / "weights").mkdir()
    for name in STUDY[1].removeprefix("model=").split(","):
        save_file(timm.create_model(name).state_dict(), folder / "weights" / f"{name}.safetensors")
    damaged = folder / "weights" / "test_convnext.safetensors"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:5000])

    done = subprocess.run(
        [sys.executable, "-m", "erflab", *STUDY, *JOBLIB],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 1
    assert "erflab: error: 2 of 24 jobs in sweep failed; the others are finished" in done.stderr
    table = collect("sweep")
    assert table["status"].value_counts().to_dict() == {"finished": 22, "failed": 2}
    failed = table[table["status"] == "failed"]
    assert set(failed["model.name"]) == {"test_convnext"}
    assert set(failed["target.layer"]) == {"stages.0", "stages.1"}
    assert failed["reason"].str.contains("'test_convnext.safetensors' cannot").all()
    stamps = {run: (Path(run) / "result.nc").stat().st_mtime_ns for run in table["run"][table["status"] == "finished"]}

    damaged.write_bytes(whole)
    assert erflab(monkeypatch, *STUDY) == 0  # of another launcher: the directories are what counts
    table = collect("sweep")
    assert list(table["status"]) == ["finished"] * 24
    assert (table["gradient.sigma (px)"] > 0).all()
    assert len(table.groupby(["model.name", "model.weights", "target.layer"])) == 24
    assert stamps == {run: (Path(run) / "result.nc").stat().st_mtime_ns for run in stamps}


def test_a_killed_worker_of_joblib_is_told_and_its_job_unfinished(folder: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="hydra-joblib-launcher is not installed")
    command = [sys.executable, "-m", "erflab", "-m", *TINY, *JOBLIB, "hydra.sweep.dir=sweep"]
    command.append("+model.arguments.fault=none,killed")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert "erflab: error: a process of the sweep was killed from outside" in done.stderr
    # The end of the pool may find the other job anywhere, between its result and its summary too.
    assert "unfinished" in set(gather("sweep")[0]["status"])
