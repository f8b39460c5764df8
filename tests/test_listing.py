"""The verb `erflab theory`."""

from __future__ import annotations

import io
import json
from collections import OrderedDict
from pathlib import Path

import pytest
from rich.console import Console
from torch import Tensor, nn

from erflab import cli
from erflab.errors import ConfigError, ModelError
from erflab.listing import LONGEST_NAME, print_fields, render
from erflab.theory.layers import theoretical_fields


def test_the_table_and_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [f"{tmp_path}/fields.csv", f"{tmp_path}/fields.json"]
    cli.VERBS["theory"](
        ["model=resnet18", "--csv", files[0], "images.size=[128,96]", f"--json={files[1]}", "--no-predicted"]
    )
    printed = capsys.readouterr().out
    assert "resnet18 at 128 x 96 px" in printed
    assert any("layer4" in line and " 435 " in line and " 217 " in line for line in printed.splitlines())
    assert "global" in printed
    records = json.loads(Path(files[1]).read_text(encoding="utf-8"))
    assert len(records) == len(Path(files[0]).read_text(encoding="utf-8").splitlines()) - 1 == 76


def test_only_some_layers(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields(["model=resnet18", "images.size=64", "--layers", "^layer[12]$"])
    printed = capsys.readouterr().out
    assert "layer1" in printed
    assert "layer2" in printed
    assert "conv" not in printed


def line_of(layer: str, printed: str) -> list[str]:
    return next(line.split() for line in printed.splitlines() if line.split()[:1] == [layer])


def test_holes_and_predicted_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fields.json"
    print_fields(["model=resnet18", "images.size=64", "--layers", "^(layer1|avgpool)$", "--json", str(file)])
    printed = capsys.readouterr().out
    *_, holes, sigma, ratio = line_of("layer1", printed)
    assert holes == "0"
    assert float(ratio) == pytest.approx(float(sigma) / 43, abs=0.001)
    layer1, avgpool = json.loads(file.read_text(encoding="utf-8"))
    assert (sigma, ratio) == (f"{layer1['predicted_sigma']:.2f}", f"{layer1['predicted_over_trf']:.3f}")
    assert avgpool["predicted_reason"] == avgpool["holes_reason"] == "the layer has no grid of more than one unit"
    assert line_of("avgpool", printed)[-3:] == ["-", "-", "-"]
    assert "told where" not in printed


def test_without_predictions(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields(["model=resnet18", "images.size=64", "--layers", "^layer1$", "--no-predicted"])
    printed = capsys.readouterr().out
    assert line_of("layer1", printed)[-3:] == ["0", "-", "-"]
    assert "no sigma told where: not asked for" in printed


def test_a_sigma_cut_by_the_image_is_starred(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields(["model=resnet18", "images.size=96", "--layers", "^layer[12]$"])
    printed = capsys.readouterr().out
    assert line_of("layer1", printed)[-2][0] != "*"
    assert line_of("layer2", printed)[-2][0] == "*"  # 99 px
    assert "* the image cuts the field (layers: 1); sigma is that of the part inside" in " ".join(printed.split())


class Row(nn.Module):
    """Dilated, so with holes, then an operation that the mean field has no rule for."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).cumsum(3)


def test_rendered_in_120_columns() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render(theoretical_fields(Row(), (16, 16), predicted=True), "row"))
    printed = console.export_text()
    assert "conv" in printed
    assert line_of("conv", printed)[-3] == "64.0%"
    assert "no sigma told where: no energy rule for operation 'aten.cumsum'" in " ".join(printed.split())


def test_long_names_are_whole_up_to_their_limit() -> None:
    name = "a" * LONGEST_NAME
    console = Console(width=120, record=True, file=io.StringIO())
    model = nn.Sequential(OrderedDict({name: nn.Conv2d(3, 3, 3)}))
    console.print(render(theoretical_fields(model, (16, 16)), "row"))
    assert any(line.split()[:1] == [name] for line in console.export_text().splitlines())


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["model=resnet18", "--cvs", "x"], ConfigError, r"no option '--cvs'.*Usage: erflab theory"),
        (["model=resnet18", "--csv"], ConfigError, r"argument --csv: expected one argument\. Usage"),
        (["model=resnet18", "--layers", "("], ConfigError, r"--layers '\(' is no regular expression"),
        (["model=resnet1888"], ModelError, "resnet1888.*Did you mean 'resnet18'"),
    ],
)
def test_bad_input(arguments: list[str], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        print_fields(arguments)
