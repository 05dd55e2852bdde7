"""Tiles that overlap: every latent is covered, shares add up to one, and nothing shows a seam."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage.generation.tiles import _shares, starts, tiled


@pytest.mark.parametrize("unit", [1, 2])
@pytest.mark.parametrize(("length", "tile"), [(24, 24), (26, 24), (64, 24), (512, 192), (90, 24)])
def test_tiles_cover_a_side(length: int, tile: int, unit: int) -> None:
    begins = starts(length, tile, unit)
    assert begins[0] == 0 and begins[-1] == length - tile
    assert all(begin % unit == 0 for begin in begins)
    strides = np.diff(begins)
    assert (strides > 0).all() and (strides <= tile - tile // 4 + unit).all()
    total = np.zeros(length)
    for begin, share in zip(begins, _shares(length, tile, begins), strict=True):
        assert (share >= 0).all()
        total[begin : begin + tile] += share
    assert np.abs(total - 1).max() < 1e-6


def test_shares_fall_to_nothing_at_inner_edges() -> None:
    begins = starts(64, 24, 2)
    first, second, *_ = _shares(64, 24, begins)
    assert first[0] == 1 and first[-1] < 0.05
    assert second[0] < 0.05


@pytest.mark.parametrize("size", [(40, 64), (24, 30), (24, 24)])
def test_a_prediction_of_each_latent_alone_is_unchanged(size: tuple[int, int]) -> None:
    random = np.random.RandomState(0)
    latents = mx.array(random.standard_normal((2, 16, *size)).astype(np.float32))
    mixed = tiled(lambda part: mx.sin(part) * 3, latents, (24, 24), 2)
    assert mx.abs(mixed - mx.sin(latents) * 3).max().item() < 1e-5


def test_tiles_that_disagree_change_into_each_other() -> None:
    """Each tile predicts a number of its own: no step between neighbours is a large one."""
    numbers = iter(range(100))
    mixed = np.array(
        tiled(lambda p: mx.full(p.shape, next(numbers) % 2), mx.zeros((1, 1, 24, 96)), (24, 24), 2)
    )
    assert mixed.min() >= 0 and mixed.max() <= 1
    assert np.abs(np.diff(mixed[0, 0], axis=1)).max() < 0.35  # an edge would be 1
