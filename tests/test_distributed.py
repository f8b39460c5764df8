"""One measurement by several processes: the same numbers, decisions and flags as by one, and no process left waiting."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import several
import torch
from hypothesis import given
from hypothesis import strategies as st
from sweeping import NETWORKS, TINY
from test_accumulate import filled

import erflab
from erflab.accumulate import MapSums
from erflab.analysis.moments import moments
from erflab.distributed import JOINED, joined
from erflab.errors import ConfigError, ImageError, MeasurementError, ProcessDiedError, ProcessFailedError
from erflab.images import TensorImages
from erflab.placement import Placement
from erflab.result import Result

Run = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with several.nursery() as executor:
        yield executor


@pytest.fixture
def run(executor: Executor) -> Run:
    return lambda *arguments: executor.submit(several.in_processes, *arguments).result(timeout=120)


def same(found: Result, expected: Result) -> None:
    """Equal but for the rounding of float64 sums: 1e-12 of each peak."""
    assert found.labels == expected.labels
    for part, wanted in zip(found.parts, expected.parts, strict=True):
        assert set(part) == set(wanted)
        for name in wanted:
            a, b = part[name].values, wanted[name].values
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12 * np.abs(b).max(), err_msg=str(name))
            assert part[name].attrs == wanted[name].attrs
        for name in ("totals", "group_images", "equal_group_images"):  # of each image, and counts: no sums at all
            assert np.array_equal(part[f"gradient_{name}"], wanted[f"gradient_{name}"])
        assert [part.attrs[n] for n in ("flags", "crop", "theory")] == [
            wanted.attrs[n] for n in ("flags", "crop", "theory")
        ]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("function", [several.all_methods, several.lowered], ids=lambda f: f.__name__)
def test_any_number_of_processes_gives_the_same_result(run: Run, function: Callable[[], Result], size: int) -> None:
    (expected,) = run(1, function)
    assert expected.attribute("versions")["processes"] == 1
    for found in run(size, function):
        same(found, expected)
        assert found.attribute("versions")["processes"] == size


def test_the_stopping_rule_looks_at_the_sums_of_all(run: Run) -> None:
    (expected,) = run(1, several.stopped)
    assert expected.convergence().images.values.tolist() == [64, 128]
    assert "stopped" in [flag.code for flag in expected.flags]
    for found in run(3, several.stopped):
        same(found, expected)


def test_float32_of_several_layers(run: Run) -> None:
    (expected,) = run(1, several.several_layers)
    for found in run(3, several.several_layers):
        for label in expected.labels:
            sigma = [moments(result.at(label).map()).sigma for result in (found, expected)]
            assert sigma[0] == pytest.approx(sigma[1], rel=1e-4)
            # Batches, and so the kernels, are those of one process.
            assert np.array_equal(*(result.at(label).dataset["gradient_totals"] for result in (found, expected)))


def test_a_batch_that_one_process_halves_is_noted_by_all(run: Run) -> None:
    (expected,) = run(1, several.measured)
    for found in run(2, several.measured, "memory"):
        assert found.dataset["gradient"].attrs["out_of_memory_batch"] < 8
        np.testing.assert_allclose(found.map(), expected.map(), rtol=1e-12, atol=1e-12 * float(expected.map().max()))


def test_images_that_are_not_finite_are_named_by_all(run: Run) -> None:
    for error in run(3, several.not_finite):
        assert isinstance(error, MeasurementError)
        assert "is not finite for image(s) [1, 9, 10]" in str(error)


def test_what_fails_in_one_process_ends_all_with_its_reason(run: Run) -> None:
    first, second, third = run(3, several.measured, "bug")
    assert isinstance(second, KeyError)
    for error in (first, third):
        assert isinstance(error, ProcessFailedError)
        assert str(error) == "process 1 of 3 failed: KeyError: 'a bug'"
    errors = run(2, several.unknown_devices)  # each its own
    assert ["nowhere0" in str(errors[0]), "nowhere1" in str(errors[1])] == [True, True]


@pytest.mark.parametrize(
    ("function", "what"), [(several.other_images, "images"), (several.other_units, "settings")], ids=["images", "unit"]
)
def test_processes_that_measure_something_else_are_refused(run: Run, function: Callable[[], Result], what: str) -> None:
    for error in run(2, function):
        assert isinstance(error, ConfigError)
        assert f"process 1 of 2 has other {what} than process 0; give all of them the same." in str(error)


def test_a_process_that_is_killed_ends_the_others(run: Run) -> None:
    first, killed, third = run(3, several.measured, "killed")
    assert killed is None
    for error in (first, third):
        assert isinstance(error, ProcessDiedError)
        assert "another of the 3 processes of this run died, or stands still. Its own messages" in str(error)


def test_a_process_that_is_told_to_stop_says_so(run: Run) -> None:
    first, told = run(2, several.measured, "told")
    assert isinstance(told, ProcessDiedError)
    assert "this process was told to stop (SIGTERM), as all are when another of the run has died." in str(told)
    assert isinstance(first, ProcessFailedError)
    assert "process 1 of 2 failed: this process was told to stop" in str(first)


@given(st.integers(1, 40), st.integers(1, 7), st.integers(2, 4), st.floats(-1e6, 1e6))
def test_merged_sums_are_those_of_all_images(count: int, batch: int, size: int, offset: float) -> None:
    maps = torch.randn(count, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(count)) + offset
    scenes = [str(i * i % 23) for i in range(count)]

    def share(processes: several.Threads) -> MapSums:
        sums = MapSums((4, 5))
        for number, start in enumerate(range(0, count, batch)):
            if processes.measures(number):
                sums.update(maps[start : start + batch], scenes[start : start + batch])
            else:
                sums.pass_over(scenes[start : start + batch])
        return sums.merged(processes)

    expected = filled(maps, scenes, batch)
    with ThreadPoolExecutor(size) as pool:
        for found in pool.map(share, several.Threads.of(size)):
            assert found.totals == expected.totals
            assert (found.count, found.scenes) == (expected.count, expected.scenes)
            assert found.group_counts == expected.group_counts
            assert found.equal_counts == expected.equal_counts
            for name in ("group_sums", "equal_sums", "mean"):
                np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-6, atol=1e-12)


def test_a_source_whose_scenes_are_told_otherwise_is_refused() -> None:
    class Other(TensorImages):
        def scene(self, index: int) -> str:
            return super().scene(index) if index != 3 else "another"

        def _image(self, index: int) -> erflab.images.Image:
            return erflab.images.Image(index, self.tensor[index], f"image-{index}")

    def share(processes: several.Threads) -> Result:
        return erflab.measure(
            several.small_net(), Other(several.images(12).tensor), runtime=several.QUIET, processes=processes
        )

    (processes,) = several.Threads.of(1)
    assert len(share(processes).dataset.gradient_totals) == 12
    with pytest.raises(ImageError, match=r"image 3 shows the scene 'image-3', but Other.scene says 'another'; several"):
        share(dataclasses.replace(processes, size=2))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    network = NETWORKS.replace("self.fault, self.a", "self.fault = fault if os.environ.get('RANK') == '1' else 'none'\n"
                               "        self.a").replace("fault, nn.Conv2d(3", "nn.Conv2d(3")  # fmt: skip
    (tmp_path / "tinynets.py").write_text(network)
    return tmp_path


def kept(directory: Path) -> set[str]:
    """Files below a directory but for those of Hydra."""
    return {str(f.relative_to(directory)) for f in directory.rglob("*") if f.is_file() and ".hydra" not in str(f)}


def test_the_command_line_writes_one_directory(run: Run, folder: Path) -> None:
    found = run(3, several.command, folder, *TINY)
    assert [code for code, _ in found] == [0, 0, 0]
    (directory,) = folder.glob("runs/custom/*")
    assert kept(directory) == {"result.nc", "summary.json", "provenance.json", "run.log"}
    assert erflab.load(directory).attribute("versions")["processes"] == 3
    assert (directory / "run.log").read_text().count("measuring") == 1


def test_a_sweep_goes_on_after_a_job_that_failed_in_one_process(run: Run, folder: Path) -> None:
    faults = "+model.arguments.fault=memory,none"
    first, second = run(2, several.command, folder, "-m", *TINY, "hydra.sweep.dir=sweep", faults)
    assert (first[0], second[0]) == (1, 0)  # what followed did what it was told; its reason is told by the first
    assert "process 1 of 2 failed: MemoryError: 8 GiB for a small network." in first[1]
    assert "1 of 2 jobs in sweep failed" in first[1]
    assert "erflab: " not in second[1]
    assert sorted(erflab.collect(folder / "sweep")["status"]) == ["failed", "finished"]


def test_a_child_of_one_of_the_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JOINED, "1")
    message = r"this run has 2 processes already, and its launcher starts more; use hydra/launcher=basic"
    with pytest.raises(ConfigError, match=message), joined(Placement(1, 2).variables):
        pass


def test_a_run_whose_process_was_killed_goes_on_with_any_number_of_processes(run: Run, tmp_path: Path) -> None:
    network = ["model._target_=several.Failing", "runtime.allow=[several]", "target.layer=net.head"]
    exact = ["runtime.precision=float64", "images.count=40", "runtime.batch_size=4", "runtime.checkpoint=1e-9"]
    options = [*TINY, *network, *exact]
    assert run(1, several.command, tmp_path, *options, "hydra.run.dir=whole")[0][0] == 0
    fault = {"FAULT": "killed", "PASSES": "5"}
    (code, told), killed = run(2, several.command_where, fault, tmp_path, *options, "hydra.run.dir=run")
    assert killed is None
    assert code == 1
    assert "another of the 2 processes of this run died" in told
    assert kept(tmp_path / "run") == {"checkpoint.safetensors", "failure.json", "run.log"}
    assert [code for code, _ in run(3, several.command, tmp_path, *options, "hydra.run.dir=run")] == [0, 0, 0]
    same(erflab.load(tmp_path / "run"), erflab.load(tmp_path / "whole"))
    (start,) = json.loads((tmp_path / "run" / "provenance.json").read_text())["resumed"]
    assert 0 < next(iter(start["images"].values())) < 40


@pytest.mark.parametrize("passes", [0, 1, 2, 3, 5])
def test_a_first_process_that_is_told_to_stop_records_it(run: Run, tmp_path: Path, passes: int) -> None:
    # Wherever it comes: the first passes are those of the theory, which takes any exception of a model for its refusal.
    network = ["model._target_=several.Failing", "runtime.allow=[several]", "hydra.run.dir=run"]
    fault = {"FAULT": "told", "PASSES": str(passes), "WHERE": "0"}
    (code, told), _ = run(2, several.command_where, fault, tmp_path, *TINY, *network, "runtime.batch_size=1")
    assert code == 1
    assert told.count("erflab: error: this process was told to stop (SIGTERM)") == 1
    assert json.loads((tmp_path / "run" / "failure.json").read_text())["kind"] == "ProcessDiedError"


def test_an_error_before_measuring_is_told_once(run: Run, folder: Path) -> None:
    found = run(2, several.command, folder, *TINY, "images.count=0")
    assert [code for code, _ in found] == [1, 0]
    assert "images.count is 0" in found[0][1]
    assert "error" not in found[1][1]


def torchrun(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "erflab"]
    return subprocess.run([*start, *TINY, *arguments], cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_torchrun_gives_the_result_of_a_plain_run(run: Run, folder: Path) -> None:
    options = ["images.count=20", "runtime.batch_size=3", "runtime.precision=float64"]
    done = torchrun(folder, *options, "hydra.run.dir=two")
    assert done.returncode == 0, done.stderr
    assert run(1, several.command, folder, *TINY, *options, "hydra.run.dir=one")[0][0] == 0
    found, expected = erflab.load(folder / "two"), erflab.load(folder / "one")
    same(found, expected)
    assert found.attribute("versions")["processes"] == 2


@pytest.mark.slow
def test_torchrun_ends_when_a_process_is_killed(folder: Path) -> None:
    done = torchrun(folder, "+model.arguments.fault=killed", "hydra.run.dir=run")
    assert done.returncode == 1
    assert done.stderr.count("erflab: error: ") == 1
    failure = json.loads((folder / "run" / "failure.json").read_text())
    assert failure["kind"] == "ProcessDiedError"
    assert "start the same command again" in failure["reason"]
    assert kept(folder / "run") == {"failure.json", "run.log"}
