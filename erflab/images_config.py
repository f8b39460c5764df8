"""The settings of images: how many, of what size, and what each source needs beside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from erflab.errors import ConfigError
from erflab.settings import at_least, one_of, option, pair

FITS = ("crop", "reflect", "resize")


@dataclass
class ImagesConfig:
    """Which images. The subclasses name the source."""

    count: int = option(64, "number of images (crops) to measure over")
    size: Any = option(
        "auto",
        "input size in px: a number, [height, width], or auto: the smallest multiple of the total stride in which the "
        "unit's theoretical field lies unclipped, up to size_limit",
    )
    size_limit: int = option(512, "largest size in px that auto may pick; a larger or global field gets fallback_size")
    fallback_size: int = option(224, "size in px that auto takes when no unclipped size exists below size_limit")
    seed: int = option(0, "seed of crops and noise; each image is keyed by (seed, index)")

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least("images.count", self.count, 1)
        at_least("images.size_limit", self.size_limit, 1)
        at_least("images.fallback_size", self.fallback_size, 1)
        for value in pair("images.size", self.size) or [self.size]:
            at_least("images.size", value, 1, or_word="auto")

    def size_or(self, stated: tuple[int, int] | None) -> tuple[int, int]:
        """The size in px as (height, width); where it is auto, the one stated for the model, else fallback_size."""
        if self.size == "auto":
            return stated or (self.fallback_size, self.fallback_size)
        return pair("images.size", self.size) or (int(self.size), int(self.size))


@dataclass
class PhotographsConfig(ImagesConfig):
    """The colour photographs that come with scikit-image, scikit-learn and matplotlib, as native-resolution crops."""

    fit: str = option(
        "crop", "photographs smaller than the crop: crop leaves them out, reflect extends, resize enlarges"
    )

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        one_of("images.fit", self.fit, FITS)


@dataclass
class NoiseConfig(ImagesConfig):
    """White Gaussian noise, mean 0 and variance 1 in the model's normalised units."""

    channels: int = option(3, "number of input channels")

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        at_least("images.channels", self.channels, 1)


@dataclass
class FolderConfig(PhotographsConfig):
    """Every image below a folder, in any format that Pillow reads."""

    path: str | None = option(None, "the folder; searched recursively")
    on_error: str = option("raise", "an unreadable image: raise stops and names it, skip counts and lists it")

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        one_of("images.on_error", self.on_error, ("raise", "skip"))
        if self.path is None:
            raise ConfigError("images.path is missing; give the folder: images=folder images.path=DIR.")


@dataclass
class DatasetConfig(PhotographsConfig):
    """Any torch Dataset by import path; items are images (tensor or PIL) or tuples that begin with one."""

    _target_: str | None = option(None, "import path of the Dataset class or factory (see runtime.allow)")
    arguments: dict[str, Any] = option({}, "keyword arguments for it")
    normalised: bool = option(False, "whether its tensors are normalised already (else they are in [0, 1])")

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if self._target_ is None:
            raise ConfigError(
                "images._target_ is missing; give the import path: images=dataset images._target_=pkg.Data."
            )
