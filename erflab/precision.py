"""How precise a measurement's products are, and what a lower precision than fp32 changes, seen on the first batch.

Parameters and images stay float32 (float64 for float64), maps are summed in float64: only products are rounded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from erflab.analysis.moments import moments
from erflab.attribution.base import Batch, Frame
from erflab.config import RuntimeConfig
from erflab.errors import MeasurementError
from erflab.flags import Flag

EXACT = ("float64", "fp32")
SIGMA_TOLERANCE = 0.001
"""Relative change of sigma below which auto takes bf16, and above which a chosen precision is flagged."""
BF16_UNITS = (8, 0)
"""CUDA capability (Ampere's) from which bf16 products are faster than fp32; older GPUs emulate them, slowly."""
COMPLETE = ("integrated_gradients", "deeplift")
"""Methods whose attributions must sum to the output's change: they run in fp32 where less was asked for."""

Maps = Callable[[Batch], list[Tensor]]
"""One map an image, [B, y, x], of each target."""


@contextlib.contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Products in this precision inside the block: TF32 for tf32 alone (it is often left on by accident and costs three
    digits), bf16 by autocast, which leaves sums, norms and the weights themselves in float32.
    """
    # Without its cache, which outlives a block inside a block: it would keep every batch, images and graph.
    lowered = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)
    with _tf32(precision == "tf32"), lowered:
        yield


@contextlib.contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """CuBLAS and cuDNN with TF32 inside the block, or without, whatever the user has set and by whichever switches.

    The older switches are read only where torch (before 2.9) has no others: after the newer ones were used that is an error.
    """
    newer = hasattr(torch.backends.cuda.matmul, "fp32_precision")
    name, wanted = ("fp32_precision", "tf32" if allowed else "ieee") if newer else ("allow_tf32", allowed)
    cudnn: Any = torch.backends.cudnn
    switches = [torch.backends.cuda.matmul, *((cudnn.conv, cudnn.rnn) if newer else (cudnn,))]
    before = [getattr(switch, name) for switch in switches]
    for switch in switches:
        setattr(switch, name, wanted)
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            setattr(switch, name, value)


@dataclass(frozen=True)
class Audit:
    """What a precision changes on the first batch, relative to fp32: the mean map (L2 norm) and its sigma.

    sigma: None where one of the two maps has no size.
    """

    map: float
    sigma: float | None

    @classmethod
    def of(cls, maps: Float[Tensor, "batch y x"], exact: Float[Tensor, "batch y x"], frame: Frame) -> Audit:
        """Compare maps with those in fp32."""
        lowered, full = maps.mean(0), exact.mean(0)
        norm = float(full.norm())
        sigma, true = _sigma(lowered, frame), _sigma(full, frame)
        return cls(
            float((lowered - full).norm()) / norm if norm else 0.0,
            None if sigma is None or not true else abs(sigma - true) / true,
        )

    @property
    def passes(self) -> bool:
        """Whether sigma moves by less than the tolerance."""
        return self.sigma is not None and self.sigma < SIGMA_TOLERANCE

    def __str__(self) -> str:
        moved = "unknown" if self.sigma is None else f"{self.sigma:.2%}"
        return f"sigma by {moved}, map by {self.map:.2%}"


@dataclass(frozen=True)
class Precision:
    """The precision that one method runs in, with an audit of each target where it is, or was to be, below fp32."""

    name: str
    device: torch.device
    tried: str | None = None
    audits: tuple[Audit, ...] = ()

    def maps(self, compute: Maps, batch: Batch) -> list[Tensor]:
        """The maps of a batch in this precision."""
        with arithmetic(self.name, self.device):
            return compute(batch)

    def state(self) -> dict[str, Any]:
        """What was decided, and the audits that it was decided by."""
        return {"name": self.name, "tried": self.tried, "audits": [asdict(audit) for audit in self.audits]}

    @classmethod
    def restored(cls, state: Mapping[str, Any], device: torch.device) -> Precision:
        """What a `state` says, on this device."""
        return cls(state["name"], device, state["tried"], tuple(Audit(**audit) for audit in state["audits"]))

    def about(self, place: int) -> dict[str, Any]:
        """What to note beside the map of a target, ready for NetCDF."""
        found: dict[str, Any] = {"precision": self.name}
        if self.audits:
            audit = self.audits[place]
            found |= {"audited_precision": str(self.tried), "precision_map_change": audit.map}
            found |= {} if audit.sigma is None else {"precision_sigma_change": audit.sigma}
        return found

    def flags(self, method: str, place: int) -> tuple[Flag, ...]:
        """That auto fell back to fp32, or that a chosen precision moves sigma."""
        if self.tried not in (None, self.name):
            worst = next(audit for audit in self.audits if not audit.passes)
            return (Flag("precision_fallback", method, f"{self.tried} moves {worst}"),)
        moved = bool(self.audits) and not self.audits[place].passes
        return (Flag("low_precision", method, f"{self.name} moves {self.audits[place]}"),) if moved else ()


def exact_precision(method: str, runtime: RuntimeConfig, device: torch.device) -> Precision | None:
    """The precision that a method runs in where nothing below fp32 is to be tried; None where it is."""
    name = _tried(runtime, device)
    if name in EXACT or method in COMPLETE:
        return Precision(name if name in EXACT else "fp32", device)
    return None


def audited_maps(
    runtime: RuntimeConfig, device: torch.device, compute: Maps, batch: Batch, frames: Sequence[Frame]
) -> tuple[Precision, list[Tensor]]:
    """The precision to run in, below fp32 if that passes, and the maps of the first batch, which is run in fp32 too.

    auto is fp32 on a CPU; on CUDA with bf16 units it is bf16 if that passes for every target.
    """
    name = _tried(runtime, device)
    full = Precision("fp32", device).maps(compute, batch)
    maps = Precision(name, device).maps(compute, batch)
    audits = tuple(Audit.of(*pair) for pair in zip(maps, full, frames, strict=True))
    taken = "fp32" if runtime.products == "auto" and falls_back(audits) else name
    return Precision(taken, device, name, audits), full if taken == "fp32" else maps


def _tried(runtime: RuntimeConfig, device: torch.device) -> str:
    if runtime.products != "auto":
        return runtime.products
    return "bf16" if device.type == "cuda" and torch.cuda.get_device_capability(device) >= BF16_UNITS else "fp32"


def falls_back(audits: Sequence[Audit]) -> bool:
    """Whether auto measures in fp32, since some target's sigma moves too far."""
    return not all(audit.passes for audit in audits)


def _sigma(map: Float[Tensor, "y x"], frame: Frame) -> float | None:
    labelled = xr.DataArray(map.cpu().numpy(), {"y": list(frame.y), "x": list(frame.x)}, ("y", "x"))
    try:
        return moments(labelled).sigma
    except MeasurementError:
        return None
