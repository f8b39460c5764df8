"""What captum's module hooks would miss in silence, found in a trace of the trunk.

Guided backpropagation and DeepLift change the backward pass of activation *modules*. captum does not see an activation that
is called as a function, and keeps one state a module, which a second run of the same module overwrites.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from torch import nn

from erflab.errors import MeasurementError
from erflab.target import OUTPUT, Trunk
from erflab.theory.graph import Graph, Node
from erflab.theory.trace import trace

Modules = tuple[type[nn.Module], ...]


def _aten(names: str) -> frozenset[str]:
    return frozenset(f"aten.{name}" for name in names.split())


RECTIFIERS = _aten(
    "relu clamp clamp_min hardtanh leaky_relu rrelu_with_noise threshold prelu _prelu_kernel elu celu selu gelu silu mish "
    "hardswish softplus maximum"
)
"""Activations that cut or damp negative values."""
NONLINEAR = RECTIFIERS | _aten(
    "sigmoid tanh hardsigmoid log_sigmoid_forward softmax _softmax max_pool2d_with_indices adaptive_max_pool2d amax max "
    "exp log pow sqrt rsqrt abs native_layer_norm native_group_norm"
)
"""Calls that are not linear in one operand."""
PRODUCTS = _aten("mul div bmm mm matmul")
"""Calls that are not linear where several operands depend on the input: gates, attention."""

_graphs: WeakKeyDictionary[Trunk, tuple[tuple[int, ...], Graph]] = WeakKeyDictionary()


def refuse_unhooked(
    trunk: Trunk, shape: tuple[int, ...], operations: frozenset[str], modules: Modules, method: str
) -> None:
    """Raise MeasurementError naming the first of these operations that runs outside these kinds of module.

    `shape` is that of the images, [B, K, H, W].
    """
    for node in _traced(trunk, shape).nodes:
        kind = type(trunk.get_submodule(node.module))
        if _is_one_of(node, operations) and kind not in modules:
            names = ", ".join(module.__name__ for module in modules)
            raise MeasurementError(
                f"{method} up to layer {trunk.layer!r}: {_own_name(node.module)} ({kind.__name__}) runs "
                f"{node.op.removeprefix('aten.')}, which captum would treat as plain gradient. It must be a module of its own "
                f"of the kind {names}; or choose attribution=integrated_gradients, which asks nothing of the network."
            )


def refuse_reused(trunk: Trunk, shape: tuple[int, ...], modules: Modules, method: str) -> None:
    """Raise MeasurementError naming the first module of these kinds that runs more than once."""
    for name, calls in _traced(trunk, shape).calls.items():
        kind = nn.Module if name == OUTPUT else type(trunk.get_submodule(name))
        if calls > 1 and kind in modules:
            raise MeasurementError(
                f"{method} up to layer {trunk.layer!r}: {_own_name(name)} ({kind.__name__}) runs {calls} times, and captum "
                "keeps one state a module. Give each use a module of its own; or choose attribution=integrated_gradients, "
                "which asks nothing of the network."
            )


def _is_one_of(node: Node, operations: frozenset[str]) -> bool:
    op = node.op.rstrip("_")
    return op in operations and (op not in PRODUCTS or len(set(node.operands)) > 1)


def _own_name(module: str) -> str:
    """The name in the user's model, of which the trunk is the parent."""
    name = module.removeprefix("model").removeprefix(".")
    return repr(name) if name else "the model itself"


def _traced(trunk: Trunk, shape: tuple[int, ...]) -> Graph:
    """The trunk's graph at one image of this size, kept as long as the trunk."""
    single = (1, *shape[1:])
    if trunk not in _graphs or _graphs[trunk][0] != single:
        _graphs[trunk] = single, trace(trunk, single)
    return _graphs[trunk][1]
