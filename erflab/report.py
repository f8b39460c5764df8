"""What a run leaves for a person: the files of its directory, a table, and the path."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from erflab.analysis.lineshapes import line_shape
from erflab.analysis.sizes import Quantity
from erflab.checkpoint import FILE as CHECKPOINT
from erflab.checks import refuse_flags
from erflab.config import ErflabConfig
from erflab.distributed import ALONE, Processes
from erflab.drawing import draw_figures
from erflab.result import Result
from erflab.team import run_together
from erflab.tracking import track

Cell = Callable[[Result, str], str]

log = logging.getLogger("erflab")


def run_and_save(config: ErflabConfig, directory: Path, processes: Processes = ALONE) -> Result:
    """Measure, with all processes, write result, summary and figures into `directory`, print the table and, last, the path."""
    log.info(
        "measuring %s, layer %s",
        config.model.name or config.model._target_,
        config.target.layer or config.model.layer or "last spatial",
    )
    result = run_together(config, directory, processes)
    result.save(directory)  # first, so that a figure which cannot be drawn loses nothing that was measured
    make_the_rest(result, config, directory)
    log.info("crop: %s", next(iter(result)).attribute("crop"))
    for verdict in _verdicts(result):
        log.info("%s", verdict)
    flags = [*_flags(result), *_skipped(result)]
    for flag in flags:
        log.warning("%s", flag)
    log.info("seconds %s, device %s", result.provenance["seconds"], result.provenance["device"])
    console = Console(soft_wrap=False)
    if config.runtime.progress:
        console.print(table(result) if len(result) == 1 else depth_table(result))
        for verdict in _verdicts(result):
            console.print(verdict, highlight=False)
        for flag in flags:
            console.print(f"[yellow]![/] {flag}", highlight=False)
    print(directory, flush=True)
    refuse_flags(result, config.runtime)
    return result


def make_the_rest(result: Result, config: ErflabConfig, directory: Path) -> None:
    """What follows once a result is written: its checkpoint goes, figures are drawn and trackers told, where not done yet.

    A warning is printed for each of them that could not be made.
    """
    (directory / CHECKPOINT).unlink(missing_ok=True)
    missed = draw_figures(result, config.runtime.figures, directory / "figures")
    for warning in missed + track(result, config.tracking, directory):
        print(f"erflab: warning: {warning}", file=sys.stderr)


def _skipped(result: Result) -> list[str]:
    """The pictures that images.on_error=skip left out, in words."""
    names = [entry["name"] for entry in next(iter(result)).attribute("images")["skipped"]]
    if not names:
        return []
    return [
        f"{len(names)} picture(s) cannot be read and were skipped: {', '.join(names[:4])}{' ...' * (len(names) > 4)}"
    ]


def _flags(result: Result) -> list[str]:
    """Every flag once a part, in words; those that all parts of several share, once."""
    if len(result) == 1:
        return [str(flag) for flag in result.flags]
    raised: dict[str, list[str]] = {}
    for label, part in zip(result.labels, result, strict=True):
        for flag in part.flags:
            raised.setdefault(str(flag.without_seen), []).append(label)
    return [
        f"{flag} ({len(labels)} of {len(result)}: {', '.join(labels[:4])}{' ...' * (len(labels) > 4)})"
        for flag, labels in raised.items()
    ]


def _verdicts(result: Result) -> list[str]:
    """Which falloff family each map has, where that was asked."""
    known = [(part.labels[0], method, part.known_sizes(method)) for part in result for method in result.methods]
    return [f"{label}, {method}: {s.comparison.verdict}." for label, method, s in known if s and s.comparison]


def depth_table(result: Result) -> Table:
    """The sizes of several layers or units, a row a part."""
    made = Table(title=f"{result.name}, {len(result)} parts", title_justify="left", expand=False)
    made.add_column("part", overflow="fold")
    made.add_column("TRF (px)", justify="right", no_wrap=True)
    for method in result.methods:
        for heading in ("sigma (px)", "90 % radius"):
            made.add_column(f"{method} {heading}", justify="right")
    for label, part in zip(result.labels, result, strict=True):
        cells = [cell(part, method) for method in result.methods for cell in (_size("sigma"), _size("radius_0.9"))]
        made.add_row(label, _theory(part, ""), *cells)
    return made


def table(result: Result) -> Table:
    """The numbers of one result, one column a method."""
    theory, model = result.attribute("theory"), result.attribute("model")
    unit = ", ".join(map(str, theory["unit"]))
    made = Table(
        title=f"{model['name']} ({model['weights']}), layer {theory['layer']}, unit ({unit})",
        title_justify="left",
        expand=False,
    )
    made.add_column("")
    for method in result.methods:
        made.add_column(f"{method.replace('_', ' ')} ({result.dataset[method].attrs['magnitude']})", justify="right")
    for label, cell in _ROWS:
        made.add_row(label, *(cell(result, method) for method in result.methods))
    return made


def _size(name: str, digits: int = 2) -> Cell:
    """A quantity as value ± standard error."""

    def cell(result: Result, method: str) -> str:
        sizes = result.known_sizes(method)
        return _quoted(sizes.quantities[name], digits) if sizes else "-"

    return cell


def _interval(name: str) -> Cell:
    """The 95 % interval of a quantity."""

    def cell(result: Result, method: str) -> str:
        sizes = result.known_sizes(method)
        ends = sizes.quantities[name].interval if sizes else None
        return "-" if ends is None else f"{ends[0]:.2f} to {ends[1]:.2f}"

    return cell


def _quoted(quantity: Quantity, digits: int) -> str:
    if quantity.value is None:
        return "-"
    text = f"{quantity.value:.{digits}f}"
    return text if quantity.standard_error is None else f"{text} ± {quantity.standard_error:.{digits}f}"


def _weights(name: str, digits: int) -> Cell:
    return lambda result, method: _quoted(result.weights(method)[name], digits)


def _theory(result: Result, method: str) -> str:
    theory = result.attribute("theory")
    if theory["is_global"]:
        return "global"
    return " x ".join("?" if s is None else f"{float(s):g}" for s in theory["size"])


def _box(result: Result, method: str) -> str:
    box = result.attribute("theory")["box"]
    return "-" if box is None else f"y {box[0]}..{box[1]}, x {box[2]}..{box[3]}"


def _family(result: Result, method: str) -> str:
    sizes = result.known_sizes(method)
    return line_shape(sizes.fit.family).title if sizes else "-"


_ROWS = (
    ("TRF size (px)", _theory),
    ("TRF box (px)", _box),
    ("ERF sigma (px)", _size("sigma")),
    ("  95 % interval", _interval("sigma")),
    ("  all images alike", _weights("equal_weight_sigma", 2)),
    ("radius holding 50 % (px)", _size("radius_0.5")),
    ("radius holding 90 % (px)", _size("radius_0.9")),
    ("radius holding 99 % (px)", _size("radius_0.99")),
    ("square holding 95.45 % (px)", _size("square_0.9545")),
    ("  95 % interval", _interval("square_0.9545")),
    ("  over the TRF", _size("square_0.9545_over_trf", 3)),
    ("area holding 95.45 % / TRF", _size("area_0.9545_over_trf", 3)),
    ("constant floor, share", _size("floor_share", 3)),
    ("fit: family", _family),
    ("fit: half width (px)", _size("fit_half_width")),
    ("  95 % interval", _interval("fit_half_width")),
    ("fit: sigma (px)", _size("fit_moment_sigma")),
    ("fit: R^2", _size("fit_r_squared", 3)),
    ("images", lambda result, method: str(result.dataset[method].attrs["images"])),
    ("effective images", _weights("effective_images", 1)),
    ("device", lambda result, method: str(result.provenance.get("device", "-"))),
    ("seconds, all methods", lambda result, method: f"{result.provenance.get('seconds', float('nan')):.1f}"),
)
