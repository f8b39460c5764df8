"""What tensors that do not depend on the input hold (masks, index tables, coordinates) while the run itself is on `meta`.

A mask of -inf blocks an attention, an index table says which elements move where: such constants decide the structure, so
calls on constants alone are computed beside the run, on the model's own weights, as long as they are small.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

# Elements a constant may have to be computed beside the run.
LARGEST = 2**22


class Constants:
    """The contents of `meta` tensors, where they are known. Tensors that hold data are their own content.

    `state` pairs the run's parameters and buffers with the model's own, which are never written to.
    """

    def __init__(self, state: Iterable[tuple[Tensor, Tensor]]) -> None:
        self.known: Any = WeakIdKeyDictionary()
        self.kept: set[int] = set()
        for twin, own in state:
            if not own.is_meta:
                self.kept.add(own.untyped_storage().data_ptr())
                if twin.is_meta:
                    self.known[twin] = own

    def of(self, tensor: Tensor) -> Tensor | None:
        """The content of a constant tensor, or None."""
        return self.known.get(tensor) if tensor.is_meta else tensor

    def frozen(self, tensor: Tensor) -> Tensor:
        """The content of a constant as it is now (a copy if the run may write to it later); the tensor itself if unknown."""
        content = self.of(tensor)
        if content is None or self._is_own(content):
            return tensor if content is None else content
        return content.clone()

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The result of a call on constants, on `meta` and, where it can be known, beside it."""
        contents: Any = None
        if not _leaves_device(func, args, kwargs):
            return func(*args, **kwargs)
        try:
            result = func(*args, **kwargs)
        except (RuntimeError, NotImplementedError):  # the shape of the result depends on the data (nonzero, item)
            contents = self._compute(func, args, kwargs)
            if contents is None:
                raise
            result = tree_map_only(Tensor, lambda t: t.to("meta"), contents)
        if sum(t.numel() for t in _tensors(result)) <= LARGEST:
            contents = self._compute(func, args, kwargs) if contents is None else contents
            for twin, content in zip(_tensors(result), _tensors(contents), strict=False):
                self.known[twin] = content
        return result

    def can_write(self, written: Iterable[Tensor], arguments: Any) -> bool:
        """Whether a call that writes to constants can be computed beside the run."""
        written = [t for t in written if t.is_meta]  # others the run itself writes to
        contents = [self.of(t) for t in written]
        if any(c is None or self._is_own(c) for c in contents):
            return False
        return all(self.of(t) is not None for t in _tensors(arguments))

    def on_one_device(self, args: Any, kwargs: Any) -> Any:
        """The arguments of a call, with tensors that hold data replaced by `meta` twins if others are on `meta`."""
        tensors = _tensors((args, kwargs))
        if len({t.is_meta for t in tensors}) < 2:
            return args, kwargs
        return tree_map_only(Tensor, self._twin, (args, kwargs))

    def numbered(self, indices: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Indices in which known masks are replaced by the places of their set elements."""
        found: list[Tensor | None] = []
        for index in indices:
            content = None if index is None or index.dtype != torch.bool or not index.is_meta else self.of(index)
            if content is None:
                found.append(index)
            else:
                found += [self._twin_of(places) for places in content.nonzero(as_tuple=True)]
        return found

    def _twin(self, tensor: Tensor) -> Tensor:
        return tensor if tensor.is_meta else self._twin_of(tensor)

    def _twin_of(self, content: Tensor) -> Tensor:
        twin = content.to("meta")
        self.known[twin] = content
        return twin

    def forget(self, tensor: Tensor) -> None:
        """The tensor's content is no longer known."""
        self.known.pop(tensor, None)

    def _is_own(self, content: Tensor) -> bool:
        return content.untyped_storage().data_ptr() in self.kept

    def _compute(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The call on the contents, or None where one is unknown, the call is random, or the model's own would be written."""
        tensors = _tensors((args, kwargs))
        if any(self.of(t) is None for t in tensors) or torch.Tag.nondeterministic_seeded in func.tags:
            return None
        args, kwargs = tree_map_only(Tensor, self.of, (args, kwargs))
        if "device" in kwargs and kwargs["device"] is not None:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        try:
            return func(*args, **kwargs)
        except (RuntimeError, NotImplementedError):
            return None


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _leaves_device(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether a call runs on `meta`: on a meta tensor, or making one."""
    if any(t.is_meta for t in _tensors((args, kwargs))):
        return True
    return str(kwargs.get("device")) == "meta"
