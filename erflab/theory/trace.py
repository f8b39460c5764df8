"""One run of a model, recorded as a graph of ATen calls that the readings (box, support and energy) walk over.

The model really runs, under a dispatch mode, on `meta` tensors (shapes without data), so every model that runs can be
traced, at any input size and at no cost in memory. Only calls that touch a tensor which depends on the input are recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from erflab.errors import TheoryError
from erflab.target import OUTPUT
from erflab.theory.graph import Graph, Node, Value
from erflab.theory.recording.constants import Constants
from erflab.theory.recording.recorder import Interceptor, Recorder

__all__ = ["Graph", "Node", "Value", "trace"]


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


@contextmanager
def _state(model: nn.Module, *, meta: bool) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Within the block, the model's parameters and buffers stand on `meta` if wanted; given are pairs of (twin, own).

    Shared tensors stay shared. (`torch.func.functional_call` leaves the twins behind in some models with shared modules.)
    What a GPU holds is copied to the host, where everything is that is computed from it.
    """
    places = [(table, name, tensor) for table, name, tensor in _tensors_of(model) if tensor is not None]
    own = {id(tensor): tensor if tensor.is_meta else tensor.cpu() for _, _, tensor in places}
    twins = {key: tensor.detach().to("meta") if meta else tensor for key, tensor in own.items()}
    try:
        for table, name, tensor in places:
            table[name] = twins[id(tensor)]
        yield [(twins[id(tensor)], own[id(tensor)]) for _, _, tensor in places]
    finally:
        for table, name, tensor in places:
            table[name] = tensor


def _tensors_of(model: nn.Module) -> list[tuple[dict[str, Any], str, Tensor | None]]:
    """Where each parameter and buffer is kept: (dictionary, name, tensor)."""
    tables = [t for module in model.modules() for t in (module._parameters, module._buffers)]
    return [(table, name, tensor) for table in tables for name, tensor in table.items()]


@contextmanager
def _unfused() -> Iterator[None]:
    """Attention as matrix products, not as one fused call that hides them."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def trace(model: nn.Module, input_shape: tuple[int, ...], *, meta: bool = True) -> Graph:
    """Run `model` once on an input [B, K, *image axes] and record it.

    On `meta` tensors nothing is computed; with `meta=False` the model runs on zeros, for models that look at their data.
    The model must be in eval mode. A run that ends early (a layer that refuses this size) keeps what was recorded, with
    the exception in `failure`.
    """
    graph = Graph(Value(tuple(input_shape)))
    stack = [""]
    calls: Counter[str] = Counter()
    with torch.no_grad(), _unfused(), _state(model, meta=meta) as pairs:
        some = next((twin for twin, _ in pairs if twin.is_floating_point()), torch.empty(0))
        image = torch.zeros(input_shape, device="meta" if meta else some.device, dtype=some.dtype)
        recorder = Recorder(graph, image, stack, Constants(pairs))

        def keep(name: str, output: Any) -> None:
            value = recorder.value_of(output)
            if value is not None:
                graph.layers[name or OUTPUT, calls[name]] = value
                calls[name] += 1

        with _module_hooks(model, stack, keep), Interceptor(recorder), recorder:
            try:
                model(image)
            except TheoryError:
                raise
            except Exception as error:  # any model may raise anything at a size it does not take
                graph.failure = error
    return graph
