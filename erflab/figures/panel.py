"""What a figure is told of one map."""

from __future__ import annotations

from dataclasses import dataclass

import xarray as xr

from erflab.analysis import FalloffFit, GroupedMap, Moments
from erflab.analysis.profile import check_map
from erflab.errors import MeasurementError
from erflab.figures.extent import Box


@dataclass(frozen=True, eq=False)
class ErfPanel:
    """One map to draw, with what is known about it. Lengths are in px from the unit's centre."""

    title: str
    """Short, such as "gradient"."""
    map: xr.DataArray
    """Values on (y, x), linear; drawn relative to their own peak."""
    fit: FalloffFit | None = None
    moments: Moments | None = None
    box: Box | None = None
    """The TRF as (y0, y1, x0, x1), inclusive pixels; may be infinite. Its outline is half a px further out."""
    notes: tuple[str, ...] = ()
    """Short flags, written into the map."""
    groups: GroupedMap | None = None
    """The map by groups of scenes, from which bands are drawn; None for no bands."""
    squares: tuple[tuple[float, float], ...] = ()
    """(share, side in px) of the squares about the unit's centre that hold a share of the map."""

    @property
    def peak(self) -> float:
        """The map's greatest value. Raises MeasurementError if it is not positive, or the map is no map."""
        peak = float(check_map(self.map).max())
        if peak <= 0:
            raise MeasurementError(
                f"the map {self.title!r} has no positive value (peak {peak:g}); there is nothing to draw."
            )
        return peak

    @property
    def grouped(self) -> GroupedMap:
        """The map by groups; one without groups has no bands."""
        return self.groups or GroupedMap.without_groups(check_map(self.map))
