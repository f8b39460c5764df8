"""A source of images: noise, a tensor, or crops of pictures, all behind one interface.

Which pixels image `index` has follows from (seed, index) alone: not from batches, workers or the order of access.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from erflab.config import FolderConfig, PhotographsConfig
from erflab.errors import ImageError
from erflab.pictures import Picture, RecentlyRead, check_pixels, cut, fit_pixels, pixels_sha256, to_float

# Fewer independent pictures than this cannot give an error bar; where some were left out, that is worth an error.
LEAST_PICTURES = 4


@dataclass(frozen=True)
class Image:
    """One image: its index, its pixels (float32, [K, H, W]), and the scene it shows."""

    index: int
    pixels: Float[Tensor, "K H W"]
    scene: str


class ImageSource(ABC):
    """A sequence of images of one size.

    Attributes:
        normalised: True if the pixels are in the model's normalised units already, False if they are in [0, 1].
        concurrent: whether several threads may ask for images at once.
    """

    normalised: bool
    concurrent = False

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, index: int) -> Image:
        """Image `index`, 0 <= index < len; the same whenever it is asked for. Raises IndexError beyond."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return self._image(index)

    def __iter__(self) -> Iterator[Image]:
        return (self[index] for index in range(len(self)))

    def scene(self, index: int) -> str:
        """The scene that image `index` shows. Sources that know it without reading the image say so here."""
        return self[index].scene

    @abstractmethod
    def _image(self, index: int) -> Image: ...

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """What was used, ready for JSON, without absolute paths.

        `source`, `count`, `seed`, `fit`; `files`, each with name, scene, width and height in px, and sha256; `left_out`
        (too small) and `skipped` (unreadable), each with the reason; `ignored`, the number of files that are no images.
        """


class NoiseImages(ImageSource):
    """White Gaussian noise, mean 0 and variance 1 in the model's normalised units; every image a scene of its own."""

    normalised = True
    concurrent = True

    def __init__(self, count: int, channels: int, size: tuple[int, int], seed: int) -> None:
        self.shape = (channels, *size)
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def _image(self, index: int) -> Image:
        pixels = np.random.default_rng([self.seed, index]).standard_normal(self.shape, dtype=np.float32)
        return Image(index, torch.from_numpy(pixels), self.scene(index))

    def scene(self, index: int) -> str:
        """See `ImageSource.scene`."""
        return f"noise-{index}"

    def record(self) -> dict[str, Any]:
        """See `ImageSource.record`."""
        return _record("noise", self.count, self.seed)


class TensorImages(ImageSource):
    """The images of a tensor [N, K, H, W]; each a scene of its own.

    Args:
        tensor: floats in the model's normalised units; or, with normalised=False, floats in [0, 1] or uint8.
        normalised: see ImageSource.

    Raises:
        ImageError: not four-dimensional, empty, of another type, NaN, or (not normalised) outside [0, 1].
    """

    concurrent = True

    def __init__(self, tensor: Tensor, *, normalised: bool = True) -> None:
        if tensor.ndim != 4 or tensor.numel() == 0:
            raise ImageError(f"images have the shape {list(tensor.shape)}; give a tensor [N, K, H, W] with N >= 1.")
        try:
            check_pixels(tensor, normalised=normalised)
        except ValueError as error:
            raise ImageError(f"the tensor of images cannot be used: {error}.") from error
        self.tensor, self.normalised = tensor.detach(), normalised

    def __len__(self) -> int:
        return len(self.tensor)

    def _image(self, index: int) -> Image:
        return Image(index, to_float(self.tensor[index].cpu()).clone(), self.scene(index))

    def scene(self, index: int) -> str:
        """See `ImageSource.scene`."""
        return f"image-{index}"

    def record(self) -> dict[str, Any]:
        """See `ImageSource.record`; hashes are of the float32 pixels."""
        files = [
            {**_entry(image.scene, image.scene, image.pixels), "sha256": pixels_sha256(image.pixels)} for image in self
        ]
        return _record("tensor", len(self), None, files=files)


class PictureImages(ImageSource):
    """Crops of pictures: image `index` is a crop of usable picture `index % P`, at a place keyed by (seed, index).

    On opening, pictures are read in order until `max(count, 4)` usable ones are found: every one that will be needed
    has then been decoded in full, and hardly another, so that a folder of a million files costs what it uses. Which
    picture an image shows does not depend on `count`, as long as there are that many usable pictures.

    Args:
        source: name of the source, for the record.
        pictures: in their order; read lazily.
        total: how many there are.
        config: count, seed, fit (see `pictures.fit_pixels`; "crop" leaves out those smaller than `size`).
        size: (height, width) in px of every image.
        skip_unreadable: list unreadable pictures instead of raising.
        normalised: see ImageSource.
        ignored: files beside the pictures that were passed over, for the record.

    Raises:
        ImageError: an unreadable picture; fewer than four usable because others are too small; none usable.
    """

    def __init__(
        self,
        source: str,
        pictures: Iterable[Picture],
        total: int,
        config: PhotographsConfig,
        size: tuple[int, int],
        *,
        skip_unreadable: bool = False,
        normalised: bool = False,
        ignored: int = 0,
    ) -> None:
        self.source, self.config, self.size, self.normalised = source, config, size, normalised
        self._ignored, self._recent = ignored, RecentlyRead()
        self._usable: list[Picture] = []
        self._files: list[dict[str, Any]] = []
        self._left_out: list[dict[str, Any]] = []
        self._skipped: list[dict[str, Any]] = []
        self._survey(pictures, total, skip_unreadable)
        self._require_enough(total)

    def __len__(self) -> int:
        return self.config.count

    def _image(self, index: int) -> Image:
        picture = self._picture(index)
        pixels = self._recent.get(picture.name, partial(self._fitted, picture))
        crop = cut(pixels, self.size, np.random.default_rng([self.config.seed, index]))
        # A copy, since for floats the crop is still a view of what is kept.
        return Image(index, to_float(crop).clone(memory_format=torch.contiguous_format), picture.scene)

    def scene(self, index: int) -> str:
        """See `ImageSource.scene`."""
        return self._picture(index).scene

    def _picture(self, index: int) -> Picture:
        return self._usable[index % len(self._usable)]

    def record(self) -> dict[str, Any]:
        """See `ImageSource.record`."""
        return _record(
            self.source,
            self.config.count,
            self.config.seed,
            fit=self.config.fit,
            files=self._files[: self.config.count],
            left_out=self._left_out,
            skipped=self._skipped,
            ignored=self._ignored,
        )

    def _fitted(self, picture: Picture) -> Tensor:
        return fit_pixels(picture.read(), self.size, self.config.fit)

    def _survey(self, pictures: Iterable[Picture], total: int, skip_unreadable: bool) -> None:
        wanted = max(self.config.count, LEAST_PICTURES)
        # disable=None: a bar in a terminal only.
        with tqdm(total=min(total, wanted), desc="images", leave=False, disable=None if wanted > 64 else True) as bar:
            for picture in pictures:
                self._sort_in(picture, skip_unreadable)
                bar.update()
                if len(self._usable) == wanted:
                    return

    def _sort_in(self, picture: Picture, skip_unreadable: bool) -> None:
        try:
            pixels = picture.read()
        except ImageError as error:
            if not skip_unreadable:
                advice = " Remove it, or set images.on_error=skip." if isinstance(self.config, FolderConfig) else ""
                raise ImageError(f"{error}{advice}") from error
            self._skipped.append({"name": picture.name, "reason": str(error)})
            return
        entry = _entry(picture.name, picture.scene, pixels)
        short = any(have < wanted for have, wanted in zip(pixels.shape[1:], self.size, strict=True))
        if short and self.config.fit == "crop":
            why = f"smaller than the crop of {self.size[1]} x {self.size[0]} px"
            self._left_out.append({**entry, "why": why})
        else:
            self._usable.append(picture)
            self._files.append({**entry, "sha256": picture.sha256()})

    def _require_enough(self, total: int) -> None:
        height, width = self.size
        if self._left_out and len(self._usable) < LEAST_PICTURES:
            sizes = ", ".join(f"{e['name']} {e['width']} x {e['height']}" for e in self._files + self._left_out[:12])
            raise ImageError(
                f"only {len(self._usable)} of {total} pictures hold a crop of {width} x {height} px, and "
                f"{LEAST_PICTURES} are needed (width x height: {sizes}); set images.fit=reflect or images.fit=resize, "
                "or a smaller images.size."
            )
        if not self._usable:
            raise ImageError(f"none of {total} pictures can be read; the first: {self._skipped[0]['reason']}")


def _entry(name: str, scene: str, pixels: Tensor) -> dict[str, Any]:
    return {"name": name, "scene": scene, "width": pixels.shape[2], "height": pixels.shape[1]}


def _record(
    source: str,
    count: int,
    seed: int | None,
    *,
    fit: str | None = None,
    files: Sequence[dict[str, Any]] = (),
    left_out: Sequence[dict[str, Any]] = (),
    skipped: Sequence[dict[str, Any]] = (),
    ignored: int = 0,
) -> dict[str, Any]:
    listed = {"files": list(files), "left_out": list(left_out), "skipped": list(skipped), "ignored": ignored}
    return {"source": source, "count": count, "seed": seed, "fit": fit, **listed}
