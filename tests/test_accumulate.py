"""Streaming sums against numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from erflab.accumulate import MapSums


def filled(maps: torch.Tensor, scenes: list[str], batch: int) -> MapSums:
    sums = MapSums((4, 5))
    for start in range(0, len(maps), batch):
        sums.update(maps[start : start + batch], scenes[start : start + batch])
    return sums


@given(st.integers(1, 40), st.integers(1, 7), st.floats(-1e6, 1e6))
def test_mean_and_variance_are_numpys(count: int, batch: int, offset: float) -> None:
    maps = torch.randn(count, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(count)) + offset
    sums = filled(maps, [str(i) for i in range(count)], batch)
    np.testing.assert_allclose(sums.mean.numpy(), maps.numpy().mean(0), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(sums.total.numpy(), maps.numpy().sum(0), rtol=1e-12, atol=1e-9)
    if count > 1:
        np.testing.assert_allclose(sums.variance.numpy(), maps.numpy().var(0, ddof=1), rtol=1e-6)
    else:
        assert float(sums.variance.abs().max()) == 0


@given(st.integers(1, 30), st.integers(1, 7), st.data())
def test_sums_that_are_saved_go_on_to_the_same_bits(count: int, batch: int, data: st.DataObject) -> None:
    maps = torch.randn(count, 4, 5, generator=torch.Generator().manual_seed(count))
    scenes = [str(i % 19) for i in range(count)]
    whole, first, second = filled(maps, scenes, batch), MapSums((4, 5)), MapSums((4, 5))
    cut = data.draw(st.integers(0, count))
    first.update(maps[:cut], scenes[:cut]) if cut else None
    second.restore(first.state())
    second.update(maps[cut:], scenes[cut:]) if cut < count else None
    assert torch.equal(whole.variance, second.variance)
    assert torch.equal(whole.group_sums, second.group_sums)
    assert torch.equal(whole.equal_sums, second.equal_sums)
    for name in ("totals", "group_counts", "equal_counts", "count", "scenes"):
        assert getattr(whole, name) == getattr(second, name)


def test_batching_changes_no_bit() -> None:
    maps = torch.rand(37, 4, 5)
    scenes = [str(i % 5) for i in range(37)]
    first = filled(maps, scenes, 37)
    for batch in (1, 3, 16):
        other = filled(maps, scenes, batch)
        assert torch.equal(first.mean, other.mean)
        assert torch.equal(first.variance, other.variance)
        assert torch.equal(first.group_sums, other.group_sums)
        assert torch.equal(first.equal_sums, other.equal_sums)
        assert first.totals == other.totals


def test_a_batch_added_at_once_as_on_a_gpu_has_the_same_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = torch.rand(37, 4, 5, dtype=torch.float64)
    maps[3] = 0
    scenes = [str(i % 21) for i in range(37)]
    singly = filled(maps, scenes, 9)
    monkeypatch.setattr(MapSums, "_add_singly", MapSums._add_together)
    together = filled(maps, scenes, 9)
    for name in ("mean", "variance", "group_sums", "equal_sums"):
        torch.testing.assert_close(getattr(together, name), getattr(singly, name), rtol=1e-12, atol=1e-14)
    assert (together.totals, together.group_counts) == (singly.totals, singly.group_counts)


def test_all_images_of_a_scene_are_in_one_group() -> None:
    maps = torch.ones(60, 4, 5)
    sums = filled(maps, [f"scene {i % 20}" for i in range(60)], 7)
    assert sums.scenes == 20
    assert sorted(sums.group_counts) == [3] * 12 + [6] * 4
    assert sums.group_sums[:, 0, 0].tolist() == [float(c) for c in sums.group_counts]


def test_equal_weights_divide_each_map_by_its_own_sum() -> None:
    maps = torch.rand(12, 4, 5, dtype=torch.float64) * torch.logspace(-3, 3, 12, dtype=torch.float64)[:, None, None]
    maps[4] = 0
    sums = filled(maps, [str(i % 3) for i in range(12)], 5)
    shares = maps / maps.sum((1, 2), keepdim=True).clamp(min=1e-300)
    for group in range(3):
        np.testing.assert_allclose(sums.equal_sums[group].numpy(), shares[group::3].sum(0).numpy(), rtol=1e-12)
    assert sums.equal_counts[:4] == [4, 3, 4, 0]
