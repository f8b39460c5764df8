"""Random signs: keyed, balanced, independent."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from erflab.attribution.signs import random_channels, random_signs


def test_signs_are_plus_and_minus_one_and_balanced() -> None:
    signs = random_signs(0, range(1000), 64)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 4 / (1000 * 64) ** 0.5


def test_channels_are_uncorrelated() -> None:
    signs = random_signs(3, range(4000), 32)
    correlation = signs.T @ signs / 4000 - torch.eye(32)
    assert float(correlation.abs().max()) < 5 / 4000**0.5


def test_images_draws_and_seeds_are_uncorrelated() -> None:
    base = random_signs(0, range(64), 1024).flatten()
    for other in (
        random_signs(0, range(64, 128), 1024),
        random_signs(1, range(64), 1024),
        random_signs(0, range(64), 1024, 1),
    ):
        assert abs(float((base * other.flatten()).mean())) < 4 / base.numel() ** 0.5


@given(st.integers(0, 2**62), st.lists(st.integers(0, 2**40), min_size=1, max_size=5), st.integers(1, 9))
def test_each_row_depends_on_its_own_index_alone(seed: int, indices: list[int], channels: int) -> None:
    together = random_signs(seed, indices, channels)
    for row, index in zip(together, indices, strict=True):
        assert torch.equal(row, random_signs(seed, [index], channels)[0])
    assert torch.equal(random_signs(seed, indices, channels + 3)[:, :channels], together)


def test_the_hash_never_changes() -> None:
    """A stored result can only be reproduced if the signs of (seed, image, channel) stay what they were."""
    assert random_signs(7, [0, 12345678901], 8).tolist() == KNOWN


KNOWN = [[-1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, 1.0], [-1.0, -1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0]]


@pytest.mark.cuda
def test_cuda_has_the_same_signs() -> None:
    assert torch.equal(random_signs(5, range(9), 33, 2, "cuda").cpu(), random_signs(5, range(9), 33, 2))


def test_random_channels_have_the_identity_as_second_moment() -> None:
    drawn = random_channels(3, range(4000), 5)
    assert set(drawn.unique().tolist()) == {0.0, drawn.max().item()}
    assert torch.allclose(drawn.square().sum(1), torch.full((4000,), 5.0))
    shares = (drawn > 0).double().mean(0)
    assert float((shares - 0.2).abs().max()) < 4 * (0.2 * 0.8 / 4000) ** 0.5


def test_random_channels_depend_on_their_own_image_alone() -> None:
    together = random_channels(7, [3, 99, 12345678901], 6, draw=1)
    for row, index in zip(together, [3, 99, 12345678901], strict=True):
        assert torch.equal(row, random_channels(7, [index], 6, draw=1)[0])
    assert not torch.equal(random_channels(7, range(50), 6, 0), random_channels(7, range(50), 6, 1))
