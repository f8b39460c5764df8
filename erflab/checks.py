"""What a model, its theoretical field and its measured maps show that may mislead, as flags (`erflab.flags`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from erflab.attribution.base import Aim
from erflab.config import RuntimeConfig
from erflab.dataset import Measured
from erflab.errors import FlaggedError
from erflab.flags import Flag
from erflab.result import Result
from erflab.target import Trunk
from erflab.theory.field import TheoreticalField

BORDER_LEVEL = 0.01
"""Mean density on the outermost pixels, as a share of the peak, above which the border cuts the effective field. (A Gaussian
falls to it at three sigma, beyond which lies one percent of its mass.)"""

DEAD_IMAGES = 0.1
"""Share of images on which the unit is dead, above which the map speaks of few images."""

VANISHING_SUM = 1e-4
"""|sum over channels| / (sqrt(C) root mean square) below which a sum over channels is zero but for rounding."""


ROUGH = 32
"""Errors of a unit's output in units of the last digit, over which the effect of occluding must lie."""


def all_flags(module: nn.Module, field: TheoreticalField, measured: Mapping[str, Measured]) -> list[Flag]:
    """Every flag of one part of a measurement."""
    flags = [*field_flags(field), *model_flags(module, field)]
    for method, found in measured.items():
        flags += [*found.flags, *map_flags(method, found, field), *found.convergence.flags(method)]
    return flags


def field_flags(field: TheoreticalField) -> Iterator[Flag]:
    """What the theoretical field lacks: a bound, a known box, room in the image."""
    if field.untracked:
        yield Flag("untracked", None, ", ".join(field.untracked[:4]))
    if field.is_global:
        yield Flag("trf_global", None, ", ".join(field.causes[:4]))
    elif field.box() is None:
        yield Flag("trf_unknown", None, field.reason or "an empty field")
    elif field.is_clipped():
        yield Flag("trf_clipped", None, f"box {field.box()} in {field.input_size} px")


def model_flags(module: nn.Module, field: TheoreticalField) -> Iterator[Flag]:
    """Weights of zero and statistics of the batch, in the modules that the layer depends on."""
    assert field.graph is not None
    upstream = {node.module for node in field.graph.needed([field.graph.layers[field.layer, field.call]])}
    modules = {name: part for name, part in module.named_modules() if name in upstream}
    zero = [
        f"{name}.{kind}" for name, part in modules.items() for kind, p in part.named_parameters(recurse=False)
        if kind != "bias" and not bool(p.any())
    ]  # fmt: skip
    if zero:
        yield Flag("zero_branches", None, _some(zero))
    batch = [name for name, part in modules.items() if isinstance(part, _BatchNorm) and part.running_mean is None]
    if batch:
        yield Flag("batch_statistics", None, _some(batch))


def map_flags(method: str, measured: Measured, field: TheoreticalField) -> Iterator[Flag]:
    """A unit that is dead on many images, a map near the smallest number, a map cut by the image's border."""
    totals = np.asarray(measured.sums.totals)
    dead = float((totals == 0).mean())
    if DEAD_IMAGES < dead < 1:  # dead on all of them, the map has no size, and that says so
        yield Flag("dead_images", method, f"{dead:.0%} of {totals.size}")
    peak = float(measured.sums.mean.abs().max())
    if 0 < peak < _smallest(measured):
        yield Flag("underflow", method, f"peak {peak:.1g}")
    border = _border_level(measured.placed(measured.sums.mean))
    if border > BORDER_LEVEL and (field.is_global or field.is_clipped() is not False):
        yield Flag("erf_clipped", method, f"{border:.0%} of the peak")


def _smallest(measured: Measured) -> float:
    """The smallest normal value of a map: energies are squares, taken in float64, of gradients that may be float32."""
    precision = torch.float64 if measured.computed["precision"] == "float64" else torch.float32
    smallest = torch.finfo(precision).tiny ** (2 if measured.magnitude == "energy" else 1)
    return max(smallest, torch.finfo(torch.float64).tiny)


def _border_level(map: Tensor) -> float:
    """The largest of the four borders' mean values over the peak."""
    peak = float(map.max())
    sides = (map[0], map[-1], map[:, 0], map[:, -1])
    return max(float(side.mean()) for side in sides) / peak if peak > 0 else 0.0


def channel_sum_flag(method: str, trunk: Trunk, aim: Aim, images: Tensor) -> Iterator[Flag]:
    """Whether the sum over channels of the unit's outputs is zero but for rounding on every one of a few images.

    So it is behind a LayerNorm over channels without weights, and then a gradient of that sum is made of rounding errors.
    """
    outputs = aim.read(_units(trunk, images))
    sums, scale = outputs.sum(1).abs(), outputs.square().sum(1).sqrt()
    if outputs.shape[1] > 1 and bool((scale > 0).any()) and bool((sums <= VANISHING_SUM * scale).all()):
        yield Flag("channel_sum", method, f"{float((sums / scale.clamp(min=1e-300)).max()):.0e} of the channels' norm")


def output_power(trunk: Trunk, images: Tensor) -> float:
    """The sum over channels of squared outputs, mean over units and images."""
    return float(_units(trunk, images).double().square().sum(1).mean())


def rounding_flag(measured: Measured, power: float, dtype: torch.dtype) -> Iterator[Flag]:
    """Whether the mean effect of occluding is as small as sums in `dtype` of outputs of this `output_power` are rough.

    Effects are squared differences of outputs. In a pass of many layers these are known to some `ROUGH` of their last digits.
    """
    effect = float(measured.sums.mean.mean())
    if 0 < effect < (ROUGH * torch.finfo(dtype).eps) ** 2 * power:
        yield Flag("occlusion_rounding", "occlusion", f"{(effect / power) ** 0.5:.0e} of the outputs")


def _units(trunk: Trunk, images: Tensor) -> Tensor:
    """The trunk's units, one image at a time: of large images several may not fit in memory."""
    with torch.no_grad():
        return torch.cat([trunk(image[None]) for image in images])


def refuse_flags(result: Result, runtime: RuntimeConfig) -> None:
    """With runtime.strict, raise FlaggedError, which holds the result, for flags that runtime.accept does not name."""
    parts = zip(result.labels, result, strict=True) if runtime.strict else ()
    raised = {
        f"{label}: {flag}": flag.code for label, part in parts for flag in part.flags if flag.code not in runtime.accept
    }
    if raised:
        names = dict.fromkeys([*runtime.accept, *sorted(raised.values())])
        raise FlaggedError(
            f"runtime.strict refuses {len(raised)} flag(s): {'; '.join(sorted(raised))}. All would be accepted by their names: "
            f"runtime.accept=[{','.join(names)}].",
            result,
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
