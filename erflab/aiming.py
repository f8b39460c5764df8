"""From the field of a unit to how it is read: the trunk that ends at its layer, and the pixels that are its map."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from erflab.attribution.base import Aim, Frame, pixel_frame, window_frame
from erflab.attribution.occlusion import OcclusionPlan
from erflab.config import GRID, TargetConfig
from erflab.target import Trunk
from erflab.theory.crop import Crop
from erflab.theory.field import TheoreticalField
from erflab.theory.separate import separate_units


@dataclass(frozen=True)
class Target:
    """One unit of one layer, or a grid of units that are read at once, and where their maps lie.

    crop: the part of each image that trunk and aim are for; None for the whole of it. The frame is the same in either case;
    `computed` is the part of it that is not known to be zero.
    """

    field: TheoreticalField
    trunk: Trunk
    aim: Aim
    frame: Frame
    crop: Crop | None = None

    @property
    def computed_size(self) -> tuple[int, ...]:
        """Height and width in px of what is computed of each image."""
        return self.field.input_size if self.crop is None else self.crop.size

    @property
    def computed(self) -> Frame:
        """The frame of what the trunk's gradient gives."""
        return self.frame if self.aim.windows else self.frame.within(self.crop)

    def cropped(self, crop: Crop | None) -> Target:
        """The same target, computed on a part of each image."""
        if crop is None:
            return self
        trunk = self.trunk.with_layout(crop.layout(self.field))
        return replace(self, trunk=trunk, aim=self.aim.within(crop, crop.units(self.field, self.aim.units)), crop=crop)

    def placed(self, plan: OcclusionPlan) -> OcclusionPlan:
        """A plan for the whole image, as it lies on what is computed."""
        if self.crop is None:
            return plan
        (first,) = self.crop.units(self.field, [(0,) * len(self.field.grid)])
        return plan.moved(self.crop.origin, first)


def aim_at(module: nn.Module, field: TheoreticalField, config: TargetConfig, input_size: tuple[int, int]) -> Target:
    """How the unit of `field` is read, or for target.unit=grid all units whose fields do not overlap.

    Raises MeasurementError where there is no such grid.
    """
    channel = None if config.channel == "all" else int(config.channel)
    trunk = Trunk(module, field.layer, field.call, field.layout, channel)
    if config.unit != GRID:
        center = field.center()
        return Target(field, trunk, Aim((field.unit,)), pixel_frame(input_size, (center[0], center[1])))
    units = tuple(separate_units(field))
    boxes = [field.box(unit) for unit in units]
    windows = tuple(tuple(int(side) for side in box) for box in boxes if box is not None)
    return Target(replace(field, unit=units[0]), trunk, Aim(units, windows), window_frame(windows[0]))
