"""The stored result: round trip, atomic writes, errors, and everything recomputable from the file."""

import dataclasses
import io
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
from nets import small_net
from rich.console import Console

import erflab
from erflab.config import RuntimeConfig
from erflab.errors import ResultError
from erflab.flags import FLAGS, Flag
from erflab.report import table
from erflab.result import Result
from erflab.storage import ATTRIBUTES, as_json, read_attributes, write_atomically


@pytest.fixture(scope="module")
def result() -> Result:
    torch.manual_seed(0)
    runtime = RuntimeConfig(progress=False, device="cpu", dtype="float64")
    return erflab.measure(small_net(), torch.randn(6, 3, 24, 24), method=["gradient", "occlusion"], runtime=runtime)


def test_a_stored_result_is_the_same_result(result: Result, tmp_path: Path) -> None:
    back = erflab.load(result.save(tmp_path / "run"))
    assert back.dataset.identical(result.dataset)
    assert back.summary() == result.summary()
    assert back.provenance == result.provenance
    assert erflab.load(tmp_path / "run" / "result.nc").dataset.identical(result.dataset)


def test_the_file_is_plain_netcdf_with_coordinates_and_units(result: Result, tmp_path: Path) -> None:
    result.save(tmp_path)
    with xr.open_dataset(tmp_path / "result.nc", engine="h5netcdf") as opened:
        assert opened["gradient"].dims == ("y", "x")
        assert opened["y"].attrs["units"] == "px"
        assert opened["gradient"].attrs["magnitude"] == "energy"
        assert opened["gradient"].attrs["units"] == "(output/input)^2"
        assert opened["gradient"].dtype == np.float64
        assert opened["gradient_groups"].dtype == np.float32
        for name in ("config", "images", "flags", "versions", "theory", "model"):
            assert as_json(json.loads(opened.attrs[name])) == opened.attrs[name]


def test_group_sums_give_the_mean_again(result: Result) -> None:
    for method in result.methods:
        grouped = result.grouped(method)
        assert grouped.images.sum() == 6
        total = sum(mean.values * images for mean, images in zip(grouped.means, grouped.images, strict=True))
        np.testing.assert_allclose(total / 6, result.map(method).values, rtol=1e-5, atol=1e-9)
        totals = result.dataset[f"{method}_totals"].values
        np.testing.assert_allclose(totals.mean(), result.dataset[method].values.sum(), rtol=1e-12)


def test_no_temporary_file_is_left_and_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("old")

    def fail(to: Path) -> None:
        to.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(file, fail)
    assert [f.name for f in tmp_path.iterdir()] == ["a.json"]
    assert file.read_text() == "old"


def test_what_is_no_result_is_refused(result: Result, tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"no result at .*; give a run directory or its result.nc"):
        erflab.load(tmp_path)
    (tmp_path / "result.nc").write_bytes(b"not a file of this kind")
    with pytest.raises(ResultError, match="cannot be read as a result"):
        erflab.load(tmp_path)
    result.dataset.assign_attrs(format=99).to_netcdf(tmp_path / "future.nc", engine="h5netcdf")
    with pytest.raises(ResultError, match="has result format 99; this version reads format 3"):
        erflab.load(tmp_path / "future.nc")
    with pytest.raises(ResultError, match="no method 'ablation' in this result; it has gradient, occlusion"):
        result.map("ablation")


def test_summary_is_flat_json_with_units(result: Result) -> None:
    summary = json.loads(as_json(result.summary()))
    assert summary["gradient.sigma"]["unit"] == "px"
    for name in ("gradient.sigma", "gradient.fit_sigma", "occlusion.area_0.9", "gradient.equal_weight_sigma"):
        low, high = summary[name]["interval"]
        assert low < summary[name]["value"] < high
        assert summary[name]["standard_error"] > 0
    for value in summary.values():
        assert not isinstance(value, dict) or set(value) == {"value", "unit", "standard_error", "interval"}


def test_plot_draws_both_methods_and_writes_both_formats(result: Result, tmp_path: Path) -> None:
    figure = result.plot(tmp_path / "figure.png")
    assert [a.get_title() for a in figure.axes if a.get_title()] == ["gradient", "occlusion"]
    assert {file.name for file in tmp_path.iterdir()} == {"figure.pdf", "figure.png"}


def test_a_result_shows_itself_in_a_line(result: Result) -> None:
    assert repr(result) == "Result(nets.small_net.<locals>.Net; (output); gradient, occlusion)"


def test_flags_speak_in_sentences_and_know_their_codes() -> None:
    flag = Flag("trf_clipped", "gradient", "box (1, 2)")
    assert str(flag) == f"gradient: {FLAGS['trf_clipped']} (seen: box (1, 2))"
    with pytest.raises(ValueError, match="flag 'invented' is not listed"):
        Flag("invented")
    assert dataclasses.asdict(flag)["code"] == "trf_clipped"


def test_the_table_quotes_errors_and_intervals(result: Result) -> None:
    quantity = result.sizes("gradient").quantities["sigma"]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table(result))
    told = console.export_text()
    assert f"{quantity.value:.2f} ± {quantity.standard_error:.2f}" in told
    assert "{:.2f} to {:.2f}".format(*quantity.interval) in told


def test_the_metadata_alone_is_that_of_the_parts(result: Result, tmp_path: Path) -> None:
    file = result.save(tmp_path) / "result.nc"
    (found,) = read_attributes(file)
    assert found == {name: result.attribute(name) for name in ATTRIBUTES}
    with h5py.File(file, "a") as opened:
        opened.attrs["format"] = 1
    with pytest.raises(ResultError, match=r"has result format 1; this version reads format 3"):
        read_attributes(file)
    file.write_bytes(b"")
    with pytest.raises(ResultError, match="cannot be read as a result"):
        read_attributes(file)
