"""One picture as an array: decoded the same way every time, fitted to a size, cut at a random place."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError
from torch import Tensor

from erflab.errors import ImageError


@dataclass(frozen=True)
class Picture:
    """A picture that can be read again and again.

    Attributes:
        name: unique in its collection; never an absolute path.
        scene: what it shows; pictures of one scene are not independent.
        read: gives the pixels, [K, H, W], as `to_float` takes them; raises ImageError.
        sha256: gives the hash of the file (of the pixels, where there is no file).
    """

    name: str
    scene: str
    read: Callable[[], Shaped[Tensor, "K H W"]]
    sha256: Callable[[], str]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pixels_sha256(pixels: Tensor) -> str:
    """SHA-256 of the type, shape and bytes of an array of pixels."""
    digest = hashlib.sha256(f"{pixels.dtype} {list(pixels.shape)}\n".encode())
    digest.update(pixels.contiguous().numpy().data)
    return digest.hexdigest()


def decode(path: Path, name: str) -> Shaped[Tensor, "3 H W"]:
    """The first frame of an image file, upright (EXIF), as RGB: uint8, or float32 in [0, 1] where the file is deeper.

    Grey is repeated, palettes are looked up, transparency is dropped. An error's message holds `name`, not the path.

    Raises:
        ImageError: missing, unreadable or truncated.
    """
    try:
        with Pillow.open(path) as image:
            return from_pillow(ImageOps.exif_transpose(image))
    except Exception as error:  # on damaged files Pillow's decoders raise nearly anything
        raise ImageError(f"image {name!r} cannot be read: {_reason(error)}.") from error


def from_pillow(image: Pillow.Image) -> Shaped[Tensor, "3 H W"]:
    """A Pillow image as RGB [3, H, W]: uint8, or float32 in [0, 1] for 16-bit, integer and float modes.

    Raises:
        ValueError: an integer image beyond 16 bits, or a float image outside [0, 1]: their white is unknown.
    """
    if image.mode.startswith(("I", "F")):
        deep = np.asarray(image).astype(np.float32) / (1 if image.mode == "F" else 65535)
        if not (deep.min() >= 0 and deep.max() <= 1):
            raise ValueError(f"mode {image.mode}, values {deep.min():g} to {deep.max():g} times white, not 0 to 1")
        return torch.from_numpy(np.repeat(deep[None], 3, axis=0))
    # By way of RGBA, since a palette's transparency would make the direct conversion warn.
    colour = image.convert("RGBA").convert("RGB") if image.mode in ("P", "PA", "La", "RGBa") else image.convert("RGB")
    return torch.from_numpy(np.array(colour, dtype=np.uint8)).permute(2, 0, 1)


def check_pixels(pixels: Tensor, *, normalised: bool) -> None:
    """Refuse what `to_float` would turn into something else than the image that was meant.

    Raises:
        ValueError: the type is neither uint8 nor floating; NaN; values outside [0, 1] where the pixels are not
            normalised; uint8, which cannot be normalised, where they are said to be.
    """
    if not (pixels.is_floating_point() or pixels.dtype == torch.uint8):
        raise ValueError(f"its type is {pixels.dtype}; give floats or uint8")
    if normalised and pixels.dtype == torch.uint8:
        raise ValueError("it is said to be normalised, but holds bytes; give floats, or normalised=false")
    low, high = (float(bound) for bound in pixels.aminmax())
    white = 255 if pixels.dtype == torch.uint8 else 1
    if low != low:
        raise ValueError("it holds NaN")
    if not normalised and not 0 <= low <= high <= white:
        raise ValueError(f"its values are {low:g} to {high:g}, not 0 to 1; if they are normalised, set normalised=true")


def _reason(error: Exception) -> str:
    """Why, in a few words without the file's absolute path (Pillow's and the system's messages hold it)."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow recognises"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip() or type(error).__name__


def to_float(pixels: Shaped[Tensor, "K H W"]) -> Float[Tensor, "K H W"]:
    """Float32 in [0, 1] from uint8; floats are only converted."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()


def fit_pixels(pixels: Shaped[Tensor, "K H W"], size: tuple[int, int], fit: str) -> Shaped[Tensor, "K h w"]:
    """`pixels` made at least `size` = (height, width) px large; as they are where they already are that large.

    Args:
        pixels: [K, H, W].
        size: least height and width, px.
        fit: "reflect" mirrors the picture at its edges, as often as needed; "resize" enlarges it, keeping its
            proportions (antialiased bicubic); "crop" leaves it as it is.
    """
    short = [max(0, wanted - have) for wanted, have in zip(size, pixels.shape[1:], strict=True)]
    if not any(short) or fit == "crop":
        return pixels
    if fit == "reflect":
        pads = [(0, 0), *((missing // 2, missing - missing // 2) for missing in short)]
        return torch.from_numpy(np.pad(pixels.numpy(), pads, mode="reflect"))
    scale = max(wanted / have for wanted, have in zip(size, pixels.shape[1:], strict=True))
    # max(): rounding must not leave the exact side one pixel short.
    larger = [max(wanted, round(have * scale)) for wanted, have in zip(size, pixels.shape[1:], strict=True)]
    batch = to_float(pixels)[None]
    resized = torch.nn.functional.interpolate(batch, larger, mode="bicubic", antialias=True, align_corners=False)
    return resized[0].clamp(batch.min(), batch.max())  # bicubic overshoots at edges


def cut(
    pixels: Shaped[Tensor, "K H W"], size: tuple[int, int], generator: np.random.Generator
) -> Shaped[Tensor, "K h w"]:
    """A crop of `size` = (height, width) px at a place drawn uniformly from all possible ones; a view."""
    y, x = (int(generator.integers(0, have - wanted + 1)) for wanted, have in zip(size, pixels.shape[1:], strict=True))
    return pixels[:, y : y + size[0], x : x + size[1]]


class RecentlyRead:
    """The pictures read last, up to `limit` bytes of them (and always the last one), so that memory has a bound."""

    def __init__(self, limit: int = 256 * 2**20) -> None:
        self.limit = limit
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()

    def get(self, key: Hashable, read: Callable[[], Tensor]) -> Tensor:
        """The picture kept under `key`, or the one that `read` gives."""
        pixels = self._kept.pop(key) if key in self._kept else read()
        self._kept[key] = pixels
        while self.nbytes > self.limit and len(self._kept) > 1:
            self._kept.popitem(last=False)
        return pixels

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return sum(pixels.nbytes for pixels in self._kept.values())
