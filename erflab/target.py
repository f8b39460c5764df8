"""The target: a layer's output as a grid of units, and the trunk of the model that ends there."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from erflab.errors import TargetError, closest

OUTPUT = "(output)"  # the name under which the model's own output stands among its layers


@dataclass(frozen=True)
class Layout:
    """How a layer's output [B, ...] holds its grid of units.

    `kind` is "nchw" (channels first), "nhwc" (channels last) or "tokens" ([B, prefix + N, C], N = rows x columns in row
    order after `prefix` class or register tokens); `grid` the units per image axis, (rows, columns).
    """

    kind: str
    grid: tuple[int, ...]
    prefix: int = 0

    def fold(self, output: Tensor) -> Tensor:
        """The output as [B, C, *grid], without copying. Raises TargetError if its shape is another one."""
        axes = len(self.grid)
        if self.kind == "tokens":
            if output.dim() == 3 and output.shape[1] == self.prefix + math.prod(self.grid):
                folded: Tensor = output[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)
                return folded
        elif output.dim() == axes + 2:
            folded = output if self.kind == "nchw" else output.movedim(-1, 1)
            if tuple(folded.shape[2:]) == self.grid:
                return folded
        raise TargetError(
            f"the layer's output has shape {tuple(output.shape)}, which is no {self.kind} grid of {self.grid} units"
            f"{f' after {self.prefix} tokens' if self.prefix else ''}. Set target.layout (and target.grid for tokens)."
        )


def token_layout(tokens: int, input_size: tuple[int, ...], grid: tuple[int, ...] | None = None) -> Layout | None:
    """The grid of a token sequence: the one given, else the one of the image's aspect ratio with the fewest prefix tokens."""
    if grid is not None:
        prefix = tokens - math.prod(grid)
        return Layout("tokens", grid, prefix) if prefix >= 0 else None
    if len(input_size) != 2:
        return Layout("tokens", (tokens,)) if len(input_size) == 1 else None
    height, width = input_size
    for prefix in range(min(17, tokens)):
        rows = round(math.sqrt((tokens - prefix) * height / width))
        if rows and (tokens - prefix) % rows == 0:
            columns = (tokens - prefix) // rows
            if rows * width == columns * height and rows * columns > 1:
                return Layout("tokens", (rows, columns), prefix)
    return None


def resolve_layer(layer: str, calls: Mapping[str, int]) -> tuple[str, int]:
    """The module and call that `layer` names, "name" (its last call) or "name:k", given how often each module runs.

    Raises TargetError with the closest names.
    """
    name, _, call = layer.rpartition(":") if re.search(r":\d+$", layer) else (layer, "", "")
    if name not in calls:
        raise TargetError(f"no layer {layer!r} among the {len(calls)} that the model runs.{closest(name, calls)}")
    if call and int(call) >= calls[name]:
        raise TargetError(
            f"layer {layer!r}: {name!r} runs {calls[name]} time(s); give {name}:0 to {name}:{calls[name] - 1}."
        )
    return name, int(call) if call else calls[name] - 1


class _StopForward(BaseException):
    """Carries the target's output out of the model's forward pass (no `except Exception` in a model may catch it)."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


class Trunk(nn.Module):
    """The model up to one layer's call: images [B, K, H, W] -> units [B, C, H', W'].

    The forward pass stops at the target. `tap` is an identity through which the folded output passes: the layer that
    captum attributes to (a hook that raises would lose captum's own).
    """

    def __init__(self, model: nn.Module, layer: str, call: int, layout: Layout, channel: int | None = None) -> None:
        super().__init__()
        modules = dict(model.named_modules())
        if layer != OUTPUT and layer not in modules:
            raise TargetError(f"no layer {layer!r} in the model.{closest(layer, modules)}")
        self.model, self.layer, self.layout, self.channel = model, layer, layout, channel
        self.tap = nn.Identity()
        self.call = call
        self._other: Callable[[Tensor], Any] | None = None

    def run_by(self, other: Callable[[Tensor], Any] | None) -> None:
        """Let another function give the layer's output from the images, such as compiled code; None for the model itself."""
        self._other = other

    def with_layout(self, layout: Layout) -> Trunk:
        """The same trunk for images of another size."""
        return Trunk(self.model, self.layer, self.call, layout, self.channel)

    def forward(self, images: Tensor) -> Tensor:
        """Run the model to the target and return its units, the chosen channel only if one was chosen."""
        result: Tensor = self.tap(self.units(self._run(images)))
        return result

    def units(self, output: Any) -> Tensor:
        """What the layer returned, as units [B, C, H', W'], the chosen channel only if one was chosen.

        At least float32: what is computed from units, differences above all, is not rounded to half precision.
        """
        units = self.layout.fold(_first_tensor(output, self.layer))
        units = units.to(torch.promote_types(units.dtype, torch.float32))
        if self.channel is not None:
            if self.channel >= units.shape[1]:
                raise TargetError(
                    f"channel {self.channel} of layer {self.layer!r}, which has {units.shape[1]} channels."
                )
            units = units[:, self.channel : self.channel + 1]
        return units

    def _run(self, images: Tensor) -> Any:
        if self._other is not None:
            return self._other(images)
        if self.layer == OUTPUT:
            return self.model(images)

        def stop(output: Any) -> None:
            raise _StopForward(output)

        try:
            with self.on_output(stop):
                self.model(images)
        except _StopForward as stopped:
            return stopped.output
        raise self.not_reached()

    @contextmanager
    def on_output(self, act: Callable[[Any], None]) -> Iterator[None]:
        """Within the block, `act` is called with what the layer returns in its call; the hook goes with the block."""
        seen = [0]

        def hook(_: nn.Module, __: Any, output: Any) -> None:
            seen[0] += 1
            if seen[0] == self.call + 1:
                act(output)

        # Looked up, not kept: as a second child of the trunk it would get captum's hooks twice.
        module = self.model if self.layer == OUTPUT else self.model.get_submodule(self.layer)
        handle = module.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    def not_reached(self) -> TargetError:
        """The error for a forward pass without the layer's call."""
        return TargetError(f"call {self.call} of layer {self.layer!r} was not reached in the forward pass.")


def read_together(
    trunks: Sequence[Trunk], images: Tensor, readers: Sequence[Callable[[Tensor], Tensor]]
) -> list[Tensor]:
    """What each reader makes of its trunk's units [B, C, H', W'], from one forward pass, which ends when all have read.

    Readers run as soon as their layer has, so that nothing later can overwrite what they see in place.
    """
    found: dict[int, Tensor] = {}

    def reader(place: int) -> Callable[[Any], None]:
        def read(output: Any) -> None:
            found[place] = readers[place](trunks[place].units(output))
            if len(found) == len(trunks):
                raise _StopForward(None)

        return read

    with ExitStack() as hooks, suppress(_StopForward):
        for place, trunk in enumerate(trunks):
            hooks.enter_context(trunk.on_output(reader(place)))
        trunks[0].model(images)
    for place, trunk in enumerate(trunks):
        if place not in found:
            raise trunk.not_reached()
    return [found[place] for place in range(len(trunks))]


def _first_tensor(output: Any, layer: str) -> Tensor:
    """The tensor of a layer's output, or the first one of a tuple, list or dict."""
    while isinstance(output, (tuple, list, dict)) and output:
        output = next(iter(output.values())) if isinstance(output, dict) else output[0]
    if not isinstance(output, Tensor):
        raise TargetError(f"layer {layer!r} returns a {type(output).__name__}, not a tensor; choose another layer.")
    return output
