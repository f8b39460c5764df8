"""The result of a measurement: maps with coordinates in px, and every number derived from them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from erflab.analysis.falloff import FLAGS as FIT_FLAGS
from erflab.analysis.fields import against_theory, gradient_against_occlusion, predicted_against
from erflab.analysis.jackknife import Estimate, GroupedMap
from erflab.analysis.sizes import Quantity, Sizes, measure_sizes
from erflab.config import METHODS
from erflab.errors import MeasurementError, ResultError, closest
from erflab.flags import Flag
from erflab.groups import equal_weight_map, equal_weight_sigma, grouped_map, image_weights, weight_flags
from erflab.jsonfiles import write_json
from erflab.storage import read_parts, write_parts
from erflab.summary import one_key_a_number, part_labels, summarise

if TYPE_CHECKING:
    import pandas as pd


LARGE_FLOOR = 1 - 0.9545
"""Share of the sum in a constant floor above which what holds 95.45 % of the sum is no property of the peak."""


@dataclass(frozen=True, eq=False)
class Result:
    """Maps and numbers of one measurement: of one unit of one layer, or a part for each of several.

    A part's `dataset` holds, for each method measured, the mean map over images `METHOD` (float64), its per-image
    `METHOD_variance`, the sums of each group of scenes `METHOD_groups` and the same of the images' maps each divided by its
    own sum, `METHOD_equal_groups`, on (y, x) in px from the unit's centre (occlusion on coordinates of its own, with readings
    per offset in `occlusion_readings`; group sums, where only a part of each image was computed, on `computed_y` and
    `computed_x`, and zero elsewhere), and in its attributes the theoretical field, the configuration, images, flags and
    versions as JSON. `provenance` holds what varies from run to run.

    Iterating gives the parts in execution order, each a Result; maps, sizes and flags are those of a single part.
    """

    parts: tuple[xr.Dataset, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dataset(self) -> xr.Dataset:
        """The only part. Raises ResultError if there are several: choose one with `at`."""
        if len(self.parts) != 1:
            raise ResultError(
                f"this result has {len(self.parts)} parts: {', '.join(self.labels[:8])}; choose one: result.at("
                f"{self.labels[0]!r})."
            )
        return self.parts[0]

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The name of each part: its layer, with the unit where a layer has several."""
        return part_labels([json.loads(part.attrs["theory"]) for part in self.parts])

    def at(self, label: str) -> Result:
        """One part by its label, "layer3" or "layer3[0,0]". Raises ResultError with the closest labels."""
        if label not in self.labels:
            raise ResultError(f"no part {label!r} in this result of {len(self)}.{closest(label, self.labels)}")
        return self._singles[self.labels.index(label)]

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[Result]:
        return iter(self._singles)

    @cached_property
    def _singles(self) -> tuple[Result, ...]:
        """Each part alone, kept so that it is analysed once."""
        return (self,) if len(self) == 1 else tuple(Result((part,), self.provenance) for part in self.parts)

    def __repr__(self) -> str:
        """What was measured, in a line: a result's maps would fill the screen."""
        return f"Result({self.name}; {', '.join(self.labels)}; {', '.join(self.methods)})"

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods measured."""
        return tuple(m for m in METHODS if m in self.parts[0])

    def attribute(self, name: str) -> Any:
        """A JSON attribute: "config", "images", "flags", "versions", "theory" or "model"."""
        return json.loads(self.dataset.attrs[name])

    def map(self, method: str | None = None) -> xr.DataArray:
        """The mean map over images, dims (y, x), px from the unit's centre; by default of the first method."""
        return self._variable(method or self.methods[0])

    def variance(self, method: str | None = None) -> xr.DataArray | None:
        """Variance of the mean map; None for fewer than two images."""
        name = method or self.methods[0]
        count = int(self.dataset[name].attrs["images"])
        return self._variable(f"{name}_variance", name) / count if count > 1 else None

    def convergence(self, method: str | None = None) -> xr.Dataset:
        """Sigma and its standard error in px after 64, 128, 256, ... images (dim "look"), with N_eff; NaN without a size."""
        name = method or self.methods[0]
        keys = ("images", "sigma", "standard_error", "effective_images")
        return xr.Dataset({key: self._variable(f"{name}_convergence_{key}", name) for key in keys})

    def _variable(self, name: str, method: str | None = None) -> xr.DataArray:
        method = method or name
        if method not in self.methods:
            raise ResultError(f"no method {method!r} in this result; it has {', '.join(self.methods)}.")
        found = self.dataset[name]
        names = {str(d): str(d).rsplit("_", 1)[-1] for d in found.dims}
        return found.rename({old: new for old, new in names.items() if old != new})

    def grouped(self, method: str | None = None) -> GroupedMap:
        """The mean map with the sums of its groups of scenes, from which every error is computed."""
        name = method or self.methods[0]
        return grouped_map(self.dataset, self.map(name), name)

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        """The theoretical field as offsets (y0, y1, x0, x1) from the unit's centre, inclusive; None if unknown."""
        theory = self.attribute("theory")
        if theory["box"] is None:
            return None
        center = [c for c in theory["center"] for _ in range(2)]
        y0, y1, x0, x1 = (float(b) - c for b, c in zip(theory["box"], center, strict=True))
        return y0, y1, x0, x1

    @cached_property
    def _analysed(self) -> dict[str, Sizes | MeasurementError]:
        # Products of a few columns: several BLAS threads take twice the time of one, and their sums depend on their number.
        with threadpool_limits(limits=1, user_api="blas"):
            return {method: self._analyse(method) for method in self.methods}

    def _analyse(self, method: str) -> Sizes | MeasurementError:
        theory = self.attribute("theory")
        try:
            return measure_sizes(
                self.grouped(method),
                variance=self.variance(method),
                box=self.box,
                trf_size=[None if s is None else float(s) for s in theory["size"]],
                input_size=(theory["input_size"][0], theory["input_size"][1]),
                replknet=self.magnitude(method) == "replknet",
                **self.attribute("config")["falloff"],
            )
        except MeasurementError as error:
            return error

    def magnitude(self, method: str) -> str:
        """What the values of a method's map are, such as "energy"; they are not interchangeable."""
        return str(self.dataset[method].attrs["magnitude"])

    def weights(self, method: str | None = None) -> dict[str, Quantity]:
        """How many images there are and how they weigh: images, effective_images, largest_image_share, equal_weight_sigma."""
        name = method or self.methods[0]
        return {
            "images": Quantity(int(self.dataset[name].attrs["images"]), "1"),
            **{n: Quantity(value, "1") for n, value in image_weights(self.dataset, name).items()},
            "equal_weight_sigma": Quantity.of(self._equal_weight_sigma[name], "px"),
        }

    @cached_property
    def _equal_weight_sigma(self) -> dict[str, Estimate]:
        return {name: equal_weight_sigma(equal_weight_map(self.dataset, name)) for name in self.methods}

    def agreement(self, predicted: xr.DataArray | None = None) -> dict[str, dict[str, Quantity]]:
        """How far the fields agree, as NAME -> number -> quantity, with errors over images.

        `METHOD_vs_theory`, and where both were measured on the same images `gradient_vs_occlusion` and
        `blurred_gradient_vs_occlusion`: equal for linear networks and white images. With a predicted energy map on (y, x),
        such as `predicted_field(...).map`, also `predicted_vs_METHOD`. The numbers are those of `erflab.analysis.fields`.
        Maps that have no size are left out.
        """
        known = {method: sizes for method in self.methods if (sizes := self.known_sizes(method))}
        found = {f"{method}_vs_theory": against_theory(sizes) for method, sizes in known.items()}
        if {"gradient", "occlusion"} <= set(known) and self._of_the_same_images("gradient", "occlusion"):
            found |= self._gradient_vs_occlusion
        if predicted is not None:
            found |= predicted_against(predicted, {method: self.grouped(method) for method in known}, self._patch)
        return found

    def _of_the_same_images(self, one: str, other: str) -> bool:
        """Whether runtime.tolerance stopped neither of two methods before the other."""
        return bool(self.dataset[one].attrs["images"] == self.dataset[other].attrs["images"])

    @cached_property
    def _gradient_vs_occlusion(self) -> dict[str, dict[str, Quantity]]:
        assert self._patch is not None  # occlusion was measured; this tells the type checker
        return gradient_against_occlusion(self.grouped("gradient"), self.grouped("occlusion"), self._patch)

    @property
    def _patch(self) -> int | None:
        return int(self.dataset["occlusion"].attrs["patch"]) if "occlusion" in self.dataset else None

    def sizes(self, method: str | None = None) -> Sizes:
        """All sizes and the falloff fit of one method's map. Raises MeasurementError if the map has none."""
        found = self._analysed[method or self.methods[0]]
        if isinstance(found, MeasurementError):
            raise found
        return found

    def known_sizes(self, method: str) -> Sizes | None:
        """As `sizes`, but None if the map has none."""
        found = self._analysed[method]
        return found if isinstance(found, Sizes) else None

    @property
    def flags(self) -> list[Flag]:
        """What may mislead: raised while measuring, and by the analysis."""
        flags = [Flag(**f) for f in self.attribute("flags")]
        for method, sizes in self._analysed.items():
            flags += weight_flags(self.dataset, method)
            if self.magnitude(method) == "replknet":
                flags.append(Flag("scale_dependent", method))
            if isinstance(sizes, MeasurementError):
                flags.append(Flag("no_size", method, str(sizes)))
            else:
                flags += [Flag("fit", method, f"{code}: {FIT_FLAGS[code]}") for code in sizes.fit.flags]
                floor = sizes.quantities["floor_share"].value
                if floor is not None and floor > LARGE_FLOOR:
                    flags.append(Flag("large_floor", method, f"{floor:.0%} of the sum"))
        return flags

    def summary(self) -> dict[str, Any]:
        """Flat scalars of one part, ready for JSON: identity, theory, and each number with unit, error and interval."""
        return summarise(self)

    def rows(self) -> list[dict[str, Any]]:
        """The summary of each part."""
        return [part.summary() for part in self]

    def table(self) -> pd.DataFrame:
        """A row a part; each number with columns for its standard error and the ends of its interval."""
        import pandas as pd

        return pd.DataFrame(map(one_key_a_number, self.rows()), index=pd.Index(self.labels, name="part"))

    def plot(self, path: str | Path | None = None, kind: str | None = None, others: Sequence[Result] = ()) -> Figure:
        """A paper figure of one of the kinds of `erflab.plots.KINDS`, at its size in print.

        By default "erf", the maps of one part, or of several parts "depth", the sizes against depth, and then, with `path`,
        each part's maps beside it, the part's label added to the stem.

        Args:
            path: a stem; the figure is written to it as .pdf and .png, whichever of them it may end with.
            kind: "erf", "outlines", "sections", "radial", "residual", "spectrum", "comparison", "convergence"; of several
                parts "depth", "grid", "areas"; with one other result "pair".
            others: further results, of which "grid", "areas" and "pair" draw as well.

        Raises:
            ResultError: if there is no such kind, or it is for another number of results, parts or methods.
            MeasurementError: if a map has nothing that could be drawn.
        """
        from erflab.figures.style import save
        from erflab.plots import draw

        figure = draw(kind or ("erf" if len(self) == 1 else "depth"), self, *others)
        if path is not None:
            stem = Path(path).with_suffix("") if Path(path).suffix in (".pdf", ".png") else Path(path)
            save(figure, stem)
            for label, part in zip(self.labels, self, strict=True) if len(self) > 1 and kind is None else ():
                part.plot(beside(stem, label))
        return figure

    @property
    def name(self) -> str:
        """The model's name."""
        return str(json.loads(self.parts[0].attrs["model"])["name"])

    def save(self, path: str | Path) -> Path:
        """Write `provenance.json`, `result.nc` and `summary.json` into a directory, each atomically. Returns the directory.

        One part stands at the root of `result.nc`; several stand in a group each, named by their labels.
        `summary.json` is one part's summary, or a list of several.

        Raises ResultError where it cannot be written.
        """
        directory = Path(path)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._write(directory)
        except OSError as error:
            raise ResultError(
                f"the result cannot be written to {directory} ({error}); make room there, or choose another directory, and "
                "start again."
            ) from error
        return directory

    def _write(self, directory: Path) -> None:
        """What a result cannot be made again from goes first, and the summary, which can be, last."""
        (directory / "summary.json").unlink(missing_ok=True)  # it must never stand beside a newer result
        write_json(directory / "provenance.json", dict(self.provenance))
        write_parts(directory / "result.nc", dict(zip(self.labels, self.parts, strict=True)))
        rows = self.rows()
        write_json(directory / "summary.json", rows[0] if len(self) == 1 else rows)


def beside(stem: Path, label: str) -> Path:
    """The stem of a part's own file: the part's label added, in characters that every file system takes."""
    return stem.with_name(f"{stem.name}_{re.sub(r'[^A-Za-z0-9.-]+', '_', label).strip('_')}")


def load(path: str | Path) -> Result:
    """Read a result from its directory or its `result.nc`. Raises ResultError if there is none or it cannot be read."""
    where = Path(path)
    file = where / "result.nc" if where.is_dir() else where
    if not file.exists():
        raise ResultError(f"no result at {where}; give a run directory or its result.nc.")
    provenance = file.with_name("provenance.json")
    return Result(read_parts(file), json.loads(provenance.read_text()) if provenance.exists() else {})
