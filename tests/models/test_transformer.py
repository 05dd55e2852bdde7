"""What a request computes once, and what a mask is for."""

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.errors import RequestError
from mlx_zimage.models.layers.positions import sinusoid
from mlx_zimage.models.transformer import ZImageTransformer, patchify, unpatchify


@pytest.fixture(scope="module")
def model(checkpoint: Callable[[str], Path]) -> ZImageTransformer:
    return Checkpoint.open(checkpoint("small"))["transformer"].load(mx.float32, None)


def _captions(*lengths: int) -> list[mx.array]:
    return [mx.random.normal((n, 48), key=mx.random.key(n)) for n in lengths]


@pytest.mark.parametrize("lengths", [(1,), (32,), (33,), (512,), (3, 30), (40, 64)])
def test_no_mask_where_lengths_agree(model: ZImageTransformer, lengths: tuple[int, ...]) -> None:
    assert model.prepare(_captions(*lengths), 4, 4).mask is None


def test_mask_where_they_do_not(model: ZImageTransformer) -> None:
    mask = model.prepare(_captions(3, 40), 4, 4).mask
    assert mask is not None
    assert mask.dtype == mx.bool_
    assert mask.shape == (2, 1, 1, 32 + 64)
    assert mask[0, 0, 0].tolist() == [True] * 64 + [False] * 32


def test_a_batch_gives_what_its_members_give(model: ZImageTransformer) -> None:
    captions = _captions(3, 40)
    latents = mx.random.normal((2, 16, 4, 6), key=mx.random.key(0))
    both = model(latents, model.modulate([0.5])[0], model.prepare(captions, 4, 6))
    for i in range(2):
        alone = model(
            latents[i : i + 1], model.modulate([0.5])[0], model.prepare(captions[i : i + 1], 4, 6)
        )
        assert np.allclose(both[i], alone[0], atol=1e-5)


def test_times_may_differ_in_a_batch(model: ZImageTransformer) -> None:
    captions = _captions(8)
    latents = mx.random.normal((1, 16, 4, 4), key=mx.random.key(0))
    two = model.prepare(captions * 2, 4, 4)
    both = model(mx.concatenate([latents] * 2), model.modulate(np.array([[0.1, 0.9]]))[0], two)
    one = model.prepare(captions, 4, 4)
    assert np.allclose(both[0], model(latents, model.modulate([0.1])[0], one)[0], atol=1e-5)
    assert np.allclose(both[1], model(latents, model.modulate([0.9])[0], one)[0], atol=1e-5)


def test_patches_go_there_and_back() -> None:
    latents = mx.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    tokens = patchify(latents, 2)
    assert tokens.shape == (2, 6, 12)
    assert tokens[0, 0, :3].tolist() == latents[0, :, 0, 0].tolist()  # channel fastest
    assert tokens[0, 1, :3].tolist() == latents[0, :, 0, 2].tolist()  # then along the row
    assert mx.array_equal(unpatchify(tokens, (2, 3), 2), latents)


def test_sinusoid_starts_with_cosines() -> None:
    found = sinusoid(np.array([0.0, 500.0], np.float32), 256)
    assert found.shape == (2, 256)
    assert found[0].tolist() == [1.0] * 128 + [0.0] * 128
    assert found[1, 0] == pytest.approx(np.cos(500.0), abs=1e-7)


@pytest.mark.parametrize("shape", [(0, 48), (5, 47), (1505, 48)])
def test_captions_of_a_wrong_shape(model: ZImageTransformer, shape: tuple[int, int]) -> None:
    with pytest.raises(RequestError, match=r"\(1 to 1504, 48\)"):
        model.prepare([mx.zeros(shape)], 4, 4)


def test_more_latents_than_positions(model: ZImageTransformer) -> None:
    with pytest.raises(RequestError, match="at most 1024 latents wide"):
        model.prepare(_captions(4), 4, 1026)
