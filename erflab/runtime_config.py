"""The settings of a run: where and how it is computed, what it leaves, shows and refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from erflab.errors import ConfigError
from erflab.flags import FLAGS
from erflab.settings import at_least, one_of, option

PRECISIONS = ("auto", "fp32", "tf32", "bf16", "float64")
CROPS = ("auto", "off")
FIGURES = tuple("erf outlines sections radial residual spectrum comparison convergence depth grid areas".split())
"""The kinds of `plots.KINDS` that are drawn of one result; importing them would import more than a command line needs."""


@dataclass
class RuntimeConfig:
    """Where and how to run."""

    device: str = option("auto", "auto, cpu, cuda, cuda:N, or spread: each process of a parallel sweep its GPU")
    precision: str = option(
        "auto",
        "of products: fp32 (TF32 off), tf32, bf16, float64; auto: fp32 on a CPU, and on CUDA bf16 where the first batch "
        "shows that sigma moves by under 0.1 %, else fp32",
    )
    dtype: str = option("float32", "float32; or float64, as precision=float64")
    batch_size: Any = option(
        "auto", "images per batch, or auto; one that does not fit in memory is halved and repeated"
    )
    channels_last: Any = option(
        "auto",
        "true, false, or auto: channels-last memory where convolutions are faster in it and the outputs the same",
    )
    compile: bool = option(
        False, "compile the model up to the target with torch.compile; where it cannot be cut there, a flag says so"
    )
    crop: str = option(
        "auto", "auto: compute only the part of each image that the unit sees, where that is exact and pays; off"
    )
    recompute: Any = option(
        "auto",
        "true, false, or auto: of images of which more than 4 Mpx are computed keep the inputs of blocks of modules alone, "
        "and compute what is inside them again in the backward pass: less memory, the same numbers",
    )
    tolerance: float | None = option(
        None, "stop once SE(sigma) / sigma is below this, looked at after 64, 128, 256, ... images; default: all images"
    )
    checkpoint: float | None = option(
        60.0, "seconds between checkpoints, from which a run that was killed goes on; null or 0: none are written"
    )
    threads: int | None = option(None, "CPU threads; default: torch's choice (recorded in the result)")
    seed: int = option(0, "seed of the random signs")
    progress: bool = option(True, "show progress bars and the final table")
    figures: Any = option(
        True, f"true: maps, and sizes against depth; false; or a list of kinds to draw: {', '.join(FIGURES)}"
    )
    overwrite: bool = option(False, "measure anew where the directory holds a result, which is removed first")
    strict: bool = option(False, "end with an error if a flag was raised (the result is saved first)")
    accept: list[str] = option([], "flags that runtime.strict lets pass, such as [trf_global]")
    allow: list[str] = option([], "further package prefixes that model._target_ and images._target_ may name")

    def __post_init__(self) -> None:
        """Check ranges."""
        one_of("runtime.precision", self.precision, PRECISIONS)
        one_of("runtime.dtype", self.dtype, ("float32", "float64"))
        if self.dtype == "float64" and self.precision not in ("auto", "float64"):
            raise ConfigError(
                f"runtime.dtype is 'float64' and runtime.precision {self.precision!r}; set runtime.precision alone."
            )
        at_least("runtime.batch_size", self.batch_size, 1, or_word="auto")
        one_of("runtime.channels_last", self.channels_last, ("auto", True, False))
        one_of("runtime.crop", self.crop, CROPS)
        one_of("runtime.recompute", self.recompute, ("auto", True, False))
        if self.recompute is True and self.compile:
            raise ConfigError(
                "runtime.recompute and runtime.compile are true; compiled code keeps what it wants: choose one."
            )
        if self.threads is not None:
            at_least("runtime.threads", self.threads, 1)
        if self.checkpoint is not None and not 0 <= self.checkpoint < float("inf"):
            raise ConfigError(f"runtime.checkpoint is {self.checkpoint!r}; give seconds of at least 0, or null.")
        if not isinstance(self.figures, (bool, list, tuple)):
            raise ConfigError(f"runtime.figures is {self.figures!r}; give true, false or a list such as [erf,radial].")
        for kind in () if isinstance(self.figures, bool) else self.figures:
            one_of("runtime.figures", kind, FIGURES)
        for code in self.accept:
            one_of("runtime.accept", code, tuple(FLAGS))
        if self.tolerance is not None and not 0 < self.tolerance < 1:
            raise ConfigError(f"runtime.tolerance is {self.tolerance!r}; give a share between 0 and 1, such as 0.01.")

    @property
    def products(self) -> str:
        """The precision asked for: auto, fp32, tf32, bf16 or float64."""
        return "float64" if self.dtype == "float64" else self.precision
