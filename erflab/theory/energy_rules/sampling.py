"""Energy rule of sampling an image at known positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from erflab.theory.energy_rules.meanfield import Call, EnergyRule, Factors
from erflab.theory.energy_rules.moments import Moments, tighten
from erflab.theory.graph import Value
from erflab.theory.grid_taps import Taps, taps


def _taps(call: Call, source: Any, grid: Any, interpolation: int, padding: int, align_corners: bool) -> Taps:
    if isinstance(grid, Value):
        raise call.unknown("sampling at positions that depend on the input")
    return taps(grid, source.shape[2:], interpolation, padding, align_corners)


def expect_sampled(call: Call, source: Any, *settings: Any) -> tuple[list[Moments], Factors]:
    """Weighted means of independent elements; outside the image are zeros."""
    found, before = _taps(call, source, *settings), call.moments[source]
    shape = source.shape[2:]
    mean, var = (
        (found.gather(t.expand(*t.shape[:2], *shape).flatten(2), 0.0) * weights[:, None].to(t)).sum(-1)
        for t, weights in ((before.mean, found.weights), (before.var, found.weights.square()))
    )
    mean, var = (tighten(t.unflatten(2, call.shape[2:])) for t in (mean, var))
    return [Moments(mean, var)], ()


def pull_sampled(
    call: Call, _: Factors, energies: Sequence[Tensor], source: Any, *settings: Any
) -> list[Tensor | None]:
    """Squared weights."""
    found = _taps(call, source, *settings)
    return [found.scatter(energies[0].flatten(2), found.weights.square()).reshape(source.shape)]


SAMPLED = EnergyRule(expect_sampled, pull_sampled)
