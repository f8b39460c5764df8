"""Two repairs of captum's DeepLift for the time of one call: max-pooling, and activations that follow one another directly.

captum's rule for max-pooling keeps one of several windows that share a maximum (3 x 3 with stride 2 shares most). And where one
hooked module feeds another with nothing between (ReLU, then pooling), the first reads its gradient before the second has
changed it, so that the second's rule is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

HOOKED = (nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.MaxPool2d)
"""The kinds of module whose rules hold. captum's for softmax mixes the images of a batch and is left out."""


@contextmanager
def repaired(trunk: nn.Module) -> Iterator[None]:
    """Within the block captum's DeepLift of `trunk` is right for pooling and for activations in sequence."""
    handles = [m.register_forward_pre_hook(_own_input) for m in trunk.modules() if type(m) in HOOKED]
    theirs = SUPPORTED_NON_LINEAR[nn.MaxPool2d]
    SUPPORTED_NON_LINEAR[nn.MaxPool2d] = max_pool_rule
    try:
        yield
    finally:
        SUPPORTED_NON_LINEAR[nn.MaxPool2d] = theirs
        for handle in handles:
            handle.remove()


def _own_input(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """A tensor apart from the previous module's output, so that the hooks on the two run one after the other."""
    return tuple(x.clone() for x in inputs)


def max_pool_rule(
    module: nn.MaxPool2d,
    inputs: Float[Tensor, "two_batch c y x"],
    outputs: Float[Tensor, "two_batch c rows columns"],
    grad_input: Tensor,
    grad_output: Tensor,
    eps: float = 1e-10,
) -> Float[Tensor, "two_batch c y x"]:
    """The multipliers of max-pooling's inputs, from those of its outputs; images stand first and baselines second.

    Of a window's change the rise above the baseline's maximum goes to the image's largest pixel, the fall below it to the
    baseline's (the rule of SHAP's DeepExplainer, Lundberg and Lee 2017); shares of overlapping windows add.
    """
    (top, reference), (x, b) = outputs.chunk(2), inputs.chunk(2)
    larger = torch.maximum(top, reference)
    given = grad_output * torch.cat([larger - reference, top - larger])
    geometry = (module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)
    _, where = max_pool2d(inputs, *geometry, return_indices=True)
    shares = torch.zeros_like(inputs).flatten(2).scatter_add_(2, where.flatten(2), given.flatten(2)).view_as(inputs)
    share, change = sum(shares.chunk(2)), x - b
    return torch.where((change.abs() < eps).repeat(2, 1, 1, 1), grad_input, (share / change).repeat(2, 1, 1, 1))
