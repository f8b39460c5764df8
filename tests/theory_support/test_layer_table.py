"""All layers at once."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
import torchvision
from torch import Tensor, nn

import erflab
from erflab.errors import TargetError, TheoryError
from erflab.theory.layers import LayerRow, LayerTable, theoretical_fields


@pytest.fixture(scope="module")
def resnet() -> LayerTable:
    return theoretical_fields(torchvision.models.resnet18(weights=None), (128, 96))


def test_rows_in_execution_order(resnet: LayerTable) -> None:
    assert len(resnet) == 76
    assert [row.layer for row in resnet[:4]] == ["conv1", "bn1", "relu", "maxpool"]
    assert resnet[-1].layer == "(output)"
    assert isinstance(resnet[-1], LayerRow)
    assert resnet[0].kind == "Conv2d"
    assert repr(resnet) == "LayerTable(76 layers at 128x96 px)"


@pytest.mark.parametrize("layer", ["conv1", "maxpool", "layer1.0.conv1", "layer2", "layer4.1.bn2"])
def test_a_row_is_what_the_single_layer_gives(resnet: LayerTable, layer: str) -> None:
    field = erflab.theoretical_field(torchvision.models.resnet18(weights=None), layer, (128, 96))
    row = resnet[layer]
    assert row.field is not None
    assert (row.grid, row.size, row.stride, row.padding) == (field.grid, field.size, field.stride, field.padding)
    assert (row.aligned, row.is_global, row.causes) == (True, False, ())
    assert row.field.center() == field.center()
    assert row.field.support().box == field.support().box


def test_layers_without_positions(resnet: LayerTable) -> None:
    assert resnet["fc"].grid is None
    assert resnet["fc"].aligned is None
    assert resnet["fc"].size == (math.inf, math.inf)
    assert resnet["fc"].causes == ("avgpool",)


def test_global_rows_show_the_local_pattern() -> None:
    table = theoretical_fields(torchvision.models.efficientnet_b0(weights=None))
    row = table["features"]
    assert (row.size, row.is_global) == ((math.inf, math.inf), True)
    assert (row.local_size, row.stride, row.padding, row.aligned) == ((851, 851), (32, 32), (425, 425), True)
    assert "features.1.0.block.1.avgpool" in row.causes


def test_calls_of_a_reused_module() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x))

    table = theoretical_fields(Twice(), (16, 16))
    assert [(row.layer, row.call, row.size) for row in table[:2]] == [("conv", 0, (3, 3)), ("conv", 1, (5, 5))]
    assert table["conv"].call == 1


def test_files(resnet: LayerTable, tmp_path: Path) -> None:
    resnet.to_csv(tmp_path / "fields.csv")
    resnet.to_json(tmp_path / "fields.json")
    with (tmp_path / "fields.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    records = json.loads((tmp_path / "fields.json").read_text(encoding="utf-8"))
    assert len(rows) == len(records) == len(resnet)
    assert {k: rows[3][k] for k in ("layer", "module", "trf_y", "stride_x")} == {
        "layer": "maxpool", "module": "MaxPool2d", "trf_y": "11", "stride_x": "4",
    }  # fmt: skip
    assert (records[3]["trf_y"], records[3]["aligned"], records[3]["output"]) == (11, True, "64x32x24")
    assert (records[-1]["trf_y"], records[-1]["stride_y"], rows[-1]["stride_y"]) == ("inf", None, "")
    assert list(resnet.to_dataframe()["layer"]) == [row.layer for row in resnet]


def test_a_line_instead_of_an_image() -> None:
    table = theoretical_fields(nn.Sequential(nn.Conv1d(2, 2, 5, stride=2), nn.Conv1d(2, 2, 3)), (64,))
    assert table["1"].size == (9,)
    assert table.records()[0]["trf_x"] == 5


def test_unknown_layer(resnet: LayerTable) -> None:
    with pytest.raises(TargetError, match=r"no layer 'layer5' among the 76 of the table\. Did you mean 'layer4'"):
        resnet["layer5"]


def test_a_size_that_the_model_refuses() -> None:
    with pytest.raises(TheoryError, match="does not run at input size"):
        theoretical_fields(nn.Conv2d(3, 3, 9), (4, 4))
