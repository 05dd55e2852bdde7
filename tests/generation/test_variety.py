"""Variety and variations: seeds whose pictures differ, and pictures near one seed's."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage import Request, RequestError, Result, ZImage
from mlx_zimage.generation.variety import caption_seed, varied
from mlx_zimage.sampling.noise import NoiseStream, VariedNoise, slerp
from tools.train_demo.reading import read

SMALL: dict[str, Any] = {"width": 48, "height": 32, "steps": 3, "seed": 3}
PROMPTS = ["a red fox", "a house on a hill by the sea, " * 3]


@pytest.fixture(scope="module")
def model(checkpoint: Callable[[str], Path]) -> ZImage:
    return ZImage.load(checkpoint("small"), dtype="float32")


def _latents(model: ZImage, prompt: Any = "a red fox", **options: Any) -> np.ndarray:
    results = model.generate(prompt, **{**SMALL, **options})
    results = [results] if isinstance(results, Result) else results
    return np.concatenate([np.array(result.latents) for result in results])


def test_no_variety_is_exactly_none(model: ZImage) -> None:
    plain = _latents(model)
    assert np.array_equal(_latents(model, variety=0), plain)
    assert not np.array_equal(_latents(model, variety=0.5), plain)


def test_variety_comes_from_the_seed(model: ZImage) -> None:
    assert np.array_equal(_latents(model, variety=0.5), _latents(model, variety=0.5))
    result = model.generate("a red fox", **{**SMALL, "seed": None, "variety": 0.7})
    again = model.generate(Request.from_json(result.request.to_json()))
    assert isinstance(again, Result) and mx.array_equal(again.latents, result.latents)
    small, large = (_latents(model, variety=v) - _latents(model) for v in (0.1, 1.0))
    assert np.linalg.norm(small) < np.linalg.norm(large)


def test_seeds_of_a_batch_are_their_pictures(model: ZImage) -> None:
    options: dict[str, Any] = {"variety": 1.0, "guidance": 2.0, "negative_prompt": "blue"}
    both = _latents(model, PROMPTS, **{**options, "seed": [5, 6]})
    for row, (prompt, seed) in enumerate(zip(PROMPTS, (5, 6), strict=True)):
        alone = _latents(model, prompt, **{**options, "seed": seed})
        assert np.abs(both[row] - alone[0]).max() < 1e-4
    first = _latents(model, ["x", "x"], seed=5, variety=1.0)
    assert np.abs(first[0] - _latents(model, "x", seed=5, variety=1.0)[0]).max() < 1e-4


def test_pictures_of_one_seed_vary_each_in_its_way() -> None:
    seeds = {caption_seed(5, 0), caption_seed(5, 1), caption_seed(6, 0), caption_seed(6, 1)}
    assert len(seeds) == 4
    assert caption_seed((5, 6), 1) == caption_seed(6, 0)


def test_noise_is_as_large_as_the_caption_mostly_is() -> None:
    """Text encoders have a few huge numbers, beside which the others must not drown."""
    caption = np.random.RandomState(0).standard_normal((20, 512)).astype(np.float32)
    caption[:, 7] = 5000
    captions = mx.array(caption)
    moved = np.array(varied(captions, 0.5, 1) - captions)
    double = np.array(varied(captions, 1.0, 1) - captions)
    assert double == pytest.approx(2 * moved, rel=1e-3, abs=1e-3)
    assert moved.std() < 10
    assert varied(captions.astype(mx.bfloat16), 1.0, 1).dtype == mx.bfloat16


def test_with_embeddings_for_the_prompt(model: ZImage) -> None:
    options: dict[str, Any] = {**SMALL, "variety": 1.0}
    result = model.generate("a red fox", **options)
    again = model.generate(prompt_embeds=result.prompt_embeds, **options)
    assert mx.array_equal(result.latents, again.latents)


def test_with_latents_the_seed_acts_on_the_caption(model: ZImage) -> None:
    latents = np.ones((1, 16, 4, 6), np.float32)
    options: dict[str, Any] = {"latents": latents, "steps": 2, "variety": 1.0}
    one, two = (model.generate("x", seed=seed, **options) for seed in (1, 2))
    assert not mx.array_equal(one.latents, two.latents)


def _distance(latents: np.ndarray) -> float:
    """Return the mean distance of two pictures, as a share of their length."""
    pairs = [np.linalg.norm(a - b) for a, b in itertools.combinations(latents, 2)]
    return float(np.mean(pairs) / np.mean([np.linalg.norm(a) for a in latents]))


@pytest.mark.slow
def test_seeds_differ_more_and_the_prompt_is_followed() -> None:
    demo = ZImage.load("demo")
    prompts, seeds = ["a red circle on a blue background"] * 6, [*range(6)]
    distances = {}
    for variety in (0.0, 1.0):
        results = demo.generate(prompts, seed=seeds, width=96, height=96, variety=variety)
        distances[variety] = _distance(np.concatenate([np.array(r.latents) for r in results]))
        for result in results:
            reading = read(result.image)
            assert reading.background == "blue"
            assert [(t.colour, t.shape) for t in reading.found] == [("red", "circle")]
    assert distances[1.0] > 1.1 * distances[0.0], distances


def test_the_ends_of_a_variation_are_the_seeds(model: ZImage) -> None:
    seeds = {seed: _latents(model, seed=seed) for seed in (3, 8)}
    for strength, seed in ((0, 8), (1, 3)):
        found = _latents(model, variation_of=8, variation_strength=strength)
        assert np.array_equal(found, seeds[seed])
    between = _latents(model, variation_of=8, variation_strength=0.3)
    near, far = (np.linalg.norm(between - seeds[seed]) for seed in (8, 3))
    assert near < far


def test_variations_keep_the_noises_length() -> None:
    shape = (2, 16, 8, 8)
    base, other = (np.array(NoiseStream("torch-cpu", s).draw(shape)) for s in (1, 2))
    lengths = [np.linalg.norm(a.reshape(2, -1), axis=1) for a in (base, other)]
    for strength in (0.1, 0.5, 0.9):
        streams = (NoiseStream("torch-cpu", s) for s in (1, 2))
        noise = np.array(VariedNoise(*streams, strength).draw(shape))
        found = np.linalg.norm(noise.reshape(2, -1), axis=1)
        assert found == pytest.approx((1 - strength) * lengths[0] + strength * lengths[1], rel=5e-3)
        angle = np.arccos((base * other).sum() / np.linalg.norm(base) / np.linalg.norm(other))
        turned = np.arccos((base * noise).sum() / np.linalg.norm(base) / np.linalg.norm(noise))
        assert turned == pytest.approx(strength * angle, rel=5e-2)


def test_slerp_by_its_formula() -> None:
    generator = np.random.RandomState(0)
    a, b = generator.standard_normal((2, 3, 50))
    for share in (0.0, 0.25, 0.5, 1.0):
        for row, x, y in zip(slerp(a, b, share), a, b, strict=True):
            omega = np.arccos(x @ y / np.sqrt((x @ x) * (y @ y)))
            expected = (np.sin((1 - share) * omega) * x + np.sin(share * omega) * y) / np.sin(omega)
            assert row == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert np.array_equal(slerp(a, a, 0.3), a) or np.allclose(slerp(a, a, 0.3), a, rtol=1e-15)
    assert np.isfinite(slerp(a, -a, 0.5)).all()


def test_variations_of_a_seed_for_several_seeds(model: ZImage) -> None:
    """A list gives one variation for each, around the same picture."""
    options: dict[str, Any] = {"variation_of": 8, "variation_strength": 0.3}
    both = _latents(model, ["x", "x"], seed=[1, 2], **options)
    for row, seed in enumerate((1, 2)):
        assert np.abs(both[row] - _latents(model, "x", seed=seed, **options)[0]).max() < 1e-4
    still = _latents(model, ["x", "x"], seed=[1, 2], variation_of=8, variation_strength=0)
    assert np.abs(still[0] - still[1]).max() < 1e-4


def test_filled_in_strength(model: ZImage) -> None:
    request = model.check("x", variation_of=8)
    assert request.variation_strength == 0.2 and isinstance(request.seed, int)
    assert model.check(request) == request


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variation_strength": 0.5}, "variation_strength has no effect without variation_of"),
        ({"variation_of": 1, "latents": np.zeros((1, 16, 4, 4))}, "variation_of has no effect"),
        ({"variation_of": -1}, "variation_of must be a whole number from 0"),
        ({"variety": 1.5}, "variety must be a number from 0 to 1"),
    ],
)
def test_refused(model: ZImage, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        model.check("x", **options)
