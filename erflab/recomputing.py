"""Activations that the backward pass computes again instead of keeping them: memory for large inputs whose field is global.

Blocks of the model keep their inputs alone (activation checkpointing, Chen et al. 2016, arXiv:1604.06174). The numbers are the
same, bit for bit, as the same operations run on the same tensors; a pass takes about a third longer.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import CheckpointError, checkpoint

from erflab.aiming import Target
from erflab.attribution.methods import HOOKING
from erflab.config import RuntimeConfig
from erflab.errors import ConfigError, MeasurementError

LARGE = 2**22
"""Px computed of an image above which runtime.recompute=auto recomputes: eager ResNet-50 keeps about 4 kB a pixel."""

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def recomputing(method: str, targets: Sequence[Target], runtime: RuntimeConfig) -> AbstractContextManager[None]:
    """Inside the block gradients at the targets keep few activations, where what is computed of an image is large.

    Raises ConfigError where that was asked for and cannot be done.
    """
    if not recompute_wanted(runtime, method, targets[0].computed_size):
        return nullcontext()
    model, layers = targets[0].trunk.model, [target.trunk.layer for target in targets]
    if runtime.recompute is True:
        refuse_unrecomputed(method, model, layers)
    return recomputed(model, layers)


def refuse_unrecomputed(method: str, model: nn.Module, layers: Collection[str]) -> None:
    """Raise ConfigError for a method that does not run so, and for a model without blocks."""
    if method in HOOKING:
        raise ConfigError(
            f"runtime.recompute is true, and {method} hooks modules, which would run twice; use runtime.recompute=auto."
        )
    if not blocks(model, layers):
        raise ConfigError(
            f"runtime.recompute is true, and before {', '.join(layers)} is no block of several modules whose activations could "
            "be computed again; use runtime.recompute=false and smaller images."
        )


def recompute_wanted(runtime: RuntimeConfig, method: str, size: Collection[int]) -> bool:
    """Whether a method recomputes on images of which this height and width (px) are computed."""
    if runtime.recompute != "auto":
        return bool(runtime.recompute)
    return math.prod(size) > LARGE and method not in HOOKING and not runtime.compile


def blocks(model: nn.Module, layers: Collection[str]) -> dict[str, nn.Module]:
    """The largest modules made of several, by name, that lie around none of the layers and are no lists of such modules."""
    found: dict[str, nn.Module] = {}
    named = dict(model.named_modules())
    read = {named[layer] for layer in layers if layer in named}  # which may also lie in a block of another name
    for name, module in named.items():
        inside = any(name.startswith(f"{block}.") for block in found)
        around = not name or any(part in read for part in module.modules() if part is not module)
        if not inside and not around and _is_block(module):
            found[name] = module
    return found


def _is_block(module: nn.Module) -> bool:
    nested = [any(True for _ in part.children()) for part in module.children()]
    return bool(nested) and not (type(module) in CONTAINERS and any(nested))


@contextlib.contextmanager
def recomputed(model: nn.Module, layers: Collection[str]) -> Iterator[None]:
    """Inside the block gradients of the model keep no activations inside of its `blocks`.

    A backward pass raises MeasurementError for a block whose input is changed in place, or that runs otherwise the second time.
    """
    chosen = blocks(model, layers)
    own = {name: vars(module).get("forward") for name, module in chosen.items()}
    for name, module in chosen.items():
        module.forward = partial(_again, name, module.forward)
    try:
        yield
    except CheckpointError as error:
        raise MeasurementError(
            f"a block of the model runs otherwise when it is computed again ({str(error).splitlines()[0]}); use "
            "runtime.recompute=false and smaller images."
        ) from error
    finally:
        for name, module in chosen.items():
            if (forward := own[name]) is None:
                del module.forward
            else:
                module.forward = forward


def _again(name: str, forward: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    given = [leaf for leaf in tree_leaves((arguments, named)) if isinstance(leaf, Tensor)]
    versions = [tensor._version for tensor in given]

    def run() -> Any:
        # What is kept must be what the block was given, which not every version of torch looks at.
        if [tensor._version for tensor in given] != versions:
            raise MeasurementError(
                f"the input of {name!r} is changed in place, so that its activations cannot be computed again; use "
                "runtime.recompute=false and smaller images."
            )
        return forward(*arguments, **named)

    return checkpoint(run, use_reentrant=False)
