"""Channels-last memory: faster convolutions (twice on a CPU), where the model runs in it and gives the same outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from erflab.config import RuntimeConfig
from erflab.errors import ConfigError
from erflab.target import Trunk, read_together

SAME = 1e-3
"""Largest difference of outputs, over their largest value, that reordered float32 sums explain."""


def channels_last_wanted(module: nn.Module, runtime: RuntimeConfig, device: torch.device) -> bool:
    """Whether to try: auto does for float32 convolutions on a CPU, and on CUDA where tensor cores may be used."""
    if runtime.channels_last != "auto":
        return bool(runtime.channels_last)
    faster = runtime.products not in (("float64",) if device.type == "cpu" else ("float64", "fp32"))
    return faster and any(isinstance(part, nn.Conv2d) for part in module.modules())


def to_channels_last(module: nn.Module, trunks: Sequence[Trunk], images: Tensor, *, required: bool) -> bool:
    """Put the weights in channels-last order if the trunks then give the same outputs; say whether they do.

    Raises ConfigError if it is required and they do not.
    """
    expected = _outputs(trunks, images)
    module.to(memory_format=torch.channels_last)
    try:
        found = _outputs(trunks, images.contiguous(memory_format=torch.channels_last))
        differing = [
            trunk.layer
            for trunk, a, b in zip(trunks, found, expected, strict=True)
            if a.shape != b.shape or not bool((a - b).abs().max() <= SAME * b.abs().max())
        ]
        reason = f"layer {differing[0]!r} gives another output" if differing else ""
    except RuntimeError as error:  # a view of a tensor in channels-last order may not be possible
        reason = str(error).split("\n")[0]
    if reason:
        module.to(memory_format=torch.contiguous_format)
        if required:
            raise ConfigError(f"runtime.channels_last is true, but the model does not run so: {reason}; use auto.")
    return not reason


def _outputs(trunks: Sequence[Trunk], images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return read_together(trunks, images, [torch.clone] * len(trunks))
