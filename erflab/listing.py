"""The verb `erflab theory`: the theoretical fields of all layers of a model, printed and written. Needs no images."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from erflab.arguments import Arguments
from erflab.compose import config_directory, register, to_config
from erflab.config import ErflabConfig
from erflab.errors import ConfigError
from erflab.models import build_model
from erflab.terminal import print_whole
from erflab.theory.layer_table import LayerRow, LayerTable
from erflab.theory.layers import theoretical_fields, with_predictions

USAGE = "erflab theory model=NAME [images.size=PX] [--layers PATTERN] [--no-predicted] [--csv FILE] [--json FILE]"

LONGEST_NAME = 36
"""Characters of a layer's name up to which a terminal shows it whole, and cuts the module's class instead."""


def print_fields(arguments: list[str]) -> None:
    """Print the table of all layers of the model that the overrides name, and write it where asked.

    Raises ConfigError for an option that there is not, ModelError and TheoryError as the model gives rise to them.
    """
    options = _options(arguments)
    config = _compose(options.overrides)
    loaded = build_model(config.model, allow=config.runtime.allow)
    channels = getattr(config.images, "channels", None)
    table = theoretical_fields(loaded.module, config.images.size_or(loaded.input_size), channels=channels)
    if options.layers is not None:
        table = LayerTable([row for row in table if options.layers.search(row.layer)], table.input_size)
    if options.predicted:
        table = with_predictions(table, loaded.module, channels=channels, progress=True)
    if options.csv:
        table.to_csv(options.csv)
    if options.json:
        table.to_json(options.json)
    print_whole(render(table, loaded.name))


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = Arguments("theory", USAGE, __doc__)
    parser.add_argument("overrides", nargs="*", help="as for a measurement: model=resnet50 images.size=320")
    parser.add_argument("--layers", metavar="PATTERN", help="only layers whose name holds this regular expression")
    parser.add_argument(
        "--no-predicted",
        dest="predicted",
        action="store_false",
        help="leave out the predicted sizes, which take longest",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table as CSV")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON")
    options, unknown = parser.parse_known_intermixed_args(arguments)
    if flags := [argument for argument in unknown if argument.startswith("-")]:
        raise ConfigError(f"no option {flags[0]!r}. Usage: {USAGE}")
    try:
        options.layers = None if options.layers is None else re.compile(options.layers)
    except re.error as error:
        raise ConfigError(f"--layers {options.layers!r} is no regular expression: {error}.") from error
    return options


def _compose(overrides: list[str]) -> ErflabConfig:
    register()
    with initialize_config_dir(str(config_directory().resolve()), version_base="1.3", job_name="erflab"):
        return to_config(compose("config", overrides))


def render(table: LayerTable, name: str) -> Table:
    """The table for a terminal; one number where both axes agree."""
    rows, columns = (str(n) for n in table.input_size[-2:])
    made = Table(
        title=f"{name} at {rows} x {columns} px: theoretical and predicted receptive fields, sizes in px",
        caption=Text("\n".join(_notes(table))),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
    )
    cells = [_cells(row) for row in table]
    longest = max((len(layer) for layer, *_ in cells), default=0)
    made.add_column("layer", overflow="fold", no_wrap=longest <= LONGEST_NAME)
    made.add_column("module", overflow="ellipsis")
    made.add_column("output", no_wrap=True)
    for heading in ("stride", "TRF", "local\nTRF", "padding", "aligned", "holes", "sigma", "sigma\n/ TRF"):
        made.add_column(heading, justify="right", no_wrap=True, min_width=6)
    for row in cells:
        made.add_row(*row)
    return made


def _notes(table: LayerTable) -> list[str]:
    """What the columns mean, and why numbers are missing, each reason once."""
    rows = [row for row in table if row.field is not None]
    holes = dict.fromkeys(row.gaps.reason for row in rows if row.gaps.reason and not row.is_global)
    sigmas = dict.fromkeys(row.prediction.reason for row in rows if row.prediction.reason)
    cut = sum(map(_is_cut, rows))
    return [
        "holes: the share of its box that the centre unit does not see; sigma: of its field, as the weights predict it",
        *([f"* the image cuts the field (layers: {cut}); sigma is that of the part inside"] if cut else []),
        *(f"no holes told where: {reason}" for reason in holes),
        *(f"no sigma told where: {reason}" for reason in sigmas),
    ]


def _cells(row: LayerRow) -> list[str]:
    name = row.layer if row.call == 0 else f"{row.layer}:{row.call}"
    output = "x".join(map(str, row.shape[1:]))
    numbers = [_axes(values) for values in (row.stride, row.size, row.local_size, row.padding)]
    aligned = {True: "yes", False: "no", None: "-"}[row.aligned]
    holes = "0" if row.holes == 0 else _number(row.holes, ".1%")
    return [name, row.kind, output, *numbers, aligned, holes, *_predicted(row)]


def _predicted(row: LayerRow) -> list[str]:
    """Sigma, starred where the image cuts the field, and its ratio to the TRF."""
    star = "*" if _is_cut(row) else ""
    return [star + _number(row.predicted_sigma, ".2f"), _number(row.predicted_over_trf, ".3f")]


def _is_cut(row: LayerRow) -> bool:
    """Whether sigma is that of a part: the image cuts a field that does end somewhere."""
    return row.predicted_sigma is not None and bool(row.clipped) and not row.is_global


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _axes(values: Sequence[float | None]) -> str:
    words = ["-" if v is None else "global" if math.isinf(v) else str(int(v)) for v in values]
    return words[0] if len(set(words)) == 1 else " x ".join(words)
