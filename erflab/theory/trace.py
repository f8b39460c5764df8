"""One run of a model, recorded as a graph of ATen calls that the readings (box, later support and energy) walk over.

The model really runs, under a dispatch mode, on `meta` tensors (shapes without data), so every model that runs can be
traced, at any input size and at no cost in memory. Only calls that touch a tensor which depends on the input are recorded.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from erflab.errors import TheoryError, UnknownOperationError
from erflab.target import OUTPUT


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor that depends on the input, at one moment of the run (an in-place call makes a new value)."""

    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """One ATen call. Tensors that depend on the input stand in `args` as values, others (weights, constants) as they are."""

    op: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Value, ...]
    module: str

    @property
    def operands(self) -> list[Value]:
        """The values among the arguments, in order."""
        return [leaf for leaf in tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Value)]


@dataclass
class Graph:
    """The record of one run."""

    input: Value
    nodes: list[Node] = field(default_factory=list)
    layers: dict[tuple[str, int], Value] = field(default_factory=dict)  # (module, call) -> output, in execution order
    failure: Exception | None = None  # why the run ended early, if it did
    untracked: list[str] = field(default_factory=list)  # modules where dependence was lost (.item(), numpy)

    @property
    def calls(self) -> dict[str, int]:
        """How often each module ran."""
        return dict(Counter(name for name, _ in self.layers))

    @property
    def input_size(self) -> tuple[int, ...]:
        """The image axes' lengths in px."""
        return self.input.shape[2:]


# Calls whose result depends on the shape of their argument alone, never on its values.
SHAPE_ONLY = frozenset(
    f"aten.{name}"
    for name in (
        "new_zeros new_ones new_full new_empty new_empty_strided zeros_like ones_like full_like empty_like "
        "rand_like randn_like sym_size sym_numel sym_stride is_same_size"
    ).split()
)


class _Recorder(TorchDispatchMode):
    """Records the calls that touch input-dependent tensors, keyed by tensor identity."""

    def __init__(self, graph: Graph, image: Tensor, module_stack: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = graph
        self.modules = module_stack
        self.values: Any = WeakIdKeyDictionary()
        self.stale: Any = WeakIdKeyDictionary()
        self.sharing: dict[int, list[weakref.ref[Tensor]]] = {}
        self._bind(image, graph.input)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._refuse_stale(func, (args, kwargs))
        operands = tree_map_only(Tensor, lambda t: self.values.get(t, t), (args, kwargs))
        result = func(*args, **kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._remember(leaf)
        if any(isinstance(leaf, Value) for leaf in tree_leaves(operands)):
            self._record(func, operands, args, result)
        return result

    def _record(self, func: Any, operands: Any, args: Any, result: Any) -> None:
        op = str(func).rsplit(".", 1)[0]
        if op in SHAPE_ONLY:
            return
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if not tensors:  # a Python number: from here on the dependence cannot be followed
            self.graph.untracked.append(self.modules[-1])
            return
        outputs = tuple(Value(tuple(t.shape)) for t in tensors)
        self.graph.nodes.append(Node(op, operands[0], operands[1], outputs, self.modules[-1]))
        for written in _written(func, args):
            self._invalidate_aliases(written, outputs[0], op)
        for tensor, value in zip(tensors, outputs, strict=True):
            self._bind(tensor, value)

    def _bind(self, tensor: Tensor, value: Value) -> None:
        self.values[tensor] = value
        self.stale.pop(tensor, None)
        self._remember(tensor)

    def _remember(self, tensor: Tensor) -> None:
        """Note who shares memory with whom, input-dependent or not: a constant becomes dependent when written to."""
        shared = self.sharing.setdefault(_storage(tensor), [])
        shared[:] = [ref for ref in shared if ref() is not None and ref() is not tensor]
        shared.append(weakref.ref(tensor))

    def _invalidate_aliases(self, written: Tensor, value: Value, op: str) -> None:
        """A write changes every tensor that shares the memory: follow where the view is whole, else refuse later use."""
        for ref in self.sharing.get(_storage(written), []):
            alias = ref()
            if alias is None or alias is written:
                continue
            if alias.numel() == written.numel() and alias.is_contiguous() and written.is_contiguous():
                view = Value(tuple(alias.shape))
                self.graph.nodes.append(Node("aten.view", (value, list(alias.shape)), {}, (view,), self.modules[-1]))
                self.values[alias] = view
            else:
                self.stale[alias] = f"{op} in {self.modules[-1]!r}"

    def _refuse_stale(self, func: Any, arguments: Any) -> None:
        for leaf in tree_leaves(arguments):
            if isinstance(leaf, Tensor) and leaf in self.stale:
                raise UnknownOperationError(
                    f"{func} in module {self.modules[-1]!r} reads a tensor of shape {tuple(leaf.shape)} that "
                    f"{self.stale[leaf]} wrote to in part, through a view; the field cannot be followed through such a "
                    "write. Rewrite it without the in-place assignment (torch.cat, torch.where)."
                )

    def value_of(self, output: Any) -> Value | None:
        """The value of a module's output, or of its first tensor."""
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                return self.values.get(leaf)  # type: ignore[no-any-return]
        return None


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _written(func: Any, args: tuple[Any, ...]) -> list[Tensor]:
    """The tensor arguments that a call writes to."""
    schema = zip(func._schema.arguments, args, strict=False)
    return [a for s, a in schema if s.alias_info is not None and s.alias_info.is_write and isinstance(a, Tensor)]


@contextmanager
def _module_hooks(model: nn.Module, stack: list[str], on_output: Callable[[str, Any], None]) -> Iterator[None]:
    """Keep `stack` the path of module names being run, and report each module's output; hooks go when the block ends."""

    def hooks(name: str) -> tuple[Any, Any]:
        def leave(_: nn.Module, __: Any, output: Any) -> None:
            stack.pop()
            on_output(name, output)

        return (lambda *_: stack.append(name)), leave

    handles = []
    for name, module in model.named_modules():
        enter, leave = hooks(name)
        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def trace(model: nn.Module, input_shape: tuple[int, ...], *, meta: bool = True) -> Graph:
    """Run `model` once on an input [B, K, *image axes] and record it.

    On `meta` tensors nothing is computed; with `meta=False` the model runs on zeros, for models that look at their data.
    The model must be in eval mode. A run that ends early (a layer that refuses this size) keeps what was recorded, with
    the exception in `failure`.
    """
    graph = Graph(Value(tuple(input_shape)))
    stack = [""]
    state = {n: t.to("meta") if meta else t for n, t in [*model.named_parameters(), *model.named_buffers()]}
    some = next(iter(state.values()), torch.empty(0))
    dtype = some.dtype if some.is_floating_point() else torch.float32
    image = torch.zeros(input_shape, device="meta" if meta else some.device, dtype=dtype)
    recorder = _Recorder(graph, image, stack)
    calls: Counter[str] = Counter()

    def keep(name: str, output: Any) -> None:
        value = recorder.value_of(output)
        if value is not None:
            graph.layers[name or OUTPUT, calls[name]] = value
            calls[name] += 1

    with torch.no_grad(), _module_hooks(model, stack, keep), recorder:
        try:
            functional_call(model, state, (image,))
        except TheoryError:
            raise
        except Exception as error:  # any model may raise anything at a size it does not take
            graph.failure = error
    return graph
