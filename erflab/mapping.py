"""From images to maps: what each chosen attribution method measures of every target."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from erflab.accumulate import MapSums
from erflab.aiming import Target
from erflab.attribution.base import Batch, Frame
from erflab.attribution.gradient import shared_gradient_maps
from erflab.attribution.methods import PIXEL_METHODS
from erflab.attribution.occlusion import Fill, OccludedDifference, blurred_fill, constant_fill, occlusion_maps
from erflab.attribution.plan import clipped_share, plan_occlusion
from erflab.checkpoint import Checkpoint
from erflab.checks import channel_sum_flag, output_power, rounding_flag
from erflab.config import AttributionConfig, BaselineConfig, GradientConfig, OcclusionConfig, RuntimeConfig
from erflab.convergence import Convergence
from erflab.dataset import Measured
from erflab.flags import Flag
from erflab.loader import Loader
from erflab.precision import Maps
from erflab.recomputing import recomputing
from erflab.streaming import stream

SUMMED = ("absolute", "signed")
"""Magnitudes of the sum over a unit's channels, which may vanish."""

CLIPPED_READINGS = 0.5
"""Share of readings from clipped units above which the flag is raised."""


@dataclass(frozen=True)
class Setup:
    """What all methods take along: the images, how to run, and where the sums are kept meanwhile."""

    loader: Loader
    runtime: RuntimeConfig
    checkpoint: Checkpoint

    def empty(self, frame: Frame) -> tuple[MapSums, Convergence]:
        """The sums of a map in `frame` and their convergence, before the first image."""
        return MapSums(frame.shape, self.loader.device), Convergence(len(self.loader.images), self.runtime.tolerance)

    def over_images(
        self, method: str, targets: Sequence[Target], found: Sequence[Measured], maps: Maps, at_once: int
    ) -> list[Measured]:
        """What was found of each target, once the maps of the images are added, `at_once` images at a time."""
        return stream(method, targets, found, self.loader, maps, self.runtime, at_once, self.checkpoint)


def measured_maps(
    targets: Sequence[Target], computed: Sequence[Target], attribution: AttributionConfig, setup: Setup
) -> Iterator[tuple[str, list[Measured]]]:
    """Each method that was chosen, with what it measured of every target.

    Args:
        targets: on whole images.
        computed: the same, on the part of each image that is computed.
        attribution: the methods and their settings.
        setup: images, runtime and checkpoint.
    """
    for name, options in attribution.chosen.items():
        setup.checkpoint.history.enter(name)
        if name == "gradient" and len(targets) > 1:
            yield name, _shared_gradient(computed, options, setup)
        elif name in PIXEL_METHODS:
            yield name, [_by_pixel(name, target, options, setup) for target in computed]
        else:
            seen = computed if options.units == "one" else targets  # others read units all over the image
            yield name, [_occlusion(target, options, setup) for target in seen]
    setup.checkpoint.history.enter(None)


def _by_pixel(name: str, target: Target, config: Any, setup: Setup) -> Measured:
    method, loader, runtime = PIXEL_METHODS[name], setup.loader, setup.runtime
    measured = _no_images_yet(name, target, config, setup)
    fill = _fill(config.baseline, config.blur, loader) if isinstance(config, BaselineConfig) else None

    def maps(batch: Batch) -> list[Tensor]:
        against = dataclasses.replace(batch, baseline=fill(batch) if fill else None)
        return [method.maps(target.trunk, against.cut(target.crop), target.aim, config, runtime.seed)]

    with recomputing(name, [target], runtime):
        return setup.over_images(name, [target], [measured], maps, loader.fitting(target.computed_size))[0]


def _shared_gradient(targets: Sequence[Target], config: GradientConfig, setup: Setup) -> list[Measured]:
    """The gradient of several targets from one forward pass an image."""
    found = [_no_images_yet("gradient", target, config, setup) for target in targets]
    trunks, aims = [target.trunk for target in targets], [target.aim for target in targets]

    def maps(batch: Batch) -> list[Tensor]:
        cut = batch.cut(targets[0].crop)
        return shared_gradient_maps(trunks, cut, aims, config.magnitude, seed=setup.runtime.seed, draws=config.draws)

    with recomputing("gradient", targets, setup.runtime):
        return setup.over_images("gradient", targets, found, maps, setup.loader.fitting(targets[0].computed_size))


def _no_images_yet(name: str, target: Target, config: Any, setup: Setup) -> Measured:
    return Measured(
        target.frame,
        target.computed,
        *setup.empty(target.computed),
        config.magnitude,
        PIXEL_METHODS[name].map_unit(config.magnitude),
        flags=_sum_flags(name, target, setup.loader) if config.magnitude in SUMMED else (),
    )


def _sum_flags(name: str, target: Target, loader: Loader) -> tuple[Flag, ...]:
    return tuple(channel_sum_flag(name, target.trunk, target.aim, _few(target, loader)))


def _few(target: Target, loader: Loader) -> Tensor:
    """The first images, to look at outputs."""
    return loader.load(range(min(4, len(loader.images)))).cut(target.crop).images


def _occlusion(target: Target, config: OcclusionConfig, setup: Setup) -> Measured:
    loader, plan = setup.loader, plan_occlusion(config, target.field)
    difference = OccludedDifference(target.trunk, target.placed(plan), target.computed_size, loader.device)
    fill = _fill(config.baseline, plan.patch, loader)
    share = clipped_share(plan, target.field)
    flags = (Flag("occlusion_clipped", "occlusion", f"{share:.0%}"),) if share > CLIPPED_READINGS else ()
    measured = Measured(
        plan.frame,
        plan.frame,
        *setup.empty(plan.frame),
        f"{plan.patch} px patch",
        "output^2",
        plan.counts(),
        flags,
        plan.patch,
    )

    def maps(batch: Batch) -> list[Tensor]:
        against = dataclasses.replace(batch, baseline=fill(batch)).cut(target.crop)
        return [occlusion_maps(difference, plan, against, against.reference, config.per_evaluation)]

    # As many images at a time as make, with their occluders, one batch in memory.
    at_once = max(1, loader.fitting(target.computed_size) // config.per_evaluation)
    power = output_power(target.trunk, _few(target, loader))
    found = setup.over_images("occlusion", [target], [measured], maps, at_once)[0]
    return dataclasses.replace(found, flags=(*found.flags, *rounding_flag(found, power, loader.dtype)))


def _fill(baseline: str, blur: int, loader: Loader) -> Fill:
    if baseline == "mean":
        return constant_fill(loader.mean_colour())
    if baseline == "zero":
        return constant_fill([0.0] * loader.shape[0])
    return blurred_fill(blur) if baseline == "blur" else loader.next_images
