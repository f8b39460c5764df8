"""All layers at once."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

import erflab
from erflab.errors import TargetError, TheoryError
from erflab.theory.layer_table import NO_GRID, LayerRow, LayerTable
from erflab.theory.layers import theoretical_fields, with_predictions
from erflab.theory.rules import RULES


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
    assert [row.clipped for row in table[:2]] == [False, False]


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
    assert [resnet[layer].clipped for layer in ("maxpool", "layer2", "fc")] == [
        False,
        True,
        None,
    ]  # layer2: 99 of 96 px
    assert (records[-1]["trf_y"], records[-1]["stride_y"], rows[-1]["stride_y"]) == ("inf", None, "")
    assert list(resnet.to_dataframe()["layer"]) == [row.layer for row in resnet]


def test_a_pool_over_the_image_leaves_the_local_field_empty() -> None:
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Upsample(scale_factor=8))
    row = theoretical_fields(pooled, (16, 16))["2"]
    assert (row.size, row.local_size) == ((math.inf, math.inf), (0, 0))
    assert (row.stride, row.padding, row.holes) == ((None, None), (None, None), None)


# --- holes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "share"),
    [
        ([nn.Conv2d(3, 4, 3, padding=1)], 0.0),
        ([nn.Conv2d(3, 4, 3, dilation=2, padding=2)], 1 - 9 / 25),  # rows -2, 0, 2 of -2..2
        ([nn.Conv2d(3, 4, 3, dilation=2), nn.Conv2d(4, 4, 3, dilation=2)], 1 - 25 / 81),  # even rows of -4..4
        ([nn.Conv2d(3, 4, 3, dilation=2), nn.Conv2d(4, 4, 3, dilation=(4, 1))], 1 - 7 * 7 / (13 * 7)),  # columns fill
        ([nn.Conv2d(3, 4, 1, stride=2), nn.Conv2d(4, 4, 3)], 1 - 9 / 25),
        ([nn.Conv2d(3, 4, 3, dilation=2), nn.Conv2d(4, 4, 2)], 1 - 36 / 36),  # a kernel of two fills the grid
    ],
)
def test_holes(layers: list[nn.Module], share: float) -> None:
    row = theoretical_fields(nn.Sequential(*layers), (40, 40))[str(len(layers) - 1)]
    assert row.holes == pytest.approx(share, abs=1e-12)
    assert row.gaps.reason is None


class Lost(nn.Module):
    """A layer whose dependence on the image is lost."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean().item()


class Unruled(nn.Module):
    """An operation that the table of boxes knows and, for the time of a test, that of sets does not."""

    def forward(self, x: Tensor) -> Tensor:
        return x.roll(2, 3)


def test_a_set_without_a_rule_leaves_the_rest_of_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "aten.roll", dataclasses.replace(RULES["aten.roll"], support=None))
    table = theoretical_fields(nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2), Unruled()), (32, 32))
    assert table["0"].holes == pytest.approx(0.64)
    assert (table["1"].size, table["1"].holes) == ((5, 5), None)
    assert "no support rule for operation 'aten.roll', met in module '1'" in str(table["1"].gaps.reason)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.AdaptiveAvgPool2d(1), "the layer has no grid of more than one unit"),
        (nn.Softmax(2), "the field is global"),
        (Lost(), "the dependence on the image was lost in 1"),
    ],
)
def test_why_there_are_no_holes(layer: nn.Module, reason: str) -> None:
    row = theoretical_fields(nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2), layer), (16, 16))["1"]
    assert (row.holes, row.gaps.reason) == (None, reason)


# --- predicted sizes ------------------------------------------------------------------------------------------------------


def kernels_variance(conv: nn.Conv2d) -> float:
    """The mean over axes of the variance of a squared kernel, in taps^2."""
    density = conv.weight.detach()[0, 0].square()
    density = density / density.sum()
    taps = torch.arange(3.0, dtype=density.dtype)
    lines = (density.sum(1), density.sum(0))
    return sum(float(line @ taps**2 - (line @ taps) ** 2) for line in lines) / 2


def test_predicted_sigma_of_random_kernels_in_a_row() -> None:
    """One channel: the energy is the convolution of the squared kernels, whose variances add."""
    torch.manual_seed(1)  # other weights may leave a ReLU dead, which has no sigma
    convolutions = [nn.Conv2d(1, 1, 3) for _ in range(4)]
    model = nn.Sequential(*(layer for conv in convolutions for layer in (conv, nn.ReLU()))).double()
    table = theoretical_fields(model, (21, 21), predicted=True)
    variance = 0.0
    for n, conv in enumerate(convolutions):
        variance += kernels_variance(conv)
        for row in table[2 * n : 2 * n + 2]:
            assert row.predicted_sigma == pytest.approx(math.sqrt(variance), rel=1e-9)
            assert row.predicted_over_trf == pytest.approx(math.sqrt(variance) / (2 * n + 3), rel=1e-9)


def test_predicted_over_trf_takes_the_geometric_mean_of_the_sides() -> None:
    row = theoretical_fields(nn.Conv2d(3, 4, (3, 7)), (16, 16), predicted=True)[0]
    assert row.predicted_sigma is not None
    assert row.predicted_over_trf == pytest.approx(row.predicted_sigma / math.sqrt(21), rel=1e-12)


def test_predictions_are_those_of_single_layers() -> None:
    model = torchvision.models.resnet18(weights=None).eval()
    table = theoretical_fields(model, (64, 64))
    assert table["layer2"].prediction.reason == "not asked for"
    part = with_predictions(LayerTable([table["layer2"], table["conv1"], table["fc"]], table.input_size), model)
    for row in part[:2]:
        assert row.predicted_sigma == erflab.predicted_field(model, row.layer, (64, 64)).sigma
    assert (part["fc"].predicted_sigma, part["fc"].prediction.reason) == (None, NO_GRID)


class Cumulated(nn.Module):
    """An operation that the mean field has no rule for."""

    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(3)


def without_weights(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    return layer


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Cumulated(), "no energy rule for operation 'aten.cumsum', met in module '1'"),
        (without_weights(nn.Conv2d(4, 4, 3)), "the map is zero everywhere"),
    ],
)
def test_why_there_is_no_predicted_sigma(layer: nn.Module, reason: str) -> None:
    table = theoretical_fields(nn.Sequential(nn.Conv2d(3, 4, 3), layer, nn.ReLU()), (12, 12), predicted=True)
    assert table["0"].predicted_sigma is not None
    for name in ("1", "2"):
        assert (table[name].predicted_sigma, table[name].predicted_over_trf) == (None, None)
        assert reason in str(table[name].prediction.reason)
        assert reason in table[name].record()["predicted_reason"]


def test_no_predicted_sigma_where_the_dependence_was_lost() -> None:
    row = theoretical_fields(nn.Sequential(nn.Conv2d(3, 4, 3), Lost()), (12, 12), predicted=True)["1"]
    assert (row.predicted_sigma, row.prediction.reason) == (None, "the dependence on the image was lost in 1")


def test_no_predicted_sigma_on_a_line() -> None:
    row = theoretical_fields(nn.Conv1d(2, 2, 5), (64,), predicted=True)[0]
    assert row.predicted_sigma is None
    assert "the map has dims ('x',)" in str(row.prediction.reason)


def test_a_global_layer_has_a_predicted_size_but_no_ratio() -> None:
    row = theoretical_fields(SqueezeExcitation(4, 2), (12, 12), channels=4, predicted=True)["(output)"]
    assert row.is_global
    assert row.predicted_sigma is not None
    assert row.predicted_over_trf is None


def test_numbers_survive_the_files(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2), Cumulated(), nn.AdaptiveAvgPool2d(1))
    table = theoretical_fields(model, (16, 16), predicted=True)
    table.to_csv(tmp_path / "fields.csv")
    table.to_json(tmp_path / "fields.json")
    assert json.loads((tmp_path / "fields.json").read_text(encoding="utf-8")) == table.records()
    with (tmp_path / "fields.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for written, record in zip(rows, table.records(), strict=True):
        for name in ("holes", "predicted_sigma", "predicted_over_trf"):
            assert (float(written[name]) if written[name] else None) == record[name]
        for name in ("holes_reason", "predicted_reason"):
            assert (written[name] or None) == record[name]


# --- lines and errors -----------------------------------------------------------------------------------------------------


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
