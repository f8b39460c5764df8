"""The study of skips: its networks, what it reads of stored runs, and claims that fail where they should."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure

from erflab.analysis.scaling import replicate_mean


def jacobian(paths: str | int) -> torch.Tensor:
    from unet import UNet

    torch.manual_seed(0)
    network = UNet(paths, channels=2).double()
    images = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    return torch.autograd.functional.jacobian(lambda x: network(x)[0, :, 8, 8], images)


def test_the_gradients_of_a_u_nets_levels_add_up_to_the_whole():
    whole = jacobian("all")
    levels = [jacobian(level) for level in range(4)]
    torch.testing.assert_close(sum(levels), whole, rtol=1e-12, atol=1e-15)
    assert all(float(level.abs().max()) > 0 for level in levels)
    assert not torch.equal(jacobian("none"), levels[3])  # without skips other units are active
    reach = [int((level[0, 0] != 0).any(0).any(0).nonzero().max()) for level in levels[:2]]
    assert reach[0] <= 8 + 4 < reach[1]  # four convolutions at the top level


@torch.no_grad()
def test_a_plain_block_is_a_basic_block_without_its_addition():
    from shortcuts import PlainBlock

    torch.manual_seed(0)
    block = PlainBlock(4, 4).eval()
    x = torch.randn(1, 4, 8, 8)
    branch = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))
    torch.testing.assert_close(block(x), torch.relu(branch))
    torch.testing.assert_close(super(PlainBlock, block).forward(x), torch.relu(branch + x))


@torch.no_grad()
def test_a_normalised_network_has_seen_its_images():
    from shortcuts import resnet

    torch.manual_seed(0)
    network = resnet("normalised", blocks=1).eval()
    torch.manual_seed(1)
    stem = network.bn1(network.conv1(torch.randn(4, 3, 96, 96)))
    assert stem.var((0, 2, 3)).mean().item() == pytest.approx(1, rel=0.05)


def test_blocks_are_counted_by_the_variance_they_add(scripts: Path):
    import skip_connections as study

    for seed, added in enumerate((63, 65)):
        rows = [{"layer": "maxpool", "gradient.sigma": {"value": 2.0}}]
        rows += [
            {"layer": layer, "gradient.sigma": {"value": (4 + n * added / 3) ** 0.5}}
            for layer, n in study.BLOCKS.items()
        ]
        (scripts / str(seed)).mkdir()
        (scripts / str(seed) / "summary.json").write_text(json.dumps(rows))
    passed = study.blocks_passed([scripts / "0", scripts / "1"])
    assert [passed[layer].value for layer in study.BLOCKS] == pytest.approx([1, 2, 4, 8, 16])


def even(value: float) -> object:
    return replicate_mean([value, value * 1.01, value * 0.99])


@pytest.mark.parametrize(
    ("plain", "residual", "normalised", "expected"),
    [(16, 10.7, 4.8, [True] * 3), (16, 16, 4.8, [True, False, True]), (12, 10.7, 9, [False, True, False])],
)
def test_shortcuts_that_do_nothing_are_noticed(plain, residual, normalised, expected):
    import skip_connections as study

    values = {"plain": plain, "residual": residual, "normalised": normalised}
    passed = {kind: {"layer1.1": even(1.3), "layer1.15": even(value)} for kind, value in values.items()}
    assert [claim.holds for claim in study.residual_claims(passed)] == expected


def test_the_claims_about_the_u_net():
    import skip_connections as study

    def row(sigma: float, exponent: float) -> dict[str, object]:
        return {"sigma (px)": even(sigma), "exponent": even(exponent)}

    levels = {"all": row(7, 0.6), "none": row(12.3, 2.2), "0": row(1.63, 2.3), "3": row(12.2, 2.2)}
    assert [c.holds for c in study.unet_claims(levels, even(1), even(0.4))] == [True] * 5
    wrong = {"all": row(7, 1.5), "none": row(12.3, 0.5), "0": row(2.5, 2.3), "3": row(9, 2.2)}
    assert [c.holds for c in study.unet_claims(wrong, even(1.2), even(0.9))] == [False] * 5


def test_the_figure_is_drawn_of_maps_and_counts():
    import skip_connections as study

    offsets = np.arange(-20.0, 21)
    bell = xr.DataArray(np.exp(-(offsets[:, None] ** 2 + offsets**2) / 20), {"y": offsets, "x": offsets}, ("y", "x"))
    maps = {paths: [bell, 2 * bell] for paths in ("all", "none", *study.LEVELS)}
    assert study.share(maps, *study.LEVELS).value == pytest.approx(4)
    passed = {kind: {layer: even(n) for layer, n in study.BLOCKS.items()} for kind in study.LABELS}
    figure = study.draw(passed, maps)
    assert isinstance(figure, Figure)
    assert [text.get_text() for text in figure.axes[1].get_legend().get_texts()][:2] == ["with skips", "without skips"]
