"""The checkpoint's file: what is written comes back to the bit, and what is damaged or of something else is told."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from erflab import checkpoint
from erflab.checkpoint import Checkpoint, open_checkpoint, read, shared_checkpoint, write
from erflab.distributed import Processes
from erflab.errors import ResultError

ABOUT: dict[str, Any] = {
    "config": {"seed": 0, "images": {"count": 4}},
    "model": {"weights_sha256": "aa"},
    "images": {"source": "folder", "files": [{"name": "a.png", "sha256": "11"}]},
    "environment": {"torch": "2.6"},
}

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
DTYPES = st.sampled_from([torch.float64, torch.int64, torch.uint8])
TENSORS = st.builds(lambda n, dtype: torch.arange(n).to(dtype), st.integers(0, 5), DTYPES)
TREES = st.recursive(PLAIN | TENSORS, lambda tree: st.lists(tree, max_size=3) | st.dictionaries(st.text(), tree))


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(st.dictionaries(st.text(), TREES))
def test_what_is_written_comes_back(tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]) -> None:
    file = tmp_path_factory.getbasetemp() / "tree"
    write(file, content)
    assert same(read(file), content)


def saved(folder: Path, about: dict[str, Any] = ABOUT) -> Path:
    """A checkpoint's file after 3 images of one method."""
    file = folder / checkpoint.FILE
    file.unlink(missing_ok=True)
    made = open_checkpoint(file, 1e-9, about)
    assert made.follow("gradient", lambda: {"images": 3, "sums": torch.ones(2, dtype=torch.float64)}) is None
    made.choices["channels_last"] = True
    made.write_if_due()
    return file


def test_it_is_gone_on_from(tmp_path: Path) -> None:
    file = saved(tmp_path)
    found = open_checkpoint(file, 60.0, ABOUT)
    assert found.images == {"gradient": 3}
    assert found.choices == {"channels_last": True}
    assert [start["images"] for start in found.history.starts] == [{}, {"gradient": 3}]
    state = found.follow("gradient", dict)
    assert state is not None
    assert state["sums"].tolist() == [1.0, 1.0]
    before = file.read_bytes()
    found.write_if_due()  # too early
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.FILE]


@pytest.mark.parametrize("seconds", [None, 0])
def test_without_seconds_none_is_written(tmp_path: Path, seconds: float | None) -> None:
    Checkpoint(tmp_path / "x", seconds).write_if_due()
    Checkpoint().write_if_due()
    assert not list(tmp_path.iterdir())


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def of_another_kind(file: Path) -> None:
    save_file({"weight": torch.ones(2)}, file)


def of_another_format(file: Path) -> None:
    text = json.dumps({"format": 99}).encode()
    save_file({"json": torch.frombuffer(bytearray(text), dtype=torch.uint8)}, file)


NO_USE = {
    cut: "cannot be read as a checkpoint",
    empty: "cannot be read as a checkpoint",
    of_another_kind: "cannot be read as a checkpoint: File does not contain tensor json",
    of_another_format: "has checkpoint format 99; this version reads format 1",
}


@pytest.mark.parametrize("damage", NO_USE, ids=lambda damage: damage.__name__)
def test_a_damaged_one_is_told_and_measured_anew(tmp_path: Path, damage: Any, caplog: pytest.LogCaptureFixture) -> None:
    file = saved(tmp_path)
    damage(file)
    with caplog.at_level(logging.WARNING):
        found = open_checkpoint(file, 60.0, ABOUT)
    assert found.images == {}
    (told,) = caplog.messages
    assert "measured anew, for the checkpoint is of no use: " in told
    assert NO_USE[damage] in told
    with pytest.raises(ResultError, match="checkpoint"):
        read(file)


def test_one_of_another_environment_is_told_and_measured_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = saved(tmp_path, {**ABOUT, "environment": {"torch": "2.5"}})
    with caplog.at_level(logging.WARNING):
        assert open_checkpoint(file, 60.0, ABOUT).images == {}
    assert caplog.messages == [
        "measured anew, for the checkpoint was made in another environment (torch: '2.5' there, '2.6' here)"
    ]


OTHERS = {
    "config.images.count: 8 there, 4 here": {"config": {"seed": 0, "images": {"count": 8}}},
    "model.weights_sha256: 'bb' there, 'aa' here": {"model": {"weights_sha256": "bb"}},
    "images.files.a.png: '22' there, '11' here": {
        "images": {"source": "folder", "files": [{"name": "a.png", "sha256": "22"}]}
    },
}


@pytest.mark.parametrize("told", OTHERS)
def test_one_of_something_else_is_refused(tmp_path: Path, told: str) -> None:
    file = saved(tmp_path, {**ABOUT, **OTHERS[told]})
    before = file.read_bytes()
    with pytest.raises(ResultError, match=rf"holds a checkpoint of another configuration \({told}\).*overwrite=true"):
        open_checkpoint(file, 60.0, ABOUT)
    assert file.read_bytes() == before


def test_one_that_cannot_be_written_leaves_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = saved(tmp_path)
    before = file.read_bytes()

    def full(self: Path, content: bytes) -> None:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    found = open_checkpoint(file, 1e-9, ABOUT)
    found.follow("gradient", dict)
    with caplog.at_level(logging.WARNING):
        found.write_if_due()
    assert "could not be written, and is as it was before: [Errno 28] No space left" in caplog.messages[-1]
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.FILE]


def test_another_machines_clock_counts_no_time_here() -> None:
    class Second(Processes):
        def _send(self, value: Any) -> Any:
            value.history._since = -1e9  # of a first process whose machine has run for long
            return value

    found = shared_checkpoint(None, 60.0, dict, Second(1, 2))
    assert 0 <= found.history.state()["seconds"] < 1e6
