"""What a run leaves for a person: the files of its directory, a table, and the path."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from erflab.checks import refuse_flags
from erflab.config import ErflabConfig
from erflab.measurement import run
from erflab.result import Result

log = logging.getLogger("erflab")


def run_and_save(config: ErflabConfig, directory: Path) -> Result:
    """Measure, write result, summary and figures into `directory`, print the table and, last, the path."""
    log.info(
        "measuring %s, layer %s",
        config.model.name or config.model._target_,
        config.target.layer or config.model.layer or "last spatial",
    )
    result = run(config)
    result.save(directory)  # first, so that a figure which cannot be drawn loses nothing that was measured
    if config.runtime.figures:
        result.plot(directory / "figures" / "erf")
    flags = _flags(result)
    for flag in flags:
        log.warning("%s", flag)
    log.info("seconds %s, device %s", result.provenance["seconds"], result.provenance["device"])
    console = Console(soft_wrap=False)
    if config.runtime.progress:
        console.print(table(result) if len(result) == 1 else depth_table(result))
        for flag in flags:
            console.print(f"[yellow]![/] {flag}", highlight=False)
    print(directory, flush=True)
    refuse_flags(result, config.runtime)
    return result


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


def _size(name: str, digits: int = 2) -> Any:
    def cell(result: Result, method: str) -> str:
        sizes = result.known_sizes(method)
        quantity = sizes.quantities[name] if sizes else None
        if quantity is None or quantity.value is None:
            return "-"
        error = "" if quantity.standard_error is None else f" ± {quantity.standard_error:.{digits}f}"
        return f"{quantity.value:.{digits}f}{error}"

    return cell


def _theory(result: Result, method: str) -> str:
    theory = result.attribute("theory")
    if theory["is_global"]:
        return "global"
    return " x ".join("?" if s is None else f"{float(s):g}" for s in theory["size"])


def _box(result: Result, method: str) -> str:
    box = result.attribute("theory")["box"]
    return "-" if box is None else f"y {box[0]}..{box[1]}, x {box[2]}..{box[3]}"


_ROWS = (
    ("TRF size (px)", _theory),
    ("TRF box (px)", _box),
    ("ERF sigma (px)", _size("sigma")),
    ("radius holding 50 % (px)", _size("radius_0.5")),
    ("radius holding 90 % (px)", _size("radius_0.9")),
    ("radius holding 99 % (px)", _size("radius_0.99")),
    ("square holding 95.45 % (px)", _size("square_0.9545")),
    ("fit: Gaussian sigma (px)", _size("fit_sigma", 3)),
    ("fit: major axis sigma (px)", _size("fit_sigma_major", 3)),
    ("fit: minor axis sigma (px)", _size("fit_sigma_minor", 3)),
    ("fit: R^2", _size("fit_r_squared", 4)),
    ("ERF square / TRF", _size("square_0.9545_over_trf", 3)),
    ("images", lambda result, method: str(result.dataset[method].attrs["images"])),
    ("device", lambda result, method: str(result.provenance.get("device", "-"))),
    ("seconds, all methods", lambda result, method: f"{result.provenance.get('seconds', float('nan')):.1f}"),
)
