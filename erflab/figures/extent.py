"""What part of the plane a map shows, and where the TRF's outline lies in it, in px from the unit's centre."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from erflab.analysis import contribution_square, spacing

Limits = tuple[float, float, float, float]
"""(left, right, top, bottom), y downwards."""

Box = tuple[float, float, float, float]
"""(y0, y1, x0, x1), inclusive pixels; may be infinite."""

LEAST_ASPECT = 0.75
"""Least ratio of the sides shown, so that a colour bar beside a strip stays readable."""


def extent(map: xr.DataArray) -> Limits:
    """(left, right, top, bottom) of a map in px, cells included."""
    dy, dx = spacing(map)
    x, y = map["x"], map["y"]
    return float(x.min()) - dx / 2, float(x.max()) + dx / 2, float(y.min()) - dy / 2, float(y.max()) + dy / 2


def union(extents: Sequence[Limits]) -> Limits:
    """The extent that holds all, its shorter side widened where the maps would become a strip."""
    sides = zip(*extents, strict=True)
    left, right, top, bottom = (pick(side) for pick, side in zip((min, max, min, max), sides, strict=True))
    least = LEAST_ASPECT * max(right - left, bottom - top)
    wider, higher = max(0.0, least - (right - left)) / 2, max(0.0, least - (bottom - top)) / 2
    return left - wider, right + wider, top - higher, bottom + higher


def around_center(maps: Sequence[xr.DataArray], share: float = 0.99) -> Limits:
    """The square about the unit's centre that holds a share of every map: what a small field in a large image needs."""
    half = max(contribution_square(map, share) for map in maps) / 2
    return -half, half, -half, half


def outline(box: Box) -> Limits:
    """(left, right, top, bottom) of the TRF's outline: half a px beyond its outermost pixels' centres."""
    y0, y1, x0, x1 = box
    return x0 - 0.5, x1 + 0.5, y0 - 0.5, y1 + 0.5


def in_view(box: Box, limits: Limits) -> bool:
    """Whether any edge of the TRF lies within the limits."""
    left, right, top, bottom = outline(box)
    return left >= limits[0] or right <= limits[1] or top >= limits[2] or bottom <= limits[3]
