"""The runs of one model that a theoretical field is read from: one at the real input size, others at virtual sizes.

A virtual size is much larger than the real one and congruent to it modulo the strides, so it has an interior that no border
reaches: there the boxes of a layer's units repeat, and the pattern tells the unclipped box of any unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from erflab.errors import ConfigError, TargetError, TheoryError
from erflab.models import require_module
from erflab.target import OUTPUT, Layout, resolve_layer
from erflab.theory.box import TooLargeError
from erflab.theory.boxes import Boxes
from erflab.theory.pattern import LONGEST_PERIOD, Pattern, find_pattern
from erflab.theory.reading import read_boxes
from erflab.theory.trace import Graph, Value, trace
from erflab.theory.units import UnitBoxes, detect_layout, unit_boxes

# The virtual size is the real one plus a multiple of this: 2^8 * 3 * 5 keeps it congruent modulo every usual total stride.
VIRTUAL_STEP = 3840
VIRTUAL_STEPS = (1, 2, 4)

LayerKey = tuple[str, int]  # module name, call


@dataclass
class Traces:
    """The runs of one model at its real input size and at virtual ones, made and read when first asked for.

    With `all_layers` the boxes of all layers are read in one go, for a caller who wants them all.
    """

    model: nn.Module
    input_shape: tuple[int, ...]
    all_layers: bool = False
    _runs: dict[int, Graph] = field(default_factory=dict)
    _read: dict[tuple[int, bool], dict[Value, Boxes]] = field(default_factory=dict)

    @property
    def input_size(self) -> tuple[int, ...]:
        """The image axes' lengths in px."""
        return self.input_shape[2:]

    @property
    def real(self) -> Graph:
        """The run at the real size, on real data if the model cannot do without. Raises TheoryError if it cannot run."""
        if 0 not in self._runs:
            graph = trace(self.model, self.input_shape)
            if graph.failure is not None:
                graph = trace(self.model, self.input_shape, meta=False)
            if graph.failure is not None and not graph.layers:
                self._refuse(graph)
            self._runs[0] = graph
        return self._runs[0]

    def refuse_if_cut_short(self) -> None:
        """Raise TheoryError if the real run ended early."""
        if self.real.failure is not None:
            self._refuse(self.real)

    def _refuse(self, graph: Graph) -> None:
        text = str(graph.failure).strip().splitlines() or [type(graph.failure).__name__]
        raise TheoryError(f"the model does not run at input size {self.input_size}: {text[0]}") from graph.failure

    def virtual(self) -> Iterator[Graph]:
        """The runs at virtual sizes, smallest first; a run that ended early has only the layers before its end."""
        for steps in VIRTUAL_STEPS:
            if steps not in self._runs:
                grown = (*self.input_shape[:2], *(n + steps * VIRTUAL_STEP for n in self.input_size))
                self._runs[steps] = trace(self.model, grown)
            yield self._runs[steps]

    def boxes(self, graph: Graph, key: LayerKey, *, local: bool = False) -> Boxes:
        """The boxes of a layer's output in one of the runs. Raises TooLargeError if they do not fit in memory."""
        if local and graph is self.real:
            self._learn_cuts(key)
        known = self._read.setdefault((id(graph), local), {})
        value = graph.layers[key]
        if not known:
            wanted = list(graph.layers.values()) if self.all_layers else [value]
            known.update(read_boxes(graph, wanted, local=local, partial=self.all_layers))
        if value not in known and self.all_layers:
            raise TooLargeError(f"the boxes of layer {key[0]!r} do not fit in memory at input size {graph.input_size}")
        if value not in known:
            known[value] = read_boxes(graph, [value], local=local)[value]
        return known[value]

    def keep(self, graph: Graph, value: Value, found: dict[Value, Boxes]) -> None:
        """Note boxes of the full fields that a reading of all layers of a run has found: all, or one layer's alone."""
        known = self._read.setdefault((id(graph), False), {})
        known.update(found if self.all_layers else {value: found[value]})

    def _learn_cuts(self, key: LayerKey) -> None:
        """Tell the real run which reductions span the image: where fields cover it, it cannot tell them from others itself."""
        virtual = next(self.virtual())
        if key not in virtual.layers or [n.op for n in virtual.nodes] != [n.op for n in self.real.nodes]:
            return
        with suppress(TooLargeError):
            self.boxes(virtual, key, local=True)
        twins = dict(zip(virtual.nodes, self.real.nodes, strict=True))
        self.real.cut.update((twins[node], axis) for node, axis in virtual.cut if node in twins)


def input_channels(model: nn.Module) -> int:
    """The channels that the model's first convolution takes (3 if it has none).

    Where those are many, a rearrangement may come before it (space to depth); what the model states of its input counts then.
    """
    found = next((module.in_channels for module in model.modules() if isinstance(module, _ConvNd)), 3)
    stated = getattr(model, "pretrained_cfg", None) or {}
    return int(stated["input_size"][0]) if found > 4 and "input_size" in stated else found


def image_shape(model: nn.Module, input_size: Any, channels: int | None = None) -> tuple[int, ...]:
    """[1, channels, *input_size], the channels by default those of the model's first convolution.

    Raises ConfigError for what is no module, and for a size that is no sequence of numbers.
    """
    require_module(model)
    try:
        sides = [int(n) for n in input_size]
    except TypeError as error:
        raise ConfigError(f"input_size is {input_size!r}; give px per image axis, such as (224, 224).") from error
    return (1, channels or input_channels(model), *sides)


def layer_key(traces: Traces, layer: str | None) -> LayerKey:
    """The layer and call that a user's name stands for; None is the last spatial layer. Raises TargetError."""
    if layer is None:
        return last_spatial_layer(traces)
    try:
        return resolve_layer(layer, traces.real.calls)
    except TargetError:
        traces.refuse_if_cut_short()  # then the size is to blame, not the name
        raise


def last_spatial_layer(traces: Traces) -> LayerKey:
    """The model's own output when it is spatial, else the last module with more than one position.

    Fixed-grid adaptive pools are passed over, which takes the virtual size to tell.
    """
    virtual = next(traces.virtual())
    graph = virtual if len(virtual.layers) >= len(traces.real.layers) else traces.real  # it may have ended early
    boxes = read_boxes(graph, graph.layers.values(), partial=True)
    if len(boxes) < len(set(graph.layers.values())) and graph is not traces.real:  # too large: the real size must do
        graph = traces.real
        boxes = read_boxes(graph, graph.layers.values(), partial=True)
    keys = [key for key in graph.layers if key[0] == OUTPUT] + list(graph.layers)[::-1]
    for key in keys:
        found = boxes.get(graph.layers[key])
        if key not in traces.real.layers or _is_vector(traces.real.layers[key]):
            continue
        if found is not None and not found.fixed_grids and detect_layout(found, graph.input_size) is not None:
            traces.keep(graph, graph.layers[key], boxes)
            return key
    raise TargetError("the model has no layer with more than one position; it has no receptive field over an image.")


def _is_vector(value: Value) -> bool:
    """Whether at most one dimension is longer than 1: pooled features, which a virtual size may show as a map."""
    return sum(n > 1 for n in value.shape) < 2


@dataclass(frozen=True)
class LayerPattern:
    """What the virtual runs told of a layer: the pattern and the run that shows it, or why there is none.

    path: the pattern of the units' own paths, which may be known where that of the whole fields is not.
    """

    pattern: Pattern | None = None
    reason: str | None = None
    causes: frozenset[str] | None = None
    kind: str = "auto"
    graph: Graph | None = None
    path: Pattern | None = None


def read_pattern(traces: Traces, key: LayerKey, kind: str, *, local: bool) -> LayerPattern:
    """The layer's pattern at the smallest virtual size whose interior is free of borders."""
    reason, path = None, None
    for graph in traces.virtual():
        size = graph.input_size
        if key not in graph.layers:
            reason = f"the model refuses a virtual input of {size} px: {graph.failure}"
            break
        try:
            boxes = traces.boxes(graph, key, local=local)
            layout = detect_layout(boxes, size, kind)
            units = None if layout is None or boxes.fixed_grids else unit_boxes(boxes, layout)
        except TooLargeError as error:
            reason = str(error)
            break
        if layout is None or units is None:
            pools = ", ".join(sorted(boxes.fixed_grids)) or "a layer"
            reason = f"{pools} gives a fixed number of positions, so the field scales with the image"
            break
        pattern = find_pattern(units, size)
        path = path or _path(boxes, layout, pattern, size)
        if pattern is not None:
            return LayerPattern(pattern, None, boxes.causes, layout.kind, graph, path)
        if not _touches_border(units, size):  # then a larger image shows no more
            reason = f"the fields of units do not repeat within {LONGEST_PERIOD} units"
            break
        reason = f"the field is larger than {size} px"
    return LayerPattern(reason=reason, kind=kind, path=path)


def _path(boxes: Boxes, layout: Layout, pattern: Pattern | None, size: tuple[int, ...]) -> Pattern | None:
    """The pattern of the units' own paths: that of their whole fields where these are nothing else."""
    if boxes.own is None:
        return pattern
    with suppress(TooLargeError):
        return find_pattern(unit_boxes(boxes.path, layout), size)
    return None


def _touches_border(units: UnitBoxes, size: tuple[int, ...]) -> bool:
    """Whether the middle unit's box (empty, or out of the image's inner half) leaves too little interior to show a pattern."""
    seen = units.box([n // 2 for n in units.grid])
    return seen is None or any(seen[2 * a] <= n // 4 or seen[2 * a + 1] >= n - n // 4 for a, n in enumerate(size))
