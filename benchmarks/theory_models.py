"""The theoretical field of every model of a library: one table, with a check against gradients.

    python benchmarks/theory_models.py --library torchvision
    python benchmarks/theory_models.py --library timm --json timm.json

One model of each of timm's families is taken, the smallest. Columns: the last spatial layer and its full and local field
(px, y x x; inf is global), stride, CPU seconds to read the boxes of all layers at the real and the virtual size, and
violations: pixels with a non-zero float64 gradient (random weights, zero-initialised parameters drawn anew) outside the
clipped box of a unit, over three layers and four units each. Any is a bug.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import timm
import torch
import torchvision
from torch import nn

from erflab.errors import ErflabError, TargetError
from erflab.models import frozen
from erflab.theory.check import check_by_gradient
from erflab.theory.field import TheoreticalField
from erflab.theory.layer import theoretical_field
from erflab.theory.reading import read_boxes
from erflab.theory.trace import trace

VIRTUAL_STEP = 3840
# Above this many parameters a float64 copy and its activations ask for more memory than a small machine has.
CHECKED_PARAMETERS = 120_000_000


@dataclass(frozen=True)
class Candidate:
    """A model to be built, its family, and the input size it is made for."""

    name: str
    family: str
    build: Callable[[], nn.Module]
    size: tuple[int, int]


@dataclass
class Row:
    """One line of the table."""

    name: str
    family: str
    input_size: tuple[int, int]
    layer: str = ""
    full: str = ""
    local: str = ""
    stride: str = ""
    causes: int = 0
    layers: int = 0
    seconds: float = math.nan
    checked: int = 0
    violations: int | None = None
    note: str = ""


def torchvision_models() -> Iterator[Candidate]:
    """All classifiers, and the segmentation models."""
    models = torchvision.models
    for module, family in ((models, "classifier"), (models.segmentation, "segmentation")):
        for name in models.list_models(module=module):
            settings: dict[str, object] = {"weights_backbone": None} if family == "segmentation" else {}
            if name in ("googlenet", "inception_v3"):
                settings["init_weights"] = False
            build = _builder(models.get_model, name, weights=None, **settings)
            yield Candidate(name, family, build, (299, 299) if name == "inception_v3" else (224, 224))


def timm_models() -> Iterator[Candidate]:
    """The smallest model of each module."""
    for family in timm.list_modules():
        name = min(timm.list_models(module=family), key=_parameters, default=None)
        if name is not None:
            size = timm.get_pretrained_cfg(name).input_size[1:]
            yield Candidate(name, family, _builder(timm.create_model, name), tuple(size))


def _builder(build: Callable[..., nn.Module], name: str, **settings: object) -> Callable[[], nn.Module]:
    return lambda: build(name, **settings)


def _parameters(name: str) -> float:
    try:
        with torch.device("meta"):
            return sum(p.numel() for p in timm.create_model(name).parameters())
    except (RuntimeError, NotImplementedError):  # it computes with its weights when built
        return math.inf


def measure(candidate: Candidate) -> Row:
    """One row; what goes wrong stands in its note."""
    row = Row(candidate.name, candidate.family, candidate.size)
    torch.manual_seed(0)
    model = candidate.build().eval()
    try:
        row.seconds, row.layers = _time_all_layers(model, candidate.size)
        field = theoretical_field(model, None, candidate.size, channels=3)
        row.layer, row.full, row.local, row.stride = (
            field.layer,
            *map(_pair, (field.size, field.local.size, field.stride)),
        )
        row.causes = len(field.causes)
        if sum(p.numel() for p in model.parameters()) <= CHECKED_PARAMETERS:
            _check(row, model, field)
        else:
            row.note = "too large to be checked"
    except (ErflabError, RuntimeError) as error:
        row.note = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return row


def _time_all_layers(model: nn.Module, size: Sequence[int]) -> tuple[float, int]:
    begin, layers = time.process_time(), 0
    with frozen(model):
        for grown in (0, VIRTUAL_STEP):
            graph = trace(model, (1, 3, *(n + grown for n in size)))
            if graph.layers:
                read_boxes(graph, graph.layers.values(), partial=True)
                layers = max(layers, len(graph.layers))
    return time.process_time() - begin, layers


def _check(row: Row, model: nn.Module, last: TheoreticalField) -> None:
    chooser = random.Random(0)
    row.violations = 0
    for field in _some_fields(model, last, chooser):
        units = [tuple(n // 2 for n in field.grid), tuple(0 for _ in field.grid), tuple(n - 1 for n in field.grid)]
        units.append(tuple(chooser.randrange(n) for n in field.grid))
        checks = check_by_gradient(model, field, units)
        row.checked += len(checks)
        row.violations += sum(check.outside for check in checks)


def _some_fields(model: nn.Module, last: TheoreticalField, chooser: random.Random) -> Iterator[TheoreticalField]:
    """The last spatial layer's field and those of two others."""
    yield last
    with frozen(model):
        names = [
            f"{name}:{call}"
            for name, call in trace(model, (1, 3, *last.input_size)).layers
            if name in dict(model.named_modules())
        ]
    found = 0
    for name in chooser.sample(names, len(names)):
        try:
            field = theoretical_field(model, name, last.input_size, channels=3)
        except TargetError:  # it has no grid of units
            continue
        yield field
        found += 1
        if found == 2:
            return


def _pair(values: Sequence[float | None]) -> str:
    return " x ".join("-" if v is None else f"{v:g}" for v in values)


HEADER = (
    f"{'model':34} {'input':>9} {'full':>13} {'local':>13} {'stride':>9} {'causes':>6} {'layers':>6} {'s':>6} {'checked':>7} "
    f"{'violations':>10}"
)


def _line(row: Row) -> str:
    violations = "-" if row.violations is None else str(row.violations)
    return (
        f"{row.name:34} {_pair(row.input_size):>9} {row.full:>13} {row.local:>13} {row.stride:>9} {row.causes:6d} "
        f"{row.layers:6d} {row.seconds:6.2f} {row.checked:7d} {violations:>10} {row.note}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", choices=("torchvision", "timm"), default="torchvision")
    parser.add_argument("--models", nargs="*", help="only these models")
    parser.add_argument("--json", type=Path, help="write the rows to this file too")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(HEADER)
    rows = []
    for candidate in torchvision_models() if options.library == "torchvision" else timm_models():
        if not options.models or candidate.name in options.models:
            rows.append(measure(candidate))
            print(_line(rows[-1]), flush=True)
            if options.json:
                options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(rows)} models, {sum(row.violations or 0 for row in rows)} violations, {memory:.1f} GiB at most")


if __name__ == "__main__":
    main()
