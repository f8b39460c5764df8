"""Where pictures come from: the photographs that other packages ship, a folder, a torch Dataset."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from PIL import Image as Pillow
from torch import Tensor

from erflab.config import DatasetConfig
from erflab.errors import ImageError
from erflab.imports import import_object
from erflab.pictures import Picture, check_pixels, decode, file_sha256, from_pillow, pixels_sha256

# (package, folder in it, file, scene): colour photographs of real scenes. The two motorcycles are one stereo pair, and
# count as one scene when errors are estimated.
PACKAGED = (
    ("skimage", "data", "astronaut.png", "astronaut"),
    ("skimage", "data", "chelsea.png", "chelsea"),
    ("sklearn", "datasets/images", "china.jpg", "china"),
    ("skimage", "data", "coffee.png", "coffee"),
    ("sklearn", "datasets/images", "flower.jpg", "flower"),
    ("matplotlib", "mpl-data/sample_data", "grace_hopper.jpg", "grace_hopper"),
    ("skimage", "data", "hubble_deep_field.jpg", "hubble_deep_field"),
    ("skimage", "data", "ihc.png", "ihc"),
    ("skimage", "data", "motorcycle_left.png", "motorcycle"),
    ("skimage", "data", "motorcycle_right.png", "motorcycle"),
    ("skimage", "data", "retina.jpg", "retina"),
    ("skimage", "data", "rocket.jpg", "rocket"),
)

# Formats that Pillow recognises by their first bytes but cannot decode by itself.
_STUBS = frozenset({"BUFR", "GRIB", "HDF5", "MPEG"})


def packaged_photographs() -> list[Picture]:
    """The colour photographs that come with scikit-image, scikit-learn and matplotlib, in alphabetical order.

    Reading one that the installed version of its package no longer ships raises ImageError.
    """
    paths = [_package_folder(package) / folder / file for package, folder, file, _ in PACKAGED]
    return [
        Picture(path.name, scene, partial(decode, path, path.name), partial(file_sha256, path))
        for path, (*_, scene) in zip(paths, PACKAGED, strict=True)
    ]


def folder_pictures(folder: Path) -> tuple[list[Picture], int]:
    """The images below `folder`, sorted by their path in it, and the number of other files.

    Whether a file is an image is told by its suffix: one that Pillow can decode. Each image is a scene of its own.

    Raises:
        ImageError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise ImageError(f"images.path is {str(folder)!r}, and there is no such folder.")
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    suffixes = image_suffixes()
    names = sorted(name for name, path in files.items() if path.suffix.lower() in suffixes)
    if not names:
        raise ImageError(
            f"images.path is {str(folder)!r}, which holds no image ({len(files)} other files); "
            "give a folder with .png, .jpg, .tif or other images that Pillow reads."
        )
    pictures = [Picture(n, n, partial(decode, files[n], n), partial(file_sha256, files[n])) for n in names]
    return pictures, len(files) - len(names)


def image_suffixes() -> set[str]:
    """Lower-case suffixes of the formats that Pillow can decode, ".png" and so on."""
    formats = Pillow.registered_extensions()
    return {suffix for suffix, format in formats.items() if format in Pillow.OPEN and format not in _STUBS}


def open_dataset(config: DatasetConfig, allow: Sequence[str]) -> Any:
    """The dataset that `config._target_` names, made with `config.arguments`.

    Raises:
        ConfigError: an import path that cannot be used.
        ImageError: the dataset cannot be made, is empty, or has no length and items.
    """
    make = import_object(str(config._target_), allow=allow, setting="images._target_")
    try:
        dataset = make(**config.arguments)
    except Exception as error:  # a dataset's constructor may raise anything
        reason = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
        raise ImageError(
            f"dataset {config._target_!r} cannot be made with images.arguments={dict(config.arguments)} ({reason})."
        ) from error
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise ImageError(
            f"dataset {config._target_!r} gave a {type(dataset).__name__}; it needs a length and items by index."
        )
    if len(dataset) == 0:
        raise ImageError(f"dataset {config._target_!r} is empty; check images.arguments={dict(config.arguments)}.")
    return dataset


def dataset_pictures(dataset: Any, config: DatasetConfig) -> Iterator[Picture]:
    """The items of `dataset` in order, each a scene of its own. Items that are no images raise ImageError when read."""
    for index in range(len(dataset)):
        read = partial(_item_pixels, dataset, index, config)
        yield Picture(f"item-{index}", f"item-{index}", read, partial(_hashed, read))


def _hashed(read: Callable[[], Tensor]) -> str:
    return pixels_sha256(read())


def _item_pixels(dataset: Any, index: int, config: DatasetConfig) -> Shaped[Tensor, "K H W"]:
    """Item `index` as the pixels of a picture."""
    try:
        # Random transforms draw from torch's global generator: keyed by item, a picture is the same at every reading.
        with torch.random.fork_rng(devices=[]):
            key = np.random.SeedSequence([config.seed, index]).generate_state(1)
            torch.default_generator.manual_seed(int(key[0]))
            pixels = _as_tensor(dataset[index])
        check_pixels(pixels, normalised=config.normalised)
    except Exception as error:  # a dataset may raise anything
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ImageError(f"item {index} of the dataset cannot be used: {kind}{error}.") from error
    return pixels if pixels.dtype == torch.uint8 else pixels.float()


def _as_tensor(item: Any) -> Shaped[Tensor, "K H W"]:
    """The image in an item, which may be labelled: the first of a tuple."""
    image = item[0] if isinstance(item, (tuple, list)) and len(item) else item
    if isinstance(image, Pillow.Image):
        return from_pillow(image)
    if isinstance(image, Tensor) and image.ndim == 3 and image.numel():
        return image.detach().cpu()
    seen = f"a tensor of shape {list(image.shape)}" if isinstance(image, Tensor) else f"of type {type(image).__name__}"
    raise ValueError(f"it is {seen}; items must be a tensor [K, H, W], a PIL image, or a tuple that begins with one")


def _package_folder(package: str) -> Path:
    # Looked up, not imported: importing scikit-learn for two photographs takes a second.
    spec = importlib.util.find_spec(package)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else Path(package)
