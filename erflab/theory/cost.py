"""What a layer costs: the parameters and the floating-point operations of the forward pass that ends with it."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from erflab.errors import TheoryError
from erflab.theory.runs import image_shape


@dataclass(frozen=True)
class Cost:
    """parameters: of all modules entered so far, shared ones once. flops: of one image, two a multiply-add."""

    parameters: int
    flops: int


def layer_costs(
    model: nn.Module, input_size: tuple[int, int] = (224, 224), channels: int | None = None
) -> dict[str, Cost]:
    """What each layer costs together with all that runs before it, by module name, in the order in which they end.

    Operations are those that torch's FlopCounterMode counts: convolutions, matrix products and attention. The model is run
    once in eval mode on shapes alone; of a module that runs several times the last run counts.

    Args:
        model: left as it is.
        input_size: (height, width) of the image in px.
        channels: of the image; by default those of the model's first convolution.

    Raises:
        TheoryError: if the model does not run at this size, or not without data.
    """
    shape = image_shape(model, input_size, channels)
    shapes = copy.deepcopy(model).to("meta").eval()
    found: dict[str, Cost] = {}
    used: dict[int, int] = {}  # elements of each parameter
    with FlopCounterMode(display=False) as counter, ExitStack() as hooks, torch.no_grad():

        def enter(module: nn.Module, _: Any) -> None:
            used.update({id(parameter): parameter.numel() for parameter in module.parameters(recurse=False)})

        def leave(name: str) -> Any:
            def end(*_: Any) -> None:
                found.pop(name, None)
                found[name] = Cost(sum(used.values()), counter.get_total_flops())

            return end

        for name, module in shapes.named_modules():
            hooks.callback(module.register_forward_pre_hook(enter).remove)
            hooks.callback(module.register_forward_hook(leave(name)).remove)
        try:
            shapes(torch.empty(shape, device="meta"))
        except Exception as error:  # a model may raise anything
            raise TheoryError(f"the model does not run on shapes of {input_size} px alone: {error}") from error
    found.pop("", None)
    return found
