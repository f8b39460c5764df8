"""Random signs and channels, keyed by image index: the same on every device, in every batch, in every process."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from erflab.hardware import upload

_MASK = 0xFFFFFFFF


def random_signs(
    seed: int, indices: Sequence[int], channels: int, draw: int = 0, device: torch.device | str = "cpu"
) -> Float[Tensor, "batch channels"]:
    """Signs in {-1, +1}, one row an image, from an integer hash of (seed, image index, draw, channel).

    The hash is the 32-bit finaliser of MurmurHash3 (Appleby, public domain), chained over the keys in int64 arithmetic.
    """
    channel = torch.arange(channels, dtype=torch.int64, device=device)[None, :]
    bits = _mix(_keyed(seed, indices, draw, device) ^ _mix(channel + 0x85EBCA77))
    return ((bits >> 15 & 1) * 2 - 1).to(torch.float32)


def random_channels(
    seed: int, indices: Sequence[int], channels: int, draw: int = 0, device: torch.device | str = "cpu"
) -> Float[Tensor, "batch channels"]:
    """One channel an image, drawn uniformly, at sqrt(C) among zeros, so that E v v^T = 1 as for signs; keyed as they are."""
    chosen = _mix(_keyed(seed, indices, draw, device) ^ 0x27D4EB2F) % channels
    return torch.zeros((len(indices), channels), device=device).scatter_(1, chosen, math.sqrt(channels))


def _keyed(seed: int, indices: Sequence[int], draw: int, device: torch.device | str) -> Tensor:
    """The hash's state for each image, [B, 1]."""
    image = upload(torch.tensor(list(indices), dtype=torch.int64), torch.device(device))[:, None]
    state = torch.full_like(image, seed & _MASK)
    for key in (
        torch.full_like(image, seed >> 32 & _MASK),
        image & _MASK,
        image >> 32 & _MASK,
        torch.full_like(image, draw),
    ):
        state = _mix(state ^ _mix(key + 0x9E3779B9))
    return state


def _mix(h: Tensor) -> Tensor:
    h = h & _MASK
    h = ((h ^ h >> 16) * 0x85EBCA6B) & _MASK
    h = ((h ^ h >> 13) * 0xC2B2AE35) & _MASK
    return h ^ h >> 16
