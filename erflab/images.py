"""The images of a measurement: from their settings to a source of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from erflab.config import DatasetConfig, FolderConfig, ImagesConfig, NoiseConfig, PhotographsConfig
from erflab.errors import ConfigError, ImageError
from erflab.photographs import dataset_pictures, folder_pictures, open_dataset, packaged_photographs
from erflab.sources import Image, ImageSource, NoiseImages, PictureImages, TensorImages

__all__ = ["Image", "ImageSource", "NoiseImages", "PictureImages", "TensorImages", "as_source", "open_images"]


def as_source(images: object) -> ImageSource:
    """A tensor [N, K, H, W] of normalised images, or a source, as a source. Raises ImageError for anything else."""
    if isinstance(images, Tensor):
        return TensorImages(images)
    if not isinstance(images, ImageSource):
        raise ImageError(
            f"images are a {type(images).__name__}; give a tensor [N, K, H, W], normalised as the model wants it: torch.stack("
            "[...]). A folder or a dataset is read on the command line: images=folder, images=dataset."
        )
    return images


def open_images(config: ImagesConfig, *, size: tuple[int, int], allow: Sequence[str] = ()) -> ImageSource:
    """The images that `config` describes, `config.count` of them, each `size` = (height, width) px.

    Args:
        config: one of the subclasses of ImagesConfig; its own `size` is not read ("auto" has been resolved by now).
        size: (height, width) in px.
        allow: import prefixes that the user vouches for (`runtime.allow`).

    Raises:
        ImageError: see PictureImages; no such folder; no image in it; a dataset that gives something else than images.
        ConfigError: a negative seed; an import path that cannot be used.
    """
    if config.seed < 0:
        raise ConfigError(f"images.seed is {config.seed}; give an integer of at least 0.")
    if type(config) not in _OPENERS:
        raise ConfigError(
            f"images are described by {type(config).__name__}; choose photographs, noise, folder or dataset."
        )
    return _OPENERS[type(config)](config, size, allow)


def _open_photographs(config: PhotographsConfig, size: tuple[int, int], allow: Sequence[str]) -> ImageSource:
    pictures = packaged_photographs()
    # A photograph that a later version of its package drops is skipped and listed; the others still serve.
    return PictureImages("photographs", pictures, len(pictures), config, size, skip_unreadable=True)


def _open_noise(config: NoiseConfig, size: tuple[int, int], allow: Sequence[str]) -> ImageSource:
    return NoiseImages(config.count, config.channels, size, config.seed)


def _open_folder(config: FolderConfig, size: tuple[int, int], allow: Sequence[str]) -> ImageSource:
    pictures, ignored = folder_pictures(Path(str(config.path)).expanduser())
    skip = config.on_error == "skip"
    return PictureImages("folder", pictures, len(pictures), config, size, skip_unreadable=skip, ignored=ignored)


def _open_dataset(config: DatasetConfig, size: tuple[int, int], allow: Sequence[str]) -> ImageSource:
    dataset = open_dataset(config, allow)
    pictures = dataset_pictures(dataset, config)
    source = str(config._target_)
    return PictureImages(source, pictures, len(dataset), config, size, normalised=config.normalised)


_OPENERS: dict[type[ImagesConfig], Callable[[Any, tuple[int, int], Sequence[str]], ImageSource]] = {
    PhotographsConfig: _open_photographs,
    NoiseConfig: _open_noise,
    FolderConfig: _open_folder,
    DatasetConfig: _open_dataset,
}
