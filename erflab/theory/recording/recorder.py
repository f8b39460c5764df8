"""The dispatch mode that writes down a run, call by call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from erflab.errors import UnknownOperationError
from erflab.theory.graph import Graph, Node, Value
from erflab.theory.recording.aliases import Aliases, read_again, write_back
from erflab.theory.recording.constants import Constants

# Calls whose result depends on the shape of their argument alone, never on its values.
SHAPE_ONLY = frozenset(
    f"aten.{name}"
    for name in (
        "new_zeros new_ones new_full new_empty new_empty_strided zeros_like ones_like full_like empty_like "
        "rand_like randn_like sym_size sym_numel sym_stride is_same_size"
    ).split()
)
# In-place calls that change a tensor's shape, not its memory.
RESHAPING = frozenset({"aten.transpose_", "aten.t_", "aten.squeeze_", "aten.unsqueeze_", "aten.swapaxes_"})
# Composite calls recorded whole: step by step, a recurrence over a large image would be a graph of millions of calls.
RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})
# Methods that hand a tensor's data to Python, where dependence cannot be followed. (`item` is an ATen call.)
ESCAPES = frozenset({"numpy", "tolist", "__array__", "__dlpack__"})

# Calls whose second argument may hold masks, which say by their number of set elements what shape the result has.
MASKABLE = frozenset({"aten.index", "aten.index_put", "aten.index_put_"})
# Where a list of numbers may stand as an index.
INDEXING = frozenset({"__getitem__", "__setitem__"})


class Recorder(TorchDispatchMode):
    """Records in `graph` the calls that touch input-dependent tensors, which it knows by identity."""

    def __init__(self, graph: Graph, image: Tensor, modules: list[str], constants: Constants) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = graph
        self.modules = modules
        self.constants = constants
        self.aliases = Aliases()
        self.values: Any = WeakIdKeyDictionary()
        self.paused = False
        self._bind(image, graph.input)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        args, kwargs = self.constants.on_one_device(args, kwargs)
        if _name(func) in MASKABLE:
            args = (args[0], self.constants.numbered(args[1]), *args[2:])
        operands = tree_map_only(Tensor, self._argument, (args, kwargs))
        written = _written(func, args, kwargs)
        if any(isinstance(leaf, Value) for leaf in tree_leaves(operands)):
            result = func(*args, **kwargs)
            self._note_outputs(func, args, kwargs, result)
            self._record(_name(func), operands, written, _tensors(result))
            return result
        followed = self.constants.can_write(written, (args, kwargs))
        result = self.constants.run(func, args, kwargs)
        self._note_outputs(func, args, kwargs, result)
        if not followed:
            self._spoil(written, _name(func))
        return result

    def record_whole(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run a recurrence without recording its steps, and record it as one node, named aten.<function>."""
        operands = tree_map_only(Tensor, self._argument, (args, kwargs))
        self.paused = True
        try:
            result = _recurrence_shapes(args) if args[0].is_meta else func(*args, **kwargs)
        finally:
            self.paused = False
        self._record(f"aten.{func.__name__}", operands, [], _tensors(result))
        return result

    def value_of(self, output: Any) -> Value | None:
        """The value of a module's output, or of its first tensor; None if it does not depend on the input."""
        for tensor in _tensors(output):
            return self._lookup(tensor)
        return None

    def lose(self) -> None:
        """Note that the module being run took data where dependence cannot be followed."""
        self.graph.escapes.append((len(self.graph.nodes), self.modules[-1]))

    def _note_outputs(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        outputs = _tensors(result)
        self.aliases.add_views(func, args, kwargs, outputs)
        for output in outputs:
            self.aliases.note(output)

    def _record(self, op: str, operands: Any, written: list[Tensor], outputs: list[Tensor]) -> None:
        if op in SHAPE_ONLY:
            return
        if not outputs:  # a Python number
            self.lose()
            return
        args, kwargs = operands
        values = self._add(op, args, kwargs, outputs)
        if op in RESHAPING:
            self.aliases.views.pop(outputs[0], None)
        elif written:
            for tensor, value in zip(written, values, strict=False):
                self._write(tensor, value, op)
        for tensor, value in zip(outputs, values, strict=True):
            self._bind(tensor, value)

    def _add(self, op: str, args: Any, kwargs: Any, tensors: list[Tensor]) -> tuple[Value, ...]:
        values = tuple(Value(tuple(t.shape)) for t in tensors)
        self.graph.nodes.append(Node(op, args, kwargs, values, self.modules[-1]))
        return values

    def _bind(self, tensor: Tensor, value: Value) -> None:
        self.values[tensor] = value
        self.aliases.note(tensor)

    def _argument(self, tensor: Tensor) -> Value | Tensor:
        """What stands for a tensor in a node."""
        value = self._lookup(tensor)
        return self.constants.frozen(tensor) if value is None else value

    def _lookup(self, tensor: Tensor) -> Value | None:
        """The tensor's value; read again from the tensor it is a view of, if a write has changed that since."""
        if self.aliases.behind(tensor):
            self._reread(tensor)
        return self.values.get(tensor)  # type: ignore[no-any-return]

    def _reread(self, tensor: Tensor) -> None:
        view = self.aliases.views.get(tensor)
        base = None if view is None else self._argument(view.base)
        again = None if view is None else read_again(view, base)
        if again is None:
            raise self._not_followed(tensor)
        self.constants.forget(tensor)
        self.aliases.note(tensor)
        if isinstance(base, Value):
            (value,) = self._add(again[0], again[1], {}, [tensor])
            self._bind(tensor, value)

    def _write(self, tensor: Tensor, value: Value, by: str) -> None:
        """A write changes the tensor, and every tensor it is a view of; other views of the memory are behind from now on."""
        path: list[tuple[Tensor, Value]] = [(tensor, value)]
        while (view := self.aliases.views.get(tensor)) is not None:
            back = write_back(view, self._argument(view.base), value)
            if back is None:
                break
            tensor = view.base
            (value,) = self._add(back[0], back[1], {}, [tensor])
            path.append((tensor, value))
        self.aliases.written(tensor, f"{by} in {self.modules[-1]!r}")
        for changed, found in path:
            self.constants.forget(changed)
            self._bind(changed, found)

    def _spoil(self, written: list[Tensor], by: str) -> None:
        """Constants were written to, and with what is not known: nothing is known of them and of their views."""
        for tensor in written:
            changed: Tensor | None = tensor
            self.aliases.written(tensor, f"{by} in {self.modules[-1]!r}")
            while changed is not None:
                self.constants.forget(changed)
                self.aliases.note(changed)
                view = self.aliases.views.get(changed)
                changed = None if view is None else view.base

    def _not_followed(self, tensor: Tensor) -> UnknownOperationError:
        return UnknownOperationError(
            f"module {self.modules[-1]!r} reads a tensor of shape {tuple(tensor.shape)} that {self.aliases.writer(tensor)} "
            "wrote to in part, through a view that cannot be followed. Rewrite it without the in-place assignment "
            "(torch.cat, torch.where), or assign through slices and integer indices."
        )


class Interceptor(TorchFunctionMode):
    """Sees calls before they fall apart into ATen ones: recurrences are recorded whole, escapes to Python noted."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in RECURRENT and self.recorder.value_of(args) is not None:
            return self.recorder.record_whole(func, args, kwargs)
        if name in ESCAPES and self.recorder.value_of(args) is not None:
            self.recorder.lose()
        if name in INDEXING and len(args) > 1:
            args = (args[0], _lists_as_tensors(args[1]), *args[2:])
        return func(*args, **kwargs)


def _lists_as_tensors(index: Any) -> Any:
    """An index with its lists as tensors that hold the numbers: turned into one on `meta`, a list would lose them."""
    if isinstance(index, tuple):
        return tuple(map(_lists_as_tensors, index))
    return torch.tensor(index) if isinstance(index, list) and index else index


def _recurrence_shapes(args: Any) -> tuple[Tensor, ...]:
    """The outputs of a recurrence on meta tensors: [*source without features, directions x hidden], and the last states."""
    source, given, *_, both, _ = args
    states = given if isinstance(given, (list, tuple)) else [given]
    features = states[0].shape[-1] * (2 if both else 1)
    return source.new_empty((*source.shape[:-1], features)), *(torch.empty_like(s) for s in states)


def _name(func: Any) -> str:
    return str(func).rsplit(".", 1)[0]


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensor arguments that a call writes to."""
    named = {a.name: v for a, v in zip(func._schema.arguments, args, strict=False)} | kwargs
    writes = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return [named[name] for name in writes if isinstance(named.get(name), Tensor)]
