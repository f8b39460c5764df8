"""Energy rules of operations that move elements, write them somewhere or lay them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from erflab.theory.energy_rules.meanfield import Call, EnergyRule, Factors, distinct, run, sum_to
from erflab.theory.energy_rules.moments import Moments, filled, moved, tighten
from erflab.theory.graph import Value


def expect_moved(call: Call, *_: Any, **__: Any) -> tuple[list[Moments], Factors]:
    """Views, slices, rolls: the moments move as the elements do."""
    value = call.node.operands[0]

    def output(k: int) -> Any:
        return lambda full: run(call.node, {value: full})[k]

    return [moved(call.moments[value], value.shape, output(k)) for k in range(len(call.node.outputs))], ()


def pull_moved(call: Call, _: Factors, energies: Sequence[Tensor], *__: Any, **___: Any) -> list[Tensor | None]:
    """The transpose of a map with coefficients 0 and 1, which are their own squares."""
    operands = distinct(call.node.operands)
    with torch.enable_grad():
        sources = {v: energies[0].new_zeros(v.shape).requires_grad_(True) for v in operands}
        pulled = torch.autograd.grad(run(call.node, sources), list(sources.values()), list(energies))
    found = dict(zip(operands, pulled, strict=True))
    return [found.pop(v, None) for v in call.node.operands]


def placed(position: int | None = None) -> EnergyRule:
    """Operations on one or several tensors that move, write and add up elements, each with coefficient 1.

    They do so by indices or a mask (argument number `position`), which must not depend on the input.
    """

    def observe(call: Call, *args: Any, **kwargs: Any) -> Factors:
        if position is not None and any(isinstance(leaf, Value) for leaf in tree_leaves(args[position])):
            raise call.unknown("positions or a mask that depend on the input")
        if "reduce" in kwargs:
            raise call.unknown(f"writing by {kwargs['reduce']!r}")
        return ()

    def expect(call: Call, *args: Any, **kwargs: Any) -> tuple[list[Moments], Factors]:
        factors = observe(call, *args, **kwargs)
        before = {v: call.moments[v] for v in call.node.operands}
        means = run(call.node, {v: m.mean.expand(v.shape) for v, m in before.items()})
        variances = run(call.node, {v: m.var.expand(v.shape) for v, m in before.items()})
        constants = run(call.node, {v: m.var.new_zeros(v.shape) for v, m in before.items()})
        varying = [torch.where(torch.isfinite(c), v - c, 0.0) for v, c in zip(variances, constants, strict=True)]
        found = [Moments(tighten(m), tighten(v)) for m, v in zip(means, varying, strict=True)]
        return found, factors

    return EnergyRule(expect, pull_moved, observe)


def expect_concatenated(call: Call, tensors: Sequence[Any], dim: int = 0) -> tuple[list[Moments], Factors]:
    """cat: side by side along one dimension."""
    dim %= len(call.shape)
    parts = [(call.of(t), t.shape) for t in tensors if len(t.shape) == len(call.shape)]
    mean = _beside([(m.mean, s) for m, s in parts], dim)
    var = _beside([(m.var, s) for m, s in parts], dim)
    return [Moments(mean, var)], ()


def _beside(parts: Sequence[tuple[Tensor, Sequence[int]]], dim: int) -> Tensor:
    full = [filled(t, s, [dim]) for t, s in parts]
    common = [max(t.shape[d] for t in full) for d in range(full[0].dim())]
    wanted = [[t.shape[d] if d == dim else n for d, n in enumerate(common)] for t in full]
    return torch.cat([t.expand(w) for t, w in zip(full, wanted, strict=True)], dim)


def pull_concatenated(
    call: Call, _: Factors, energies: Sequence[Tensor], tensors: Sequence[Any], dim: int = 0
) -> list[Tensor | None]:
    """Each operand's own slice."""
    pieces = energies[0].split([t.shape[dim] if len(t.shape) == len(call.shape) else 0 for t in tensors], dim)
    return [p.reshape(t.shape) for p, t in zip(pieces, tensors, strict=True) if isinstance(t, Value)]


def expect_padded(call: Call, source: Value, widths: Sequence[int], value: float = 0) -> tuple[list[Moments], Factors]:
    """Constant padding, left out along dimensions on which nothing varies (as in convolutions): the interior counts."""
    before = call.moments[source]
    lengths = torch.broadcast_shapes(before.mean.shape, before.var.shape)
    kept = [w if lengths[len(lengths) - 1 - i // 2] > 1 else 0 for i, w in enumerate(widths)]
    if not any(kept):
        return [before], ()
    pad = torch.ops.aten.constant_pad_nd
    return [Moments(pad(before.mean.expand(lengths), kept, value), pad(before.var.expand(lengths), kept, 0.0))], ()


def expect_overwritten(call: Call, _: Any, source: Any, *__: Any) -> tuple[list[Moments], Factors]:
    """copy: the source, broadcast."""
    return [call.of(source)], ()


def pull_overwritten(
    call: Call, _: Factors, energies: Sequence[Tensor], target: Any, source: Any, *__: Any
) -> list[Tensor | None]:
    """The target's old content no longer matters."""
    found = [sum_to(energies[0], source.shape)] if isinstance(source, Value) else []
    return [None] * isinstance(target, Value) + found


MOVED = EnergyRule(expect_moved, pull_moved)
CONCATENATED = EnergyRule(expect_concatenated, pull_concatenated)
PADDED = EnergyRule(expect_padded, pull_moved)
OVERWRITTEN = EnergyRule(expect_overwritten, pull_overwritten)
