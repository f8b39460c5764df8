import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from erflab.errors import ImageError
from erflab.pictures import RecentlyRead, check_pixels, cut, decode, file_sha256, fit_pixels, to_float

RAMP = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20  # 3 rows, 4 columns
COLOUR = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=-1)


def saved(tmp_path: Path, image: Pillow.Image, suffix: str = ".png", **options: object) -> torch.Tensor:
    """`image` by way of a file."""
    path = tmp_path / f"image{suffix}"
    image.save(path, **options)
    return decode(path, path.name)


def test_colour_is_rows_of_rgb(tmp_path: Path) -> None:
    pixels = saved(tmp_path, Pillow.fromarray(COLOUR))
    assert pixels.dtype == torch.uint8
    np.testing.assert_array_equal(pixels, COLOUR.transpose(2, 0, 1))


def test_grey_is_repeated(tmp_path: Path) -> None:
    np.testing.assert_array_equal(saved(tmp_path, Pillow.fromarray(RAMP)), np.stack([RAMP] * 3))


def test_alpha_is_dropped_not_blended(tmp_path: Path) -> None:
    rgba = np.dstack([COLOUR, RAMP])  # alpha from 0 to 220
    np.testing.assert_array_equal(saved(tmp_path, Pillow.fromarray(rgba)), COLOUR.transpose(2, 0, 1))


@pytest.mark.parametrize("options", [{}, {"transparency": bytes([0, 128, 255])}])
def test_palettes_are_looked_up(tmp_path: Path, options: dict[str, object]) -> None:
    paletted = Pillow.new("P", (3, 1))
    paletted.putdata([0, 1, 2])
    paletted.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    expected = np.eye(3, dtype=np.uint8).reshape(3, 1, 3) * 255
    np.testing.assert_array_equal(saved(tmp_path, paletted, **options), expected)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_keep_their_depth(tmp_path: Path, suffix: str) -> None:
    deep = np.array([[0, 1, 256], [32768, 65534, 65535]], dtype=np.uint16)
    pixels = saved(tmp_path, Pillow.fromarray(deep), suffix)
    assert pixels.dtype == torch.float32
    np.testing.assert_allclose(pixels, np.stack([deep / 65535] * 3), rtol=1e-6)


def test_float_images_are_taken_in_zero_to_one_only(tmp_path: Path) -> None:
    values = np.array([[0, 0.25], [0.5, 1]], dtype=np.float32)
    np.testing.assert_array_equal(saved(tmp_path, Pillow.fromarray(values), ".tif"), np.stack([values] * 3))
    with pytest.raises(ImageError, match=r"'image\.tif' cannot be read: mode F, values 0 to 3 times white, not 0 to 1"):
        saved(tmp_path, Pillow.fromarray(values * 3), ".tif")


def test_bilevel_images_are_black_and_white(tmp_path: Path) -> None:
    bits = np.array([[True, False]])
    np.testing.assert_array_equal(saved(tmp_path, Pillow.fromarray(bits)), np.stack([bits * 255] * 3))


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [(1, lambda a: a), (2, np.fliplr), (3, lambda a: np.rot90(a, 2)), (6, lambda a: np.rot90(a, -1)), (8, np.rot90)],
)
def test_orientation_is_respected(tmp_path: Path, orientation: int, turned: object) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    pixels = saved(tmp_path, Pillow.fromarray(RAMP), exif=exif)
    np.testing.assert_array_equal(pixels[0], turned(RAMP))


def test_unreadable_files_are_named_without_their_folder(tmp_path: Path) -> None:
    junk, broken = tmp_path / "junk.png", tmp_path / "broken.jpg"
    junk.write_bytes(b"no picture")
    Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(broken)
    broken.write_bytes(broken.read_bytes()[:2000])
    expected = {
        junk: "image 'junk.png' cannot be read: not an image that Pillow recognises.",
        broken: "image 'broken.jpg' cannot be read: image file is truncated",
        tmp_path / "gone.png": "image 'gone.png' cannot be read: No such file or directory.",
    }
    for path, text in expected.items():
        with pytest.raises(ImageError) as caught:
            decode(path, path.name)
        assert str(caught.value).startswith(text)
        assert str(tmp_path) not in str(caught.value)


def test_file_hash(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


SIDES = st.integers(1, 24)


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(["reflect", "resize"]))
def test_fitted_pictures_hold_the_crop(height: int, width: int, wanted_y: int, wanted_x: int, fit: str) -> None:
    pixels = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    fitted = fit_pixels(pixels, (wanted_y, wanted_x), fit)
    assert fitted.shape[1] >= wanted_y
    assert fitted.shape[2] >= wanted_x
    assert 0 <= to_float(fitted).min() <= to_float(fitted).max() <= 1
    if height >= wanted_y and width >= wanted_x:
        assert fitted is pixels
    elif fit == "reflect":
        assert fitted.shape[1:] == (max(height, wanted_y), max(width, wanted_x))


def test_reflection_mirrors_without_doubling_the_edge_as_often_as_needed() -> None:
    row = torch.tensor([[[0.0, 0.5, 1.0]]])
    assert fit_pixels(row, (1, 11), "reflect").tolist() == [[[0.0, 0.5, 1.0, 0.5, 0.0, 0.5, 1.0, 0.5, 0.0, 0.5, 1.0]]]


def test_enlarging_keeps_proportions_and_overall_look() -> None:
    pixels = torch.linspace(0, 1, 20).expand(3, 10, 20)
    fitted = fit_pixels(pixels, (25, 25), "resize")
    assert fitted.shape == (3, 25, 50)
    torch.testing.assert_close(fitted.mean(), pixels.mean(), rtol=1e-3, atol=0)
    assert (fitted.diff(dim=2) >= 0).all()


def test_cuts_reach_every_place_and_stay_inside() -> None:
    pixels = torch.arange(20.0).reshape(1, 4, 5)
    generator = np.random.default_rng(0)
    corners = {cut(pixels, (2, 3), generator)[0, 0, 0].item() for _ in range(200)}
    assert corners == {0.0, 1.0, 2.0, 5.0, 6.0, 7.0, 10.0, 11.0, 12.0}


@pytest.mark.parametrize(
    ("pixels", "normalised", "text"),
    [
        (torch.zeros(3, dtype=torch.int64), False, r"its type is torch\.int64; give floats or uint8"),
        (torch.zeros(3, dtype=torch.uint8), True, "said to be normalised, but holds bytes"),
        (torch.tensor([0.0, float("nan")]), True, "holds NaN"),
        (torch.tensor([-2.0, 2.5]), False, "values are -2 to 2.5, not 0 to 1; if they are normalised"),
    ],
)
def test_pixels_of_unclear_meaning_are_refused(pixels: torch.Tensor, normalised: bool, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        check_pixels(pixels, normalised=normalised)


@given(st.lists(st.integers(0, 9), max_size=40))
def test_kept_pictures_are_bounded_and_right(keys: list[int]) -> None:
    recent, reads = RecentlyRead(limit=3 * 4), []

    def read(key: int) -> torch.Tensor:
        reads.append(key)
        return torch.tensor([float(key)])

    for key in keys:
        assert recent.get(key, lambda key=key: read(key)).item() == key
        assert recent.nbytes <= recent.limit
    assert len(reads) >= len(set(keys))


def test_what_was_read_last_is_not_read_again_however_large() -> None:
    recent = RecentlyRead(limit=1)
    first = recent.get("a", lambda: torch.zeros(100))
    assert recent.get("a", lambda: pytest.fail("read twice")) is first
