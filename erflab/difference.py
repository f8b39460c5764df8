"""The verb `erflab diff`: what differs between two results in configuration, files, environment and numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from erflab.arguments import Arguments
from erflab.identity import ABSENT, Differences, differences, relevant
from erflab.result import Result, load
from erflab.terminal import print_whole

USAGE = "erflab diff A B [--all]"

CIRCUMSTANCES = ("started", "finished", "seconds", "command", "timings")
"""What differs between any two runs, and says nothing about their numbers."""

PERIODS = {"rad": math.pi}
"""Units of angles, all of which are those of an axis without a direction."""

SHOWN = 20
"""Numbers that are shown, those that differ most first, unless all are asked for."""


Interval = tuple[float, float] | None


@dataclass(frozen=True)
class NumberDifference:
    """One number of two results.

    Attributes:
        part: the label of the layer or unit.
        name: of the number, such as "gradient.sigma".
        unit: of both values.
        one, other: the values; None where one has none.
        intervals: their 95 % intervals; None where one has none.
        error: standard error of the difference, as of two independent samples of images: sqrt(SE_A^2 + SE_B^2). For the same
            images in both it is too large. None where either has none.
    """

    part: str
    name: str
    unit: str
    one: float | None
    other: float | None
    intervals: tuple[Interval, Interval]
    error: float | None

    @property
    def difference(self) -> float | None:
        """B - A, of angles the way round that is shorter; None where either has no value."""
        if self.one is None or self.other is None:
            return None
        difference = self.other - self.one
        return math.remainder(difference, PERIODS[self.unit]) if self.unit in PERIODS else difference

    @property
    def in_errors(self) -> float | None:
        """The difference over its standard error; None where it has none."""
        return None if self.difference is None or not self.error else self.difference / self.error

    @property
    def rank(self) -> float:
        """How much it differs: in errors; without any, more than all that have some."""
        return math.inf if self.in_errors is None else abs(self.in_errors)


def configuration_differences(one: Result, other: Result) -> Differences:
    """The options that differ, by dotted name, what only changes the presentation left out."""
    return differences(relevant(_attribute(one, "config")), relevant(_attribute(other, "config")))


def file_differences(one: Result, other: Result) -> Differences:
    """The weights and images that differ, by their hashes, and the images that only one result used."""
    return differences(_files(one), _files(other))


def environment_differences(one: Result, other: Result) -> Differences:
    """Versions, threads, device, host and the like, as far as they are known."""
    return differences(_environment(one), _environment(other))


def number_differences(one: Result, other: Result) -> list[NumberDifference]:
    """Every number that differs in the parts that both have, those that differ most (in standard errors) first."""
    shared = [label for label in one.labels if label in other.labels]
    found = [d for label in shared for d in _numbers(label, one.at(label).summary(), other.at(label).summary())]
    return sorted(found, key=lambda difference: -difference.rank)


def _numbers(label: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[NumberDifference]:
    absent = {"value": None, "standard_error": None, "interval": None}
    for name in dict.fromkeys([*one, *other]):
        there, here = one.get(name, absent), other.get(name, absent)
        if not (isinstance(there, Mapping) and isinstance(here, Mapping)) or there["value"] == here["value"]:
            continue
        errors = [entry["standard_error"] for entry in (there, here)]
        yield NumberDifference(
            label,
            name,
            str(there.get("unit") or here.get("unit")),
            _number(there["value"]),
            _number(here["value"]),
            intervals=(there["interval"], here["interval"]),
            error=None if None in errors else math.hypot(*errors),
        )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _attribute(result: Result, name: str) -> Any:
    return next(iter(result)).attribute(name)


def _files(result: Result) -> dict[str, Any]:
    images = _attribute(result, "images")
    hashes = {f"image {entry['name']}": entry["sha256"][:12] for entry in images["files"]}
    return {"weights": _attribute(result, "model")["weights_sha256"][:12], "images from": images["source"], **hashes}


def _environment(result: Result) -> dict[str, Any]:
    known = {name: value for name, value in result.provenance.items() if name not in CIRCUMSTANCES}
    return {**_attribute(result, "versions"), **known}


def print_differences(arguments: list[str]) -> None:
    """Print what differs between two results. Raises ConfigError for wrong arguments, ResultError for no result."""
    parser = Arguments("diff", USAGE, __doc__)
    parser.add_argument("one", metavar="A", help="a run's directory or its result.nc")
    parser.add_argument("other", metavar="B", help="another")
    parser.add_argument("--all", action="store_true", help=f"every number that differs, not the first {SHOWN} only")
    options = parser.parse_intermixed_args(arguments)
    one, other = load(options.one), load(options.other)
    for title, found in (
        ("configuration", configuration_differences(one, other)),
        ("weights and images", file_differences(one, other)),
        ("environment", environment_differences(one, other)),
        ("parts", {label: _held(label, one, other) for label in set(one.labels) ^ set(other.labels)}),
    ):
        if found:
            print_whole(_pairs(title, found))
        else:
            print(f"{title}: the same")
    numbers = number_differences(one, other)
    if numbers:
        print_whole(_number_table(numbers if options.all else numbers[:SHOWN], len(numbers)))
    else:
        print("numbers: the same")


def _held(label: str, one: Result, other: Result) -> tuple[str, str]:
    return tuple("there" if label in result.labels else ABSENT for result in (one, other))  # type: ignore[return-value]


def _pairs(title: str, found: Differences) -> Table:
    made = Table("", "A", "B", title=f"{title}: {len(found)} differ", title_justify="left", box=SIMPLE_HEAD, padding=0)
    for name, pair in sorted(found.items()):
        made.add_row(name, *map(str, pair))
    return made


def _number_table(shown: list[NumberDifference], count: int) -> Table:
    made = Table(
        title=f"numbers: {count} differ" + (f", the first {len(shown)}" if len(shown) < count else ""),
        caption="A, B: with 95 % interval; in errors: B - A over sqrt(SE_A^2 + SE_B^2), as for independent images",
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
    )
    for heading in ("part", "number", "A", "B", "B - A", "in errors"):
        made.add_column(heading, justify="left" if heading in ("part", "number") else "right")
    for item in shown:
        name = item.name if item.unit == "1" else f"{item.name} ({item.unit})"
        values = [_quoted(*pair) for pair in zip((item.one, item.other), item.intervals, strict=True)]
        made.add_row(item.part, name, *values, _short(item.difference), _short(item.in_errors, "+.1f"))
    return made


def _short(value: float | None, form: str = ".4g") -> str:
    return "-" if value is None else format(value, form)


def _quoted(value: float | None, interval: Interval) -> str:
    """A value with its 95 % interval."""
    return _short(value) + ("" if interval is None else f" ({_short(interval[0])} to {_short(interval[1])})")
