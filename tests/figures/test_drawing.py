"""The figures that a run is asked for: each kind by its name, and what does not apply is a warning."""

from pathlib import Path

import pytest
import torch
from torch import nn

import erflab
from erflab.config import RuntimeConfig
from erflab.drawing import draw_figures
from erflab.errors import MeasurementError
from erflab.result import Result

RUNTIME = RuntimeConfig(progress=False, device="cpu")


@pytest.fixture(scope="module")
def two_layers() -> Result:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
    return erflab.measure(net, torch.randn(8, 3, 12, 12), ["0", "2"], runtime=RUNTIME)


def drawn(folder: Path) -> set[str]:
    return {file.stem for file in folder.glob("*.png")} & {file.stem for file in folder.glob("*.pdf")}


def test_kinds_are_drawn_by_their_names_and_only_where_they_are_missing(two_layers: Result, tmp_path: Path) -> None:
    one = two_layers.at("2")
    assert draw_figures(one, ["areas", "convergence"], tmp_path) == []
    assert drawn(tmp_path) == {"areas", "convergence"}
    stamp = (tmp_path / "areas.png").stat().st_mtime_ns
    assert draw_figures(one, ["areas", "spectrum"], tmp_path) == []
    assert drawn(tmp_path) == {"areas", "convergence", "spectrum"}
    assert (tmp_path / "areas.png").stat().st_mtime_ns == stamp
    assert draw_figures(one, False, tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_of_several_parts_a_kind_for_one_is_drawn_of_each(two_layers: Result, tmp_path: Path) -> None:
    assert draw_figures(two_layers, ["depth", "spectrum"], tmp_path) == []
    assert drawn(tmp_path) == {"depth", "spectrum_0", "spectrum_2"}


def test_a_kind_that_does_not_apply_is_a_warning_that_says_why(
    two_layers: Result, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = ["figure comparison is not drawn: this figure needs gradient and occlusion; the result has gradient."]
    assert draw_figures(two_layers.at("0"), ["comparison", "areas"], tmp_path) == told
    assert drawn(tmp_path) == {"areas"}
    assert told[0] in caplog.text

    def fails_halfway(self: Result, path: Path, kind: str) -> None:
        path.parent.mkdir()
        raise MeasurementError("it has no width")

    monkeypatch.setattr(Result, "plot", fails_halfway)
    assert draw_figures(two_layers.at("0"), ["radial"], tmp_path) == ["figure radial is not drawn: it has no width"]
    assert {file.name for file in tmp_path.iterdir()} == {"areas.pdf", "areas.png"}
