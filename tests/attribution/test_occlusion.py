"""Occlusion against an explicit loop over (unit, patch) pairs, captum's Occlusion, and the law for white inputs."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import xarray as xr
from captum.attr import Occlusion
from nets import small_net
from torch import Tensor, nn

from erflab.analysis import moments
from erflab.attribution.base import Batch
from erflab.attribution.occlusion import (
    AxisPlan,
    OccludedDifference,
    OcclusionPlan,
    blurred_fill,
    constant_fill,
    occlusion_maps,
    unit_effects,
)
from erflab.attribution.plan import clipped_share, plan_occlusion
from erflab.config import OcclusionConfig
from erflab.errors import ConfigError, MeasurementError
from erflab.target import OUTPUT, Layout, Trunk
from erflab.theory.field import TheoreticalField
from erflab.theory.layer import theoretical_field

SIZE = 32


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def batch_of(images: Tensor) -> Batch:
    return Batch(images, tuple(range(len(images))), tuple(map(str, range(len(images)))))


def setting(**options: object) -> tuple[nn.Module, TheoreticalField, OcclusionPlan, OccludedDifference]:
    net = small_net()
    field = theoretical_field(net, None, (SIZE, SIZE))
    plan = plan_occlusion(OcclusionConfig(**options), field)
    trunk = Trunk(net, field.layer, field.call, field.layout)
    return net, field, plan, OccludedDifference(trunk, plan, (SIZE, SIZE), torch.device("cpu"))


def loop(net: nn.Module, image: Tensor, fill: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """sum_c (y_c - y_c without the patch)^2 of every unit, [H', W'], one patch at a time."""
    y0, y1, x0, x1 = (max(b, 0) for b in box)
    occluded = image.clone()
    occluded[:, y0:y1, x0:x1] = fill[:, y0:y1, x0:x1]
    return (net(occluded[None]) - net(image[None]))[0].square().sum(0)


@pytest.mark.parametrize("units", ["all", "unclipped", "one"])
@pytest.mark.parametrize("patch", [1, 2, 3, 4])
@pytest.mark.parametrize("per_evaluation", [1, 3, 64])
def test_every_pair_equals_an_explicit_loop(images: Tensor, units: str, patch: int, per_evaluation: int) -> None:
    net, _, plan, difference = setting(units=units, patch=patch, step=2)
    fill = torch.randn_like(images)
    found = unit_effects(difference, images, fill, len(plan.occluders), per_evaluation)
    chosen = list(range(0, len(plan.occluders), max(1, len(plan.occluders) // 12)))
    for b in range(len(images)):
        for q in chosen:
            whole = loop(net, images[b], fill[b], plan.occluders[q])
            expected = whole[list(plan.y.units)][:, list(plan.x.units)].flatten()
            torch.testing.assert_close(found[b, :, q], expected, rtol=1e-10, atol=1e-14)


def test_the_map_is_the_mean_over_the_pairs_of_each_offset(images: Tensor) -> None:
    net, _, plan, difference = setting(units="unclipped", patch=2, step=2)
    fill = torch.zeros_like(images)
    found = occlusion_maps(difference, plan, batch_of(images), fill, 4)
    readings: dict[tuple[float, float], list[float]] = {}
    half = (plan.patch - 1) / 2
    for box in plan.occluders:
        whole = loop(net, images[0], fill[0], box)
        for i, cy in zip(plan.y.units, plan.y.centers, strict=True):
            for j, cx in zip(plan.x.units, plan.x.centers, strict=True):
                offset = (box[0] + half - cy, box[2] + half - cx)
                readings.setdefault(offset, []).append(float(whole[i, j]))
    counts = plan.counts()
    for a, y in enumerate(plan.y.offsets):
        for b, x in enumerate(plan.x.offsets):
            assert len(readings[y, x]) == counts[a, b]
            assert float(found[0, a, b]) == pytest.approx(np.mean(readings[y, x]), rel=1e-10, abs=1e-14)
    beyond = [o for o in readings if o[0] not in plan.y.offsets or o[1] not in plan.x.offsets]
    assert all(max(readings[o]) == 0 for o in beyond)  # outside TRF + (a - 1) nothing can change


def test_all_units_agree_with_one_unit_where_both_read(images: Tensor) -> None:
    net = small_net()
    field = theoretical_field(net, None, (SIZE, SIZE))
    trunk = Trunk(net, field.layer, field.call, field.layout)
    effects = {}
    for units in ("all", "one"):
        plan = plan_occlusion(OcclusionConfig(units=units, patch=3, step=1), field)
        difference = OccludedDifference(trunk, plan, (SIZE, SIZE), torch.device("cpu"))
        values = unit_effects(difference, images, torch.zeros_like(images), len(plan.occluders), 8)
        columns = [(i, j) for i in plan.y.units for j in plan.x.units].index(field.unit)
        effects[units] = dict(zip(plan.occluders, values[:, columns].T, strict=True))
    shared = effects["all"].keys() & effects["one"].keys()
    assert len(shared) == 16
    for box in shared:
        torch.testing.assert_close(effects["all"][box], effects["one"][box], rtol=1e-12, atol=0)


def test_captums_occlusion_gives_the_same_scalar_where_step_is_side(images: Tensor) -> None:
    side = 4
    positions = tuple(side * k + (side - 1) / 2 for k in range(SIZE // side))
    net = small_net()
    axis = AxisPlan(positions, (3,), (0.0,), positions)
    plan = OcclusionPlan(axis, axis, side)
    trunk = Trunk(net, OUTPUT, 0, Layout("nchw", (8, 8)))
    difference = OccludedDifference(trunk, plan, (SIZE, SIZE), torch.device("cpu"))
    fill = constant_fill([0.3, 0.3, 0.3])(batch_of(images))
    found = unit_effects(difference, images, fill, len(plan.occluders))[:, 0].reshape(-1, 8, 8)
    clean = net(images)[:, :, 3, 3]

    def kept(x: Tensor) -> Tensor:
        return -(net(x)[:, :, 3, 3] - clean).square().sum(1)

    theirs = Occlusion(kept).attribute(images, (3, side, side), strides=(3, side, side), baselines=0.3)
    expected = theirs[:, 0, ::side, ::side].double()  # captum spreads each value over the patch, in float32
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_white_inputs_and_a_linear_net_widen_the_energy_by_the_patch() -> None:
    """sigma_occ^2 = sigma_energy^2 + (a^2 - 1) / 12 for white inputs replaced by other white inputs."""
    torch.manual_seed(0)
    net = nn.Conv2d(1, 1, 9, padding=4, bias=False).double().requires_grad_(False)
    y, x = np.mgrid[-4:5, -4:5]
    net.weight.copy_(torch.from_numpy(np.exp(-(y**2 + x**2) / (4 * 1.5**2)))[None, None])
    weights = net.weight[0, 0].square().numpy()
    energy = float((weights * (y**2 + x**2)).sum() / weights.sum() / 2)
    side, patch = 41, 3
    field = theoretical_field(net, None, (side, side))
    plan = plan_occlusion(OcclusionConfig(units="unclipped", patch=patch, step=1), field)
    difference = OccludedDifference(Trunk(net, OUTPUT, 0, field.layout), plan, (side, side), torch.device("cpu"))
    total = torch.zeros(plan.frame.shape, dtype=torch.float64)
    for _ in range(8):
        x_batch = torch.randn(50, 1, side, side, dtype=torch.float64)
        total += occlusion_maps(difference, plan, batch_of(x_batch), torch.zeros_like(x_batch), 16).sum(0)
    found = moments(xr.DataArray(total.numpy(), {"y": list(plan.y.offsets), "x": list(plan.x.offsets)}, ("y", "x")))
    assert found.sigma**2 == pytest.approx(energy + (patch**2 - 1) / 12, rel=0.01)


@pytest.mark.parametrize("patch", [1, 2, 3, 8])
@pytest.mark.parametrize("step", [1, 2, 4, 8])
@pytest.mark.parametrize("units", ["all", "unclipped", "one"])
def test_offsets_are_evenly_spaced_and_each_is_read(patch: int, step: int, units: str) -> None:
    _, field, plan, _ = setting(units=units, patch=patch, step=step)
    for axis in (plan.y, plan.x):
        assert set(np.diff(axis.offsets)) == {float(step)}
    assert int(plan.counts().min()) >= 1
    reach = (field.size[0] + patch - 2) / 2  # TRF + (a - 1) positions
    assert max(plan.y.offsets) <= reach
    assert max(plan.y.offsets) > reach - step
    assert min(plan.y.offsets) < -reach + step
    if units == "one":
        assert int(plan.counts().max()) == 1


def test_all_needs_one_stride_cell_of_occluders() -> None:
    _, _, plan, _ = setting(units="all", patch=2, step=1)
    assert len(plan.occluders) == 16
    assert int(plan.counts().max()) == 1


@pytest.mark.parametrize("units", ["all", "unclipped"])
def test_occluders_that_no_unit_sees_are_not_run(units: str) -> None:
    """Units that see one pixel in four: of a stride cell's sixteen pixels, one matters."""
    field = theoretical_field(nn.Conv2d(3, 3, 1, stride=4), None, (SIZE, SIZE))
    plan = plan_occlusion(OcclusionConfig(units=units, patch=1, step=1), field)
    assert len(plan.occluders) == 1
    assert plan.frame.shape == (1, 1)


def test_patches_in_holes_of_the_field_are_not_run(images: Tensor) -> None:
    """Dilations (2, 2, 2) see 49 of 169 pixels; the map is that of a plan which runs all of them."""
    torch.manual_seed(0)
    net = nn.Sequential(*[nn.Conv2d(3, 3, 3, dilation=2) for _ in range(3)]).double()
    field = theoretical_field(net, None, (SIZE, SIZE))
    plan = plan_occlusion(OcclusionConfig(units="one", patch=1, step=1), field)
    assert (len(plan.occluders), len(plan.patches)) == (49, 169)
    trunk = Trunk(net, field.layer, field.call, field.layout)
    maps = []
    for each in (plan, dataclasses.replace(plan, unseen=())):
        difference = OccludedDifference(trunk, each, (SIZE, SIZE), torch.device("cpu"))
        maps.append(occlusion_maps(difference, each, batch_of(images), torch.zeros_like(images), 16))
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-12, atol=0)
    assert int((maps[0][0] == 0).sum()) == 120
    assert bool((plan.counts() == 1).all())


def test_unclipped_units_alone_are_read_in_that_mode() -> None:
    _, field, plan, _ = setting(units="unclipped", patch=2, step=1)
    assert clipped_share(plan, field) == 0
    assert all(field.is_clipped((i, j)) is False for i in plan.y.units for j in plan.x.units)
    cells = math.ceil((field.size[0] + 1) / 4) - len(plan.y.units) + 1
    assert len(plan.y.positions) == cells * 4
    _, field, plan, _ = setting(units="all", patch=2, step=1)
    assert 0 < clipped_share(plan, field) < 1


def test_auto_takes_half_and_a_quarter_of_the_stride() -> None:
    _, _, plan, _ = setting()
    assert plan.patch == 2
    assert set(np.diff(plan.y.offsets)) == {1.0}


def test_refusals_say_what_to_do(images: Tensor) -> None:
    with pytest.raises(ConfigError, match=r"step is 3 px, which neither divides the stride of 4 px nor .* try 1"):
        setting(step=3)
    with pytest.raises(ConfigError, match=r"patch is 99 px, larger than the \(32, 32\) px input"):
        setting(patch=99, units="one")
    wide = nn.Sequential(*(nn.Conv2d(3, 3, 9, padding=4) for _ in range(5)))
    field = theoretical_field(wide, None, (SIZE, SIZE))
    with pytest.raises(MeasurementError, match=r"no unit of layer .* has its field of 41 px inside the 32 px input"):
        plan_occlusion(OcclusionConfig(units="unclipped"), field)
    misaligned = nn.Sequential(nn.Conv2d(3, 3, 3, stride=2), nn.ConvTranspose2d(3, 3, 3, stride=2))
    field = theoretical_field(misaligned, None, (SIZE, SIZE))
    with pytest.raises(MeasurementError, match=r"not evenly spaced along axis y.*units=one"):
        plan_occlusion(OcclusionConfig(), field)


def test_fills_replace_by_colour_or_blur(images: Tensor) -> None:
    colour = constant_fill([1.0, 2.0, 3.0])(batch_of(images))
    assert colour[:, 1].unique().tolist() == [2.0]
    blurred = blurred_fill(2)(batch_of(images))
    assert blurred.shape == images.shape
    assert float(blurred.std()) < 0.3 * float(images.std())
