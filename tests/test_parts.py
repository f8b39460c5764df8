"""Several layers and units in one measurement: what is chosen, that sharing changes no number, files, tables, figures."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from nets import small_net, uniform_stack
from torch import Tensor, nn

import erflab
from erflab.config import RuntimeConfig, TargetConfig
from erflab.errors import ConfigError, MeasurementError, ResultError, TargetError
from erflab.theory.layer import theoretical_field
from erflab.theory.selection import target_fields
from erflab.theory.separate import separate_units

QUIET = RuntimeConfig(progress=False, device="cpu", dtype="float64")


class Staged(nn.Module):
    """Two stages of two blocks, a reused ReLU, a gate without a grid, scores at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2, padding=1))
        self.stage2 = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2, padding=1))
        self.act = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stage2(self.act(self.stage1(x))))
        return self.head(self.pool(x).flatten(1))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Staged().double().eval()


def chosen(net: nn.Module, layer: object, **target: object) -> list[str]:
    fields = target_fields(net, TargetConfig(layer=layer, **target), (32, 32))
    return [f"{f.layer}:{f.call}" for f in fields]


def test_names_patterns_and_lists_give_layers_in_execution_order(net: nn.Module) -> None:
    assert chosen(net, "stage1") == ["stage1:0"]
    assert chosen(net, ["stage2", "stage1", "stage2"]) == ["stage1:0", "stage2:0"]
    assert chosen(net, "stage*") == ["stage1:0", "stage2:0"]  # one part of a name, not stage1.0
    assert chosen(net, "stage?.1") == ["stage1.1:0", "stage2.1:0"]
    assert chosen(net, ["act:0", "stage2"]) == ["act:0", "stage2:0"]
    assert chosen(net, None) == ["act:1"]


def test_all_is_every_call_with_a_grid_by_its_outermost_name(net: nn.Module) -> None:
    assert chosen(net, "all") == ["stage1.0:0", "stage1:0", "act:0", "stage2.0:0", "stage2:0", "act:1"]


def test_units_multiply_layers(net: nn.Module) -> None:
    fields = target_fields(net, TargetConfig(layer="stage*", unit=["center", "corner", [-1, 2]]), (32, 32))
    assert [(f.layer, f.unit) for f in fields] == [
        ("stage1", (8, 8)), ("stage1", (0, 0)), ("stage1", (15, 2)),
        ("stage2", (4, 4)), ("stage2", (0, 0)), ("stage2", (7, 2)),
    ]  # fmt: skip


def test_a_unit_that_is_named_twice_is_one(net: nn.Module) -> None:
    fields = target_fields(net, TargetConfig(layer="stage1", unit=[[8, 8], "corner", "center", [-8, -8]]), (32, 32))
    assert [f.unit for f in fields] == [(8, 8), (0, 0)]


def test_what_is_refused_when_choosing(net: nn.Module) -> None:
    with pytest.raises(TargetError, match=r"no layer with a grid of units fits 'stag\?'. Did you mean 'stage"):
        chosen(net, "stag?")
    with pytest.raises(TargetError, match="no layer with a grid of units fits 'poo\\*'"):
        chosen(net, "poo*")
    with pytest.raises(ConfigError, match=r"target.layer is \[\]; give a name, a pattern, all, or a list"):
        TargetConfig(layer=[])
    with pytest.raises(ConfigError, match=r"target.unit is 'centre'; choose one of center, corner, grid"):
        TargetConfig(unit="centre")
    with pytest.raises(ConfigError, match=r"target.unit is 'grid'; choose one of center, corner"):
        TargetConfig(unit=["center", "grid"])


@pytest.fixture(scope="module")
def several(net: nn.Module) -> erflab.Result:
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return erflab.measure(
        net, images, ["stage*", "act:0"], ["center", "corner"], ["gradient", "occlusion"], runtime=QUIET
    )


def test_each_part_is_what_the_layer_gives_alone(net: nn.Module, several: erflab.Result) -> None:
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert several.labels == ("stage1[8,8]", "stage1[0,0]", "act:0[8,8]", "act:0[0,0]", "stage2[4,4]", "stage2[0,0]")
    alone = erflab.measure(net, images, "stage2", [0, 0], ["gradient", "occlusion"], runtime=QUIET)
    part = several.at("stage2[0,0]")
    for method in ("gradient", "occlusion"):
        np.testing.assert_array_equal(part.map(method).values, alone.map(method).values)
    assert alone.labels == ("stage2",)
    assert [p.labels[0] for p in several] == ["stage1", "stage1", "act:0", "act:0", "stage2", "stage2"]


def test_several_parts_are_stored_in_one_file_and_come_back(several: erflab.Result, tmp_path: Path) -> None:
    several.save(tmp_path / "run")
    back = erflab.load(tmp_path / "run")
    assert back.labels == several.labels
    assert all(a.identical(b) for a, b in zip(back.parts, several.parts, strict=True))
    rows = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [row["unit"] for row in rows] == [
        list(map(int, label[label.index("[") + 1 : -1].split(","))) for label in several.labels
    ]
    table = back.table()
    assert list(table.index) == list(several.labels)
    assert table.loc["stage2[4,4]", "gradient.sigma"] == several.at("stage2[4,4]").sizes().quantities["sigma"].value


def test_a_part_must_be_chosen_where_there_are_several(several: erflab.Result) -> None:
    with pytest.raises(
        ResultError, match=r"this result has 6 parts: stage1\[8,8\], .* choose one: result.at\('stage1\[8,8\]'\)"
    ):
        several.map()
    with pytest.raises(ResultError, match=r"no part 'stage3' in this result of 6. Did you mean"):
        several.at("stage3")


def test_the_figure_of_several_layers_shows_size_against_depth(several: erflab.Result, tmp_path: Path) -> None:
    figure = several.plot(tmp_path / "erf")
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_xticklabels()] == list(several.labels)
    assert axes.get_yscale() == "log"
    written = sorted(p.name for p in tmp_path.glob("*.pdf"))
    assert "erf.pdf" in written
    assert "erf_stage2_0_0.pdf" in written
    assert len(written) == 1 + len(several)


def test_auto_size_holds_the_fields_of_all_layers() -> None:
    from erflab.theory.size import smallest_unclipped_size

    net = uniform_stack(4, 3)
    for layer, side in (("0", 3), ("3", 9), ("*", 9)):
        assert smallest_unclipped_size(net, TargetConfig(layer=layer), fallback=(33, 33), limit=99) == (side, side)


# Units whose fields do not overlap


def test_separate_units_share_no_pixel_and_leave_no_room_for_more() -> None:
    field = theoretical_field(uniform_stack(2, 3), None, (23, 16))  # fields of 5 px
    units = separate_units(field)
    assert [i for i, j in units if j == units[0][1]] == [3, 8, 13, 18]
    assert [j for i, j in units if i == units[0][0]] == [2, 7, 12]
    seen = np.zeros((23, 16), int)
    for unit in units:
        box = field.box(unit)
        assert box is not None
        y0, y1, x0, x1 = map(int, box)
        assert min(y0, x0) >= 0
        seen[y0 : y1 + 1, x0 : x1 + 1] += 1
    assert seen.max() == 1


def test_a_grid_of_units_gives_the_mean_of_their_maps() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)).double()
    images = torch.randn(3, 3, 33, 40)
    grid = erflab.measure(net, images, unit="grid", runtime=QUIET)
    units = grid.attribute("theory")["units"]
    assert len(units) == 4 * 5
    size = grid.attribute("theory")["size"]
    assert grid.map().shape == (7, 7) == tuple(size)
    singly = erflab.measure(net, images, unit=units, runtime=QUIET)
    windows = [part.map().sel(y=slice(-3, 3), x=slice(-3, 3)).values for part in singly]
    np.testing.assert_allclose(grid.map().values, np.mean(windows, axis=0), rtol=1e-12)
    assert float(singly.at(singly.labels[0]).map().sum()) == pytest.approx(
        float(windows[0].sum())
    )  # nothing lies outside


def test_a_grid_is_refused_where_fields_cannot_be_kept_apart() -> None:
    with pytest.raises(
        MeasurementError, match=r"no unit of layer '\(output\)' has its field of 5 px inside the 4 px input"
    ):
        separate_units(theoretical_field(uniform_stack(2, 3), None, (4, 9)))
    gated = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Softmax(dim=2))
    with pytest.raises(MeasurementError, match=r"the field of layer '1' is global; use target.unit=center"):
        separate_units(theoretical_field(gated, "1", (16, 16)))


# Stopping


def test_a_measurement_stops_at_the_first_look_that_is_good_enough() -> None:
    images = torch.randn(300, 3, 24, 24, generator=torch.Generator().manual_seed(3))
    loose = dataclasses.replace(QUIET, tolerance=0.2, dtype="float32", batch_size=50)
    result = erflab.measure(small_net(), images, runtime=loose)
    found = result.convergence()
    assert found["images"].values.tolist() == [64, 128]  # 64 images are fewer than 100 effective ones
    assert result.dataset["gradient"].attrs["images"] == 128
    assert [f.seen for f in result.flags if f.code == "stopped"] == [
        f"SE/sigma {float(found['standard_error'][-1] / found['sigma'][-1]):.2%} after 128 of 300 images"
    ]
    assert float(found["sigma"][-1]) == pytest.approx(result.sizes().quantities["sigma"].value)
    other = erflab.measure(small_net(), images, runtime=dataclasses.replace(loose, batch_size=7))
    assert other.dataset["gradient"].attrs["images"] == 128


def test_running_out_of_images_is_flagged_and_the_curve_is_kept() -> None:
    images = torch.randn(70, 3, 24, 24, generator=torch.Generator().manual_seed(3))
    result = erflab.measure(small_net(), images, runtime=dataclasses.replace(QUIET, tolerance=0.001))
    assert result.convergence()["images"].values.tolist() == [64, 70]
    (flag,) = [f for f in result.flags if f.code == "tolerance_not_reached"]
    assert "70 images" in flag.seen


def test_a_map_without_a_size_never_satisfies() -> None:
    images = torch.randn(130, 3, 16, 16)
    result = erflab.measure(small_net(), images, magnitude="signed", runtime=dataclasses.replace(QUIET, tolerance=0.9))
    assert [f.seen[:17] for f in result.flags if f.code == "tolerance_not_reached"] == ["SE/sigma unknown,"]
    assert math.isnan(float(result.convergence()["sigma"][-1]))


def test_a_tolerance_is_a_share() -> None:
    with pytest.raises(ConfigError, match=r"runtime.tolerance is 2; give a share between 0 and 1, such as 0.01"):
        RuntimeConfig(tolerance=2)


def test_heads_by_tokens_by_channels_are_no_grid_of_the_image() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", qk_norm=True, depth=2)
    grids = {field.grid for field in target_fields(model, TargetConfig(layer="all"), (224, 224))}
    assert grids == {(14, 14)}  # norms of queries and keys are [B, 3, 197, 64]
