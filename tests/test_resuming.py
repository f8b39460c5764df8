"""Measurements that are cut short after any batch, and started again: they end in the bytes of one that was not."""

import dataclasses
import json
import logging
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor, nn

from erflab import config as c
from erflab import load
from erflab.checkpoint import FILE, Checkpoint
from erflab.errors import FlaggedError, ResultError
from erflab.failure import FAILURE
from erflab.hardware import threads
from erflab.job import run_job
from erflab.lock import LOCK
from erflab.measurement import run
from erflab.result import Result


class Net(nn.Module):
    """Two stages; while memory is `full` it takes no more than two images."""

    full: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if Net.full and len(x) > 2:
            raise MemoryError
        return self.head(self.stem(x))


OCCLUSION = c.OcclusionConfig(patch=2, step=2, baseline="image")


def measurement(
    methods: c.AttributionConfig, layer: Any = "head", count: int = 7, size: int = 16, **runtime: Any
) -> c.ErflabConfig:
    settings: dict[str, Any] = {"device": "cpu", "progress": False, "figures": False, "allow": [__name__]}
    settings |= {"checkpoint": 1e-9, "batch_size": 3, **runtime}
    return c.ErflabConfig(
        model=c.ModelConfig(_target_=f"{__name__}.Net"),
        images=c.NoiseConfig(count=count, size=size),
        attribution=methods,
        target=c.TargetConfig(layer=layer),
        falloff=c.FalloffConfig(elliptical=False, floor=False),
        runtime=c.RuntimeConfig(**settings),
    )


class KilledError(BaseException):
    """As a signal would: nothing of erflab runs after it."""


class Cut:
    """Dies after so many batches, and counts all of them."""

    def __init__(self) -> None:
        self.after, self.batches = 10**6, 0

    def __call__(self) -> None:
        self.batches += 1
        self.after -= 1
        if self.after == 0:
            raise KilledError


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Cut:
    """Called between batches, after the checkpoint has been written."""
    write_if_due, made = Checkpoint.write_if_due, Cut()

    def write_and_die(self: Checkpoint) -> None:
        write_if_due(self)
        made()

    monkeypatch.setattr(Checkpoint, "write_if_due", write_and_die)
    return made


def measured(config: c.ErflabConfig, directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    return run(config, directory).save(directory)


def starts(config: c.ErflabConfig, directory: Path, cut: Cut) -> int:
    """Measure into a directory with a death after every batch; the number of starts that it takes."""
    for start in range(1, 20):
        cut.after = 1
        try:
            measured(config, directory)
        except KilledError:
            continue
        return start
    raise AssertionError("it never ends")


def files(directory: Path) -> dict[str, bytes]:
    found = sorted(f for f in directory.rglob("*") if f.is_file())
    return {str(f.relative_to(directory)): f.read_bytes() for f in found}


GRADIENT = c.AttributionConfig(gradient=c.GradientConfig())
TWO = dataclasses.replace(GRADIENT, occlusion=OCCLUSION)
OTHERS = c.AttributionConfig(
    input_x_gradient=c.InputXGradientConfig(),
    integrated_gradients=c.IntegratedGradientsConfig(steps=8, tolerance=10.0),
    guided_backprop=c.GuidedBackpropConfig(),
    deeplift=c.DeepLiftConfig(),
)
SETTINGS = {
    "two methods": measurement(TWO),
    "the other methods": measurement(OTHERS, count=4),
    "several layers": measurement(TWO, ["stem", "head"], count=4, precision="float64"),
    "an audited precision": measurement(GRADIENT, count=4, precision="bf16", channels_last=True),
    "a tolerance": measurement(TWO, count=200, size=8, batch_size=64, tolerance=0.5),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_cut_after_every_batch_it_ends_in_the_same_bytes(name: str, tmp_path: Path, cut: Cut) -> None:
    config = SETTINGS[name]
    whole = measured(config, tmp_path / "whole")
    batches, cut.batches = cut.batches, 0
    made = starts(config, tmp_path / "cut", cut)
    assert (cut.batches, made) == (batches, batches + 1)  # none was measured twice
    for file in ("result.nc", "summary.json"):
        assert (tmp_path / "cut" / file).read_bytes() == (whole / file).read_bytes()
    told, undisturbed = (json.loads((tmp_path / d / "provenance.json").read_text()) for d in ("cut", "whole"))
    assert undisturbed["resumed"] == []
    assert len(told["resumed"]) == batches
    assert list(told["resumed"][0]["images"].values()) == [config.runtime.batch_size]
    assert ("gradient_vs_occlusion.cosine" in json.loads((whole / "summary.json").read_text())) == (
        name == "two methods"
    )
    assert told["timings"].keys() == undisturbed["timings"].keys()
    assert told["started"] <= told["resumed"][0]["started"]


def test_memory_that_ran_out_before_the_cut_is_remembered(
    tmp_path: Path, cut: Cut, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = measurement(GRADIENT, batch_size=4, count=12, crop="off")
    counted = Cut.__call__

    def full_in_the_second_batch(self: Cut) -> None:
        Net.full = self.batches == 0
        counted(self)

    monkeypatch.setattr(Net, "full", False)
    monkeypatch.setattr(Cut, "__call__", full_in_the_second_batch)
    whole = measured(config, tmp_path / "whole")
    assert load(whole).map().attrs["out_of_memory_batch"] == 2
    cut.batches = 0
    assert starts(config, tmp_path / "cut", cut) == 4
    assert (tmp_path / "cut" / "result.nc").read_bytes() == (whole / "result.nc").read_bytes()


def test_a_run_goes_on_with_the_threads_that_it_had(tmp_path: Path, cut: Cut) -> None:
    with threads(2):
        killed(measurement(GRADIENT), tmp_path, cut)
    with threads(1):
        job(measurement(GRADIENT), tmp_path)
        assert torch.get_num_threads() == 1
    assert load(tmp_path).attribute("versions")["threads"] == 2


def job(config: c.ErflabConfig, directory: Path, hydra: str = "") -> None:
    run_job(lambda: config, directory, {"config.yaml": hydra}, {})


def killed(config: c.ErflabConfig, directory: Path, cut: Cut, after: int = 1) -> dict[str, bytes]:
    """What a run leaves that dies after so many batches."""
    cut.after = after
    with pytest.raises(KilledError):
        job(config, directory)
    return files(directory)


def test_a_checkpoint_of_another_configuration_is_refused_and_untouched(tmp_path: Path, cut: Cut) -> None:
    config, other = measurement(GRADIENT), measurement(GRADIENT, count=5, seed=3)
    left = killed(config, tmp_path, cut)
    assert left.keys() == {FILE, ".hydra/config.yaml"}
    differing = r"checkpoint of another configuration \(images.count: 7 there, 5 here; runtime.seed: 0 there, 3 here\)"
    with pytest.raises(ResultError, match=differing + ".*runtime.overwrite=true"):
        job(other, tmp_path, "other")
    assert files(tmp_path) == left
    # What only changes how a run presents itself is no other configuration, nor is how often it is saved.
    same = dataclasses.replace(config, runtime=dataclasses.replace(config.runtime, checkpoint=None, strict=True))
    with pytest.raises(FlaggedError, match="strict"):
        job(same, tmp_path)
    assert len(load(tmp_path).provenance["resumed"]) == 1
    assert FILE not in files(tmp_path)


def test_figures_that_were_cut_short_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, drawn = measurement(GRADIENT, figures=True), []

    def plot(self: Result, path: Path, kind: str | None) -> None:
        path.parent.mkdir(parents=True)
        path.with_suffix(".pdf").touch()
        drawn.append(path)
        if len(drawn) == 1:
            raise KilledError
        path.with_suffix(".png").touch()

    monkeypatch.setattr(Result, "plot", plot)
    with pytest.raises(KilledError):
        job(config, tmp_path)
    assert FILE not in files(tmp_path)
    result = (tmp_path / "result.nc").stat().st_mtime_ns
    for _ in range(2):
        job(config, tmp_path)
        assert {f for f in files(tmp_path) if "figures" in f} == {"figures/erf.pdf", "figures/erf.png"}
    assert len(drawn) == 2
    assert (tmp_path / "result.nc").stat().st_mtime_ns == result


def test_overwrite_discards_a_checkpoint(tmp_path: Path, cut: Cut) -> None:
    killed(measurement(GRADIENT), tmp_path, cut)
    job(measurement(GRADIENT, count=5, overwrite=True), tmp_path, "other")
    assert load(tmp_path).attribute("config")["images"]["count"] == 5
    assert load(tmp_path).provenance["resumed"] == []
    assert files(tmp_path).keys() == {".hydra/config.yaml", "provenance.json", "result.nc", "summary.json"}


def test_other_weights_or_images_than_before_the_cut_are_refused(tmp_path: Path, cut: Cut) -> None:
    photos, weights = tmp_path / "photos", tmp_path / "w.pth"
    photos.mkdir()
    for k in range(4):
        Pillow.new("RGB", (16, 16), (50 * k, 9, 200)).save(photos / f"{k}.png")
    torch.save(Net().state_dict(), weights)
    config = measurement(GRADIENT)
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, weights=str(weights)),
        images=c.FolderConfig(path=str(photos), count=7, size=16),
    )
    killed(config, tmp_path / "run", cut)
    torch.save(Net().state_dict(), weights)
    Pillow.new("RGB", (16, 16)).save(photos / "2.png")
    with pytest.raises(ResultError, match=r"content of 2.png: '\w+' there, '\w+' here; content of w.pth: '\w+' there"):
        job(config, tmp_path / "run")


def test_a_checkpoint_of_no_use_is_told_and_the_run_starts_anew(
    tmp_path: Path, cut: Cut, caplog: pytest.LogCaptureFixture
) -> None:
    config = measurement(GRADIENT)
    killed(config, tmp_path, cut)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:1000])
    (tmp_path / f".{FILE}.123").write_bytes(b"half of one")
    with caplog.at_level(logging.WARNING, "erflab"):
        job(config, tmp_path)
    assert any("measured anew, for the checkpoint is of no use" in told for told in caplog.messages)
    assert load(tmp_path).provenance["resumed"] == []
    assert files(tmp_path).keys() == {".hydra/config.yaml", "provenance.json", "result.nc", "summary.json"}


def full_disk(limit: int) -> None:
    """No file larger than so many bytes can be written; -1 for no limit."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.mark.parametrize("limit", [20_000, 0])
def test_on_a_full_disk_nothing_is_lost(
    tmp_path: Path, cut: Cut, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    config = measurement(TWO)
    whole = measured(config, tmp_path / "whole")
    directory, after_first = tmp_path / "run", {}

    def fill(self: Cut) -> None:
        if not after_first:
            after_first.update(files(directory))
            full_disk(limit)

    monkeypatch.setattr(Cut, "__call__", fill)
    try:
        with (
            caplog.at_level(logging.WARNING, "erflab"),
            pytest.raises(ResultError, match="the result cannot be written to"),
        ):
            job(config, directory)
    finally:
        full_disk(-1)
    del after_first[LOCK]
    now = files(directory)
    recorded = now.pop(FAILURE, None)
    now.pop("provenance.json", None)
    assert now == after_first
    assert sum("could not be written, and is as it was before" in told for told in caplog.messages) == cut.batches - 1
    if limit:
        assert "File too large" in json.loads(recorded or b"{}")["reason"]
    else:
        assert recorded is None
        assert any("failure.json could not be written" in told for told in caplog.messages)
    job(config, directory)
    for file in ("result.nc", "summary.json"):
        assert (directory / file).read_bytes() == (whole / file).read_bytes()
    assert not {FILE, FAILURE, LOCK} & files(directory).keys()


DRIVER = """
import json, os, random, shutil, signal, time
from pathlib import Path

import test_resuming
from erflab.images import NoiseImages
from erflab.job import run_job

CONFIG = test_resuming.measurement(test_resuming.GRADIENT, count=120, checkpoint=0.05)
image = NoiseImages._image

def slow(self, index):
    time.sleep(0.01)
    return image(self, index)

NoiseImages._image = slow

def start(directory):
    child = os.fork()
    if not child:
        try:
            run_job(lambda: CONFIG, directory, {"config.yaml": ""}, {})
        finally:
            os._exit(0 if (directory / "summary.json").exists() else 1)
    return child

def ends(child, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.005)
    return False

def check(directory, whole):
    for file in ("result.nc", "summary.json"):
        assert (directory / file).read_bytes() == (whole / file).read_bytes(), file
    assert {p.name for p in directory.iterdir()} == {".hydra", "provenance.json", "result.nc", "summary.json"}
    return len(json.loads((directory / "provenance.json").read_text())["resumed"])

whole, directory = Path("whole"), Path("run")
begun = time.monotonic()
assert ends(start(whole), 300)
length, moments, kills, resumed = time.monotonic() - begun, random.Random(0), 0, 0
while kills < 20:
    child = start(directory)
    if ends(child, moments.uniform(0, 0.7 * length)):
        resumed += check(directory, whole)
        shutil.rmtree(directory)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
assert ends(start(directory), 300)
print("resumed", resumed + check(directory, whole))
"""


@pytest.mark.slow
def test_killed_twenty_times_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """One process that has imported torch forks them all, and measures nothing itself."""
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split("resumed")[1]) > 0
