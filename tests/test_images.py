import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from torch.utils.data import Dataset

from erflab import photographs
from erflab.config import DatasetConfig, FolderConfig, ImagesConfig, NoiseConfig, PhotographsConfig
from erflab.errors import ConfigError, ImageError
from erflab.images import ImageSource, TensorImages, open_images
from erflab.photographs import packaged_photographs

SMALL = (64, 48)


def texture(height: int, width: int, seed: int = 0) -> Pillow.Image:
    return Pillow.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images in two levels, and two files that are none."""
    (tmp_path / "deep").mkdir()
    for number, name in enumerate(["b.png", "a.tif", "deep/c.PNG", "deep/a.bmp", "z.gif"]):
        texture(80, 70 + number, number).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "deep/table.csv").write_text("1,2")
    return tmp_path


def opened(path: Path, size: tuple[int, int] = SMALL, **settings: object) -> ImageSource:
    return open_images(FolderConfig(path=str(path), **settings), size=size)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def same(one: ImageSource, other: ImageSource) -> bool:
    return all(torch.equal(a.pixels, b.pixels) and a.scene == b.scene for a, b in zip(one, other, strict=True))


# --- what every source promises --------------------------------------------------------------------------------------


def sources(folder: Path) -> dict[str, Callable[[int, int], ImageSource]]:
    own = f"{__name__}.Random"
    return {
        "photographs": lambda n, seed: open_images(PhotographsConfig(count=n, seed=seed), size=SMALL),
        "noise": lambda n, seed: open_images(NoiseConfig(count=n, seed=seed), size=SMALL),
        "folder": lambda n, seed: opened(folder, count=n, seed=seed),
        "dataset": lambda n, seed: open_images(
            DatasetConfig(_target_=own, count=n, seed=seed), size=SMALL, allow=(__name__,)
        ),
    }


@pytest.mark.parametrize("name", ["photographs", "noise", "folder", "dataset"])
def test_pixels_follow_from_seed_and_index_alone(folder: Path, name: str) -> None:
    make = sources(folder)[name]
    source = make(13, 5)
    order = random.Random(0).sample(range(13), 13)
    shuffled = {index: source[index].pixels for index in order}
    assert same(source, make(13, 5))
    assert all(torch.equal(shuffled[image.index], image.pixels) for image in source)
    assert all(torch.equal(image.pixels, shuffled[image.index]) for image in make(8, 5))
    assert not any(torch.equal(image.pixels, shuffled[image.index]) for image in make(13, 6))


@pytest.mark.parametrize("name", ["photographs", "noise", "folder", "dataset"])
def test_images_are_float_and_of_the_size(folder: Path, name: str) -> None:
    source = sources(folder)[name](6, 0)
    state = torch.get_rng_state()
    for image in source:
        assert image.pixels.shape == (3, *SMALL)
        assert image.pixels.dtype == torch.float32
        assert image.pixels.is_contiguous()
        assert source.normalised or 0 <= image.pixels.min() <= image.pixels.max() <= 1
    assert torch.equal(torch.get_rng_state(), state)
    assert source.normalised == (name == "noise")
    with pytest.raises(IndexError, match="image 6 of 6"):
        source[6]


@pytest.mark.parametrize("name", ["photographs", "noise", "folder", "dataset"])
def test_changing_an_image_does_not_change_the_source(folder: Path, name: str) -> None:
    source = sources(folder)[name](2, 0)
    before = source[0].pixels.clone()
    source[0].pixels.zero_()
    assert torch.equal(source[0].pixels, before)


@pytest.mark.parametrize("name", ["photographs", "noise", "folder", "dataset"])
def test_records_are_json_without_paths(folder: Path, name: str) -> None:
    record = sources(folder)[name](3, 2).record()
    text = json.dumps(record, sort_keys=True)
    assert str(folder) not in text
    assert "site-packages" not in text
    assert (record["count"], record["seed"]) == (3, 2)
    assert set(record) == {"source", "count", "seed", "fit", "files", "left_out", "skipped", "ignored"}


def test_settings_that_fit_no_source() -> None:
    with pytest.raises(ConfigError, match=r"images\.seed is -1; give an integer of at least 0"):
        open_images(NoiseConfig(seed=-1), size=SMALL)
    with pytest.raises(ConfigError, match="described by ImagesConfig; choose photographs, noise, folder or dataset"):
        open_images(ImagesConfig(), size=SMALL)


# --- photographs -----------------------------------------------------------------------------------------------------


def test_all_packaged_photographs_are_there() -> None:
    pictures = packaged_photographs()
    sizes = {picture.name: tuple(picture.read().shape) for picture in pictures}
    assert len(sizes) == 12
    assert sizes["chelsea.png"] == (3, 300, 451)
    assert sizes["china.jpg"] == (3, 427, 640)
    assert sizes["grace_hopper.jpg"] == (3, 600, 512)
    assert [p.name for p in pictures] == sorted(sizes)
    assert len({p.scene for p in pictures}) == 11  # the motorcycles are one scene


def test_eleven_photographs_hold_the_main_jobs_crop() -> None:
    source = open_images(PhotographsConfig(count=64), size=(352, 352))
    record = source.record()
    assert len(record["files"]) == 11
    assert record["left_out"] == [
        {
            "name": "chelsea.png",
            "scene": "chelsea",
            "width": 451,
            "height": 300,
            "why": "smaller than the crop of 352 x 352 px",
        }
    ]
    assert (record["source"], record["fit"], record["skipped"]) == ("photographs", "crop", [])
    assert [image.scene for image in source] == [record["files"][index % 11]["scene"] for index in range(64)]


def test_crops_are_native_pixels_of_the_photograph() -> None:
    source = open_images(PhotographsConfig(count=1), size=SMALL)
    astronaut = packaged_photographs()[0].read().float() / 255
    windows = astronaut.unfold(1, SMALL[0], 1).unfold(2, SMALL[1], 1)
    matches = (windows[:, :, :, 0, 0] == source[0].pixels[:, None, None, 0, 0]).all(0).nonzero().tolist()
    assert any(torch.equal(windows[:, y, x], source[0].pixels) for y, x in matches)


def test_hashes_are_of_the_files() -> None:
    import skimage

    data = Path(skimage.__file__).parent / "data/astronaut.png"
    record = open_images(PhotographsConfig(count=1), size=SMALL).record()
    assert [entry["name"] for entry in record["files"]] == ["astronaut.png"]
    assert record["files"][0]["sha256"] == hashlib.sha256(data.read_bytes()).hexdigest()


def test_too_large_a_crop_offers_what_to_do() -> None:
    text = r"only 1 of 12 pictures hold a crop of 1024 x 1024 px.*retina\.jpg 1411 x 1411.*fit=reflect or .*fit=resize"
    with pytest.raises(ImageError, match=text):
        open_images(PhotographsConfig(), size=(1024, 1024))


@pytest.mark.parametrize("fit", ["reflect", "resize"])
def test_other_fits_use_every_photograph(fit: str) -> None:
    source = open_images(PhotographsConfig(count=12, fit=fit), size=(640, 640))
    assert len(source.record()["files"]) == 12
    assert source.record()["fit"] == fit
    assert source[1].pixels.shape == (3, 640, 640)


def test_a_photograph_no_longer_shipped_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = ("skimage", "data", "lost.png", "lost")
    monkeypatch.setattr(photographs, "PACKAGED", (lost, *photographs.PACKAGED))
    record = open_images(PhotographsConfig(count=4), size=SMALL).record()
    assert record["skipped"] == [
        {"name": "lost.png", "reason": "image 'lost.png' cannot be read: No such file or directory."}
    ]
    assert record["files"][0]["name"] == "astronaut.png"


# --- noise and tensors -----------------------------------------------------------------------------------------------


def test_noise_is_standard_normal() -> None:
    source = open_images(NoiseConfig(count=8, channels=5), size=(100, 100))
    pixels = torch.stack([image.pixels for image in source]).double()
    count = pixels.numel()
    assert pixels.shape == (8, 5, 100, 100)
    assert abs(pixels.mean()) < 4 / count**0.5
    assert abs(pixels.var() - 1) < 4 * (2 / count) ** 0.5
    assert [image.scene for image in source][:2] == ["noise-0", "noise-1"]


@given(st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_tensors_come_out_as_they_are(count: int, channels: int, normalised: bool) -> None:
    tensor = torch.rand(count, channels, 3, 4, dtype=torch.float64)
    source = TensorImages(tensor, normalised=normalised)
    assert (len(source), source.normalised) == (count, normalised)
    torch.testing.assert_close(torch.stack([image.pixels for image in source]), tensor.float())
    assert len({image.scene for image in source}) == count == len(source.record()["files"])


def test_bytes_are_scaled() -> None:
    source = TensorImages(torch.full((1, 3, 2, 2), 51, dtype=torch.uint8), normalised=False)
    torch.testing.assert_close(source[0].pixels, torch.full((3, 2, 2), 0.2))


def test_tensors_that_are_no_images() -> None:
    with pytest.raises(ImageError, match=r"have the shape \[3, 8, 8\]; give a tensor \[N, K, H, W\]"):
        TensorImages(torch.zeros(3, 8, 8))
    with pytest.raises(ImageError, match=r"the tensor of images cannot be used: .*holds bytes"):
        TensorImages(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


# --- folders ---------------------------------------------------------------------------------------------------------


def test_folders_are_searched_in_the_order_of_relative_paths(folder: Path) -> None:
    record = opened(folder, count=7).record()
    assert [entry["name"] for entry in record["files"]] == ["a.tif", "b.png", "deep/a.bmp", "deep/c.PNG", "z.gif"]
    assert record["files"][1]["sha256"] == hashlib.sha256((folder / "b.png").read_bytes()).hexdigest()
    assert (record["files"][0]["width"], record["files"][0]["height"]) == (71, 80)
    assert record["ignored"] == 2
    assert [image.scene for image in opened(folder, count=7)][5:] == ["a.tif", "b.png"]


def test_only_what_is_needed_is_read(folder: Path) -> None:
    truncate(folder / "z.gif")  # the fifth of five
    assert len(opened(folder, count=4).record()["files"]) == 4
    assert len(opened(folder, count=2).record()["files"]) == 2
    with pytest.raises(ImageError, match=r"'z\.gif' cannot be read"):
        opened(folder, count=5)


def test_unreadable_images_stop_or_are_listed(folder: Path) -> None:
    truncate(folder / "b.png")
    (folder / "deep/c.PNG").write_bytes(b"junk")
    with pytest.raises(ImageError, match=r"'b\.png' cannot be read: .*Remove it, or set images\.on_error=skip"):
        opened(folder)
    record = opened(folder, on_error="skip").record()
    assert [entry["name"] for entry in record["skipped"]] == ["b.png", "deep/c.PNG"]
    assert record["skipped"][1]["reason"] == "image 'deep/c.PNG' cannot be read: not an image that Pillow recognises."
    assert [entry["name"] for entry in record["files"]] == ["a.tif", "deep/a.bmp", "z.gif"]


def test_a_truncated_jpeg_is_named(tmp_path: Path) -> None:
    texture(300, 300).save(tmp_path / "photo.jpg")
    truncate(tmp_path / "photo.jpg")
    with pytest.raises(ImageError, match=r"'photo\.jpg' cannot be read: image file is truncated"):
        opened(tmp_path)
    with pytest.raises(ImageError, match=r"none of 1 pictures can be read; the first: image 'photo\.jpg'"):
        opened(tmp_path, on_error="skip")


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"holds no image \(0 other files\)"):
        opened(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ImageError, match=r"holds no image \(1 other files\); give a folder with \.png"):
        opened(tmp_path)
    with pytest.raises(ImageError, match="there is no such folder"):
        opened(tmp_path / "gone")


def test_small_images_of_a_folder(folder: Path) -> None:
    texture(20, 20).save(folder / "0_tiny.png")
    assert opened(folder).record()["left_out"][0]["name"] == "0_tiny.png"
    with pytest.raises(ImageError, match=r"only 0 of 6 pictures hold a crop of 90 x 90 px, .*0_tiny\.png 20 x 20"):
        opened(folder, (90, 90))
    assert opened(folder, (90, 90), fit="reflect")[0].pixels.shape == (3, 90, 90)


def test_one_large_image_is_enough(tmp_path: Path) -> None:
    texture(80, 80).save(tmp_path / "only.png")
    source = opened(tmp_path, count=3)
    assert {image.scene for image in source} == {"only.png"}
    assert not torch.equal(source[0].pixels, source[1].pixels), "crops are at places of their own"


def test_deep_and_grey_images_of_a_folder(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, SMALL, dtype=np.uint16)
    Pillow.fromarray(deep).save(tmp_path / "deep.png")
    pixels = opened(tmp_path, count=1)[0].pixels
    np.testing.assert_allclose(pixels, np.stack([deep / 65535] * 3), rtol=1e-6)


# --- datasets --------------------------------------------------------------------------------------------------------


class Random(Dataset):
    """Items drawn from torch's global generator, labelled."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.rand(3, 70, 60), index


class Items(Dataset):
    """Items of one kind."""

    def __init__(self, kind: str, count: int = 4) -> None:
        self.kind, self.count = kind, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> object:
        if self.kind == "fails":
            raise RuntimeError("no such item")
        return {
            "bytes": torch.full((3, 70, 60), 51, dtype=torch.uint8),
            "pil": (Pillow.new("L", (60, 70), 51), "label"),
            "half": torch.full((3, 70, 60), 0.2, dtype=torch.bfloat16),
            "normalised": torch.full((3, 70, 60), -1.5),
            "small": torch.full((1, 28, 28), 0.2),
            "flat": torch.zeros(70, 60),
            "integers": torch.zeros(3, 70, 60, dtype=torch.int64),
            "words": "an image",
            "nothing": (),
            "white unknown": Pillow.new("F", (60, 70), 3.0),
        }[self.kind]


class NoLength:
    """No dataset."""


def dataset(kind: str, count: int = 4, *, target: str = "Items", **settings: object) -> ImageSource:
    arguments = {"kind": kind, "count": count} if target == "Items" else {}
    config = DatasetConfig(_target_=f"{__name__}.{target}", arguments=arguments, **{"count": 6, **settings})
    return open_images(config, size=SMALL, allow=(__name__,))


@pytest.mark.parametrize("kind", ["bytes", "pil", "half"])
def test_items_of_every_kind(kind: str) -> None:
    source = dataset(kind)
    torch.testing.assert_close(source[5].pixels, torch.full((3, *SMALL), 0.2), rtol=2e-3, atol=0)
    assert [image.scene for image in source] == ["item-0", "item-1", "item-2", "item-3", "item-0", "item-1"]
    assert source.record()["source"] == f"{__name__}.Items"
    assert len({entry["sha256"] for entry in source.record()["files"]}) == 1


@pytest.mark.parametrize("fit", ["reflect", "resize"])
def test_normalised_items_stay_so(fit: str) -> None:
    config = DatasetConfig(_target_=f"{__name__}.Items", arguments={"kind": "normalised"}, normalised=True, fit=fit)
    source = open_images(config, size=(100, 90), allow=(__name__,))
    assert source.normalised
    torch.testing.assert_close(source[0].pixels, torch.full((3, 100, 90), -1.5))


def test_small_items_are_fitted() -> None:
    with pytest.raises(ImageError, match=r"only 0 of 4 pictures .*item-0 28 x 28.*images\.fit=reflect"):
        dataset("small")
    assert dataset("small", fit="resize")[0].pixels.shape == (1, *SMALL)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("normalised", r"its values are -1\.5 to -1\.5, not 0 to 1; if they are normalised, set normalised=true"),
        ("flat", r"it is a tensor of shape \[70, 60\]; items must be a tensor \[K, H, W\]"),
        ("integers", r"its type is torch\.int64"),
        ("words", "it is of type str; items must be"),
        ("nothing", "it is of type tuple; items must be"),
        ("fails", "RuntimeError: no such item"),
        ("white unknown", "mode F, values 3 to 3 times white"),
    ],
)
def test_items_that_are_no_images(kind: str, text: str) -> None:
    with pytest.raises(ImageError, match=rf"item 0 of the dataset cannot be used: .*{text}"):
        dataset(kind)


def test_datasets_that_cannot_be_used() -> None:
    with pytest.raises(ImageError, match=r"Items' is empty; check images\.arguments"):
        dataset("bytes", 0)
    with pytest.raises(ImageError, match="gave a NoLength; it needs a length and items by index"):
        dataset("", target="NoLength")
    config = DatasetConfig(_target_="torchvision.datasets.MNIST", arguments={"root": "/nowhere"})
    with pytest.raises(
        ImageError, match=r"MNIST' cannot be made with images\.arguments=\{'root': '/nowhere'\}.*not found"
    ):
        open_images(config, size=SMALL)
    with pytest.raises(ConfigError, match=r"images\._target_ is 'nowhere\.Data', outside"):
        open_images(DatasetConfig(_target_="nowhere.Data"), size=SMALL)


def test_a_library_dataset() -> None:
    config = DatasetConfig(_target_="torchvision.datasets.FakeData", arguments={"size": 4, "image_size": [3, 70, 60]})
    assert open_images(config, size=SMALL)[0].pixels.shape == (3, *SMALL)
