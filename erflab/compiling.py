"""A compiled trunk that ends at the target: what lies behind it is cut away first, so that it is not computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from erflab.attribution.methods import HOOKING
from erflab.errors import ConfigError
from erflab.target import OUTPUT, Trunk

UNCOMPILED = (*HOOKING, "integrated_gradients")
"""Methods that hook modules, which are no more in compiled code, or differentiate at inputs that are no leaves."""
SAME = 1e-3
"""Difference of outputs, as a share of their norm (L2), that fused float32 sums explain."""
SAME_GRADIENT = 0.05
"""The same of gradients: a sum in another order flips some ReLUs near zero, and each flip is a jump of the gradient."""


def refuse_uncompiled(methods: Iterable[str]) -> None:
    """Raise ConfigError for a method that does not run, or would be another, as compiled code."""
    for method in methods:
        if method in UNCOMPILED:
            raise ConfigError(
                f"runtime.compile is true, and {method} does not run as compiled code; use runtime.compile=false."
            )


def compile_trunk(trunk: Trunk, images: Tensor) -> str | None:
    """Let the trunk run compiled code; or leave it as it is and say why: it cannot be cut, or gives other numbers."""
    expected = _pass(trunk, images)
    torch.compiler.reset()  # else what earlier measurements compiled counts against the limit, past which code runs as it is
    try:
        trunk.run_by(torch.compile(_cut(trunk)))
        same = all(map(_same, _pass(trunk, images), expected, (SAME, SAME_GRADIENT)))
        reason = None if same else "the compiled trunk gives another output or gradient"
    except Exception as error:  # tracing and compiling someone's model may raise anything
        reason = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
    if reason is not None:
        trunk.run_by(None)
    return reason


def _pass(trunk: Trunk, images: Tensor) -> tuple[Tensor, Tensor]:
    """The units and the input gradient of their sum."""
    inputs = images.detach().requires_grad_(True)
    units = trunk(inputs)
    return units.detach(), torch.autograd.grad(units.sum(), inputs)[0]


def _same(found: Tensor, expected: Tensor, allowed: float) -> bool:
    return found.shape == expected.shape and bool((found - expected).norm() <= allowed * expected.norm())


def _cut(trunk: Trunk) -> Callable[[Tensor], Any]:
    """The model from its input to the layer's call alone, from torch.fx; the model itself for its output."""
    from torchvision.models.feature_extraction import create_feature_extractor  # seconds, for the few runs that compile

    model: nn.Module = trunk.model
    if trunk.layer == OUTPUT:
        return lambda images: model(images)
    name = trunk.layer if trunk.call == 0 else f"{trunk.layer}_{trunk.call}"
    cut = create_feature_extractor(model, {name: "units"}, suppress_diff_warning=True)
    return lambda images: cut(images)["units"]
