"""Many runs as a table, the difference of two, and a run repeated from its result."""

import json
import math
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from nets import small_net
from sweeping import TINY, erflab, folder

from erflab import collect, load, measure
from erflab.collection import gather
from erflab.config import RuntimeConfig
from erflab.difference import (
    NumberDifference,
    configuration_differences,
    environment_differences,
    file_differences,
    number_differences,
)
from erflab.errors import ConfigError, ResultError
from erflab.rerun import rerun_overrides
from erflab.result import Result

__all__ = ["folder"]

CPU = RuntimeConfig(progress=False, device="cpu", dtype="float64")


def measured(seed: int, **settings: object) -> Result:
    network = small_net(seed=seed)
    return measure(network, torch.randn(4, 3, 24, 24), runtime=CPU, **settings)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three results: one of a part, one of another magnitude, one of several parts."""
    root = tmp_path_factory.mktemp("sweep")
    measured(0).save(root / "a")
    measured(1, magnitude="absolute").save(root / "deep" / "b")
    measured(0, layer="all").save(root / "c")
    return root


def test_a_row_a_part_with_units_errors_and_the_options_that_vary(sweep: Path) -> None:
    table = collect(sweep)
    several = load(sweep / "c")
    assert [Path(run).name for run in table["run"]] == ["a", *["c"] * len(several), "b"]
    assert set(table["status"]) == {"finished"}
    assert list(table["part"][1:-1]) == list(several.labels)
    assert list(table.columns[:4]) == ["run", "status", "reason", "part"]
    assert set(table.columns[4:6]) == {"attribution.gradient.magnitude", "target.layer"}
    assert table.columns[-1] == "flags"
    sigma = load(sweep / "a").sizes().quantities["sigma"]
    row = table.iloc[0]
    assert row["gradient.sigma (px)"] == sigma.value
    assert row["gradient.sigma_error (px)"] == sigma.standard_error
    assert (row["gradient.sigma_low (px)"], row["gradient.sigma_high (px)"]) == sigma.interval
    assert row["gradient.images"] == 4  # a pure number has no unit in its header
    assert "few_groups" in row["flags"]
    assert json.loads(row["input_size"]) == [24, 24]


def test_any_path_finds_its_runs_once(sweep: Path) -> None:
    assert len(collect(sweep / "a" / "result.nc")) == 1
    assert len(collect([sweep / "a", str(sweep / "deep"), sweep / "a"])) == 2
    with pytest.raises(ResultError, match=r"no such directory or result: .*nowhere"):
        collect(sweep / "nowhere")
    (sweep.parent / "empty").mkdir()
    with pytest.raises(
        ResultError, match=r"no run at or below .*; a run's directory holds one of \.hydra, failure\.json"
    ):
        collect(sweep.parent / "empty")


def test_what_is_damaged_is_named_and_left_out(sweep: Path, tmp_path: Path) -> None:
    for name in ("whole", "truncated", "empty", "summary", "swapped", "maps"):
        shutil.copytree(sweep / "a", tmp_path / name)
    content = (sweep / "a" / "result.nc").read_bytes()
    (tmp_path / "truncated" / "result.nc").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty" / "summary.json").write_text("")
    (tmp_path / "summary" / "result.nc").unlink()
    shutil.copy(sweep / "c" / "summary.json", tmp_path / "swapped")
    (tmp_path / "maps" / "summary.json").unlink()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = collect(tmp_path)
    assert [Path(run).name for run in table["run"]] == ["whole"]
    left_out = {Path(run).name: reason for run, reason in table.attrs["left_out"].items()}
    assert re.search("cannot be read as a result", left_out["truncated"])
    assert re.search(r"its summary\.json cannot be read .*writes it anew", left_out["empty"])
    assert re.search(r"its summary\.json cannot be read", left_out["maps"])
    assert re.search(r"not that of its result\.nc", left_out["swapped"])
    assert re.search(r"a summary\.json and no result\.nc", left_out["summary"])
    assert sorted(str(w.message).split(" is left out")[0] for w in caught) == sorted(table.attrs["left_out"])


def test_infinite_sizes_are_numbers(sweep: Path, tmp_path: Path) -> None:
    shutil.copytree(sweep / "a", tmp_path / "a")
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    summary["trf_size_y"]["value"] = "inf"
    (tmp_path / "a" / "summary.json").write_text(json.dumps(summary))
    assert collect(tmp_path)["trf_size_y (px)"][0] == math.inf


def test_a_run_that_was_killed_has_its_options(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert erflab(monkeypatch, "-m", *TINY, "seed=3,4", "hydra.sweep.dir=sweep", "hydra.sweep.subdir=${seed}") == 0
    for name in ("result.nc", "summary.json", "provenance.json"):
        (folder / "sweep" / "4" / name).unlink()
    (folder / "sweep" / "5" / ".hydra").mkdir(parents=True)
    (folder / "sweep" / "5" / ".hydra" / "config.yaml").write_text("seed: [")  # killed while it was written
    table = collect(folder / "sweep")
    assert list(table["status"]) == ["finished", "unfinished", "unfinished"]
    assert list(table["model.seed"])[:2] == [3, 4]  # an interpolation: ${seed}
    assert table["model.seed"].isna()[2]
    assert str(table["seed"].dtype) == "Int64"


def test_the_verb_prints_names_and_writes(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "sweep"
    shutil.copytree(sweep, root)
    (root / "broken").mkdir()
    (root / "broken" / "result.nc").write_bytes(b"")
    (root / "started" / ".hydra").mkdir(parents=True)
    assert erflab(monkeypatch, "collect", str(root), "--csv", str(tmp_path / "t.csv")) == 0
    out, err = capfd.readouterr()
    assert "4 runs: 3 finished, 1 unfinished" in out
    assert "no result: killed, or still running" in out
    assert re.search(r"left out: .*broken: .*cannot be read", err)
    table, _ = gather(root)
    back = pd.read_csv(tmp_path / "t.csv")
    assert list(back.columns) == list(table.columns)
    np.testing.assert_array_equal(back["gradient.sigma (px)"], table["gradient.sigma (px)"].astype(float))
    assert erflab(monkeypatch, "collect", str(root), "--cvs", "x") == 1
    assert "unrecognized arguments: --cvs" in capfd.readouterr().err


def test_parquet_holds_the_same_table(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    assert erflab(monkeypatch, "collect", str(sweep), "--parquet", str(tmp_path / "t.parquet")) == 0
    table = collect(sweep)
    back = pd.read_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(back, table, check_dtype=False)


def test_parquet_without_pyarrow_is_refused(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def absent(*_: object, **__: object) -> None:
        raise ImportError("no pyarrow")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", absent)
    assert erflab(monkeypatch, "collect", str(sweep), "--parquet", str(tmp_path / "t.parquet")) == 1
    assert re.search(r"needs the package pyarrow; pip install 'erflab\[parquet\]'", capfd.readouterr().err)


def test_a_run_repeated_from_its_result_has_the_same_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    odd = ["+model.arguments.width=3", "target.layer=[a,b]", "runtime.dtype=float64", "images.seed=7"]
    assert erflab(monkeypatch, *TINY, *odd, "hydra.run.dir=first") == 0
    assert erflab(monkeypatch, "rerun", "first", "runtime.progress=false", "hydra.run.dir=again") == 0
    assert (folder / "first" / "result.nc").read_bytes() == (folder / "again" / "result.nc").read_bytes()
    assert erflab(monkeypatch, "rerun", "first/result.nc", "seed=5", "images.count=3", "hydra.run.dir=other") == 0
    changed = configuration_differences(load("first"), load("other"))
    assert changed == {
        "seed": (0, 5),
        "model.seed": (0, 5),
        "images.seed": (7, 5),
        "runtime.seed": (0, 5),
        "images.count": (4, 3),
    }
    capfd.readouterr()
    assert erflab(monkeypatch, "diff", "first", "again") == 0
    told = capfd.readouterr().out
    for section in ("configuration", "weights and images", "environment", "parts", "numbers"):
        assert f"{section}: the same" in told
    assert erflab(monkeypatch, "diff", "first", "other") == 0
    told = capfd.readouterr().out
    assert re.search(r"model\.seed +0 +5", told)
    assert re.search(r"numbers: \d+ differ, the first 20", told)


def test_what_a_result_does_not_hold_must_be_given_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinynets import Tiny

    torch.save(Tiny().state_dict(), folder / "w.pth")
    assert erflab(monkeypatch, *TINY, "model.weights=w.pth", "hydra.run.dir=first") == 0
    with pytest.raises(
        ConfigError, match=r"holds no paths; give again model.weights=PATH \(the weights file 'w.pth'\)"
    ):
        rerun_overrides(["first"])
    assert erflab(monkeypatch, "rerun", "first", "model.weights=w.pth", "hydra.run.dir=again") == 0
    other_model = rerun_overrides(["first", "model=resnet18"])  # a whole group replaces all that the result says of it
    assert [o for o in other_model if "model." in o.split("=")[0]] == []
    assert other_model[-1] == "model=resnet18"
    assert not file_differences(load("first"), load("again"))
    with pytest.raises(ConfigError, match=r"give a run's directory or its result.nc first. Usage: erflab rerun"):
        rerun_overrides([])
    with pytest.raises(ResultError, match="no result at nowhere"):
        rerun_overrides(["nowhere"])
    measured(0).save("python")
    with pytest.raises(
        ResultError, match=r"measured from Python with images given there; repeat it with erflab\.measure"
    ):
        rerun_overrides(["python"])


def test_numbers_are_compared_in_combined_errors() -> None:
    one, other = measured(0), measured(1)
    found = {d.name: d for d in number_differences(one, other)}
    sigmas = [result.sizes().quantities["sigma"] for result in (one, other)]
    sigma = found["gradient.sigma"]
    assert sigma.difference == sigmas[1].value - sigmas[0].value
    assert sigma.intervals == tuple(s.interval for s in sigmas)
    combined = math.sqrt(sum(s.standard_error**2 for s in sigmas))
    assert sigma.in_errors == pytest.approx(sigma.difference / combined, rel=1e-12)
    turned = NumberDifference("layer1", "gradient.orientation", "rad", 1.5, -1.5, (None, None), 0.1)
    assert turned.difference == pytest.approx(math.pi - 3)
    ranks = [d.rank for d in found.values()]
    assert ranks == sorted(ranks, reverse=True)
    assert found["gradient.fit_floor"].unit == "map"
    assert not number_differences(one, one)
    assert set(file_differences(one, other)) == {"weights", *(f"image image-{k}" for k in range(4))}
    moved = Result(other.parts, {**other.provenance, "host": "elsewhere", "seconds": 1e9})
    assert environment_differences(other, moved) == {"host": (other.provenance["host"], "elsewhere")}
