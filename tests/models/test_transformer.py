"""The transformer: its parts that a run computes once, masks, times, and patches."""

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.errors import RequestError
from mlx_zimage.models.layers.positions import Rope
from mlx_zimage.models.transformer import ZImageTransformer, patchify, unpatchify
from tests.measures import relative_error


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
    assert mask.dtype == model.dtype  # added: a boolean one is written out for every head on CUDA
    assert mask.shape == (2, 1, 1, 32 + 64)
    assert mask[0, 0, 0].tolist() == [0.0] * 64 + [-np.inf] * 32
    assert mask[1, 0, 0].tolist() == [0.0] * 96


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


def test_scales_and_gates_are_in_the_norms_weights(model: ZImageTransformer) -> None:
    """The published order, scale and gate beside the norm, gives the same to the rounding."""
    block = model.layers[0]
    length, dim = 64, model.config.dim
    x = mx.random.normal((2, length, dim), key=mx.random.key(0))
    rope = model.prepare(_captions(8), 8, 8).joint_rope
    rope = Rope(*(table[:, :length] for table in rope))
    times = np.array([[0.1, 0.9]])
    linear = block.adaLN_modulation[0]
    embedded = model.t_embedder(times.astype(np.float32) * 1000, mx.float32)[0]  # (B, width)
    parts = [part[:, None] for part in mx.split(linear(embedded), 4, axis=-1)]
    attention_scale, attention_gate, ffn_scale, ffn_gate = parts
    hidden = block.attention(block.attention_norm1(x) * (1 + attention_scale), rope, None)
    expected = x + mx.tanh(attention_gate) * block.attention_norm2(hidden)
    hidden = block.feed_forward(block.ffn_norm1(expected) * (1 + ffn_scale))
    expected = expected + mx.tanh(ffn_gate) * block.ffn_norm2(hidden)
    of_batch = model.modulate(times)[0].layers[0]
    assert [array.shape for array in of_batch.arrays] == [(2, 1, dim)] * 4
    assert relative_error(block(x, rope, None, of_batch), expected) < 1e-6
    for i, time in enumerate(times[0]):
        of_one = model.modulate([time])[0].layers[0]
        assert [array.shape for array in of_one.arrays] == [(dim,)] * 4
        out = block(x[i : i + 1], rope, None, of_one)
        assert relative_error(out, expected[i : i + 1]) < 1e-6


def test_modulation_outlives_its_weights(checkpoint: Callable[[str], Path]) -> None:
    model = Checkpoint.open(checkpoint("small"))["transformer"].load(mx.float32, None)
    conditioning = model.prepare(_captions(8), 4, 4)
    latents = mx.random.normal((1, 16, 4, 4), key=mx.random.key(0))
    before = model(latents, model.modulate([0.5])[0], conditioning)
    (modulation,) = model.modulate([0.5])
    mx.eval(before, modulation.arrays)
    model.drop_modulation()
    assert not any("adaLN" in key for key, _ in tree_flatten(model.layers[0].parameters()))
    assert mx.array_equal(model(latents, modulation, conditioning), before)


def test_streamed_blocks_modulate_as_others_do(
    model: ZImageTransformer, checkpoint: Callable[[str], Path]
) -> None:
    stored = Checkpoint.open(checkpoint("small"))["transformer"]
    streamed = stored.load(mx.float32, None, streamed=True)
    arrays = zip(
        streamed.modulate([0.2, 0.7])[1].arrays, model.modulate([0.2, 0.7])[1].arrays, strict=True
    )
    assert all(mx.array_equal(ours, theirs) for ours, theirs in arrays)


def test_patches_go_there_and_back() -> None:
    latents = mx.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    tokens = patchify(latents, 2)
    assert tokens.shape == (2, 6, 12)
    assert tokens[0, 0, :3].tolist() == latents[0, :, 0, 0].tolist()  # channel fastest
    assert tokens[0, 1, :3].tolist() == latents[0, :, 0, 2].tolist()  # then along the row
    assert mx.array_equal(unpatchify(tokens, (2, 3), 2), latents)


@pytest.mark.parametrize("shape", [(0, 48), (5, 47), (1505, 48)])
def test_captions_of_a_wrong_shape(model: ZImageTransformer, shape: tuple[int, int]) -> None:
    with pytest.raises(RequestError, match=r"\(1 to 1504, 48\)"):
        model.prepare([mx.zeros(shape)], 4, 4)


def test_more_latents_than_positions(model: ZImageTransformer) -> None:
    with pytest.raises(RequestError, match="at most 1024 latents wide"):
        model.prepare(_captions(4), 4, 1026)
