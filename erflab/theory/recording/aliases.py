"""Which tensors are views of which, and which of them a write into shared memory has left behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary


@dataclass(frozen=True, eq=False)
class View:
    """A tensor that is output number `index` of a view call on `base`."""

    base: Tensor
    op: str
    args: tuple[Any, ...]  # after the base
    kwargs: dict[str, Any]
    index: int
    shape: tuple[int, ...]


class Aliases:
    """The views of a run, and per memory block a count of the writes that need following.

    A tensor is `behind` when its memory was written to, through another tensor, after what is known of it was noted.
    """

    def __init__(self) -> None:
        self.views: Any = WeakIdKeyDictionary()
        self._noted: Any = WeakIdKeyDictionary()
        self._writes: dict[int, tuple[int, str]] = {}

    def note(self, tensor: Tensor) -> None:
        """What is known of the tensor is up to date."""
        self._noted[tensor] = self._count(tensor)

    def behind(self, tensor: Tensor) -> bool:
        """Whether a write has changed the tensor since."""
        return bool(self._writes) and self._noted.get(tensor, self._count(tensor)) < self._count(tensor)

    def written(self, tensor: Tensor, by: str) -> None:
        """Count a write into the tensor's memory; `by` names the call, for messages."""
        self._writes[_memory(tensor)] = (self._count(tensor) + 1, by)

    def writer(self, tensor: Tensor) -> str:
        """The call that wrote to the tensor's memory last."""
        return self._writes[_memory(tensor)][1]

    def add_views(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: list[Tensor]) -> None:
        """Note the outputs of a view call (one whose schema says that they share the first argument's memory)."""
        returned = func._schema.returns
        if not returned or returned[0].alias_info is None or returned[0].alias_info.is_write:
            return
        if not args or not isinstance(args[0], Tensor):
            return
        op = str(func).rsplit(".", 1)[0]
        for index, output in enumerate(outputs):
            if output is not args[0]:
                self.views[output] = View(args[0], op, args[1:], kwargs, index, tuple(output.shape))

    def _count(self, tensor: Tensor) -> int:
        return self._writes.get(_memory(tensor), (0, ""))[0]


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


# Views that keep every element, in order or moved: the base is had from the view by the same call, or by a reshape.
_SAME_ORDER = frozenset(
    f"aten.{name}" for name in "view _reshape_alias unsqueeze squeeze alias detach lift_fresh".split()
)
_OWN_INVERSE = frozenset({"aten.transpose", "aten.t"})
_PIECES = frozenset({"aten.split", "aten.split_with_sizes"})

Replacement = tuple[str, tuple[Any, ...]]


def write_back(view: View, old: Any, new: Any) -> Replacement | None:
    """The call that gives the base after a write of `new` to the view; `old` is the base before. None if there is none."""
    if view.op in _SAME_ORDER:
        return "aten.view", (new, list(view.base.shape))
    if view.op in _OWN_INVERSE:
        return view.op, (new, *view.args)
    if view.op == "aten.permute":
        order = [d % view.base.dim() for d in view.args[0]]
        return view.op, (new, [order.index(d) for d in range(len(order))])
    again = read_again(view, old)
    if again is not None and again[0] in ("aten.select", "aten.slice"):
        op, (_, *where) = again
        return f"{op}_scatter", (old, new, *where)
    return None


def read_again(view: View, base: Any) -> Replacement | None:
    """The call that gives the view of a base that has changed, as a call with one output. None if there is none."""
    if view.op == "aten.unbind":
        return "aten.select", (base, view.args[0] if view.args else 0, view.index)
    if view.op in _PIECES:
        dim = view.args[1] if len(view.args) > 1 else 0
        sizes = view.args[0] if isinstance(view.args[0], (list, tuple)) else [view.args[0]] * (view.index + 1)
        start = sum(sizes[: view.index])
        return "aten.slice", (base, dim, start, start + view.shape[dim])
    if view.op.startswith("aten.as_strided") or view.kwargs:
        return None
    return view.op, (base, *view.args)
