"""NAG: negative prompts inside the attention, without guidance."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage import Nag, RequestError, Result, ZImage
from mlx_zimage.models.layers import nag as layer
from mlx_zimage.models.layers.nag import AttentionGuidance
from mlx_zimage.models.transformer import ZImageTransformer
from tests.measures import relative_error

SMALL: dict[str, Any] = {"width": 48, "height": 32, "steps": 2, "seed": 3}
PROMPTS = ["a red fox", "a house on a hill by the sea, " * 3]
NEGATIVES = ["blurred, of low quality, " * 4, "blue"]
NAG = Nag(5.0, 2.5, 0.25)


@pytest.fixture(scope="module")
def model(checkpoint: Callable[[str], Path]) -> ZImage:
    return ZImage.load(checkpoint("small"), dtype="float32")


def _formula(plain: np.ndarray, negative: np.ndarray, nag: Nag) -> np.ndarray:
    """Write the formula out for each token's numbers (tokens, width)."""
    out = np.empty_like(plain)
    for i, (a, b) in enumerate(zip(plain, negative, strict=True)):
        guided = a * nag.scale + b * (1 - nag.scale)
        before, after = np.abs(a).sum(), np.abs(guided).sum()
        if (after / before if before else 10) > nag.tau:
            guided = guided * before * nag.tau / (after + 1e-7)
        out[i] = nag.alpha * guided + (1 - nag.alpha) * a
    return out


@pytest.mark.parametrize("nag", [NAG, Nag(11.0), Nag(1.5, tau=1.0, alpha=1.0), Nag(4.0, alpha=0)])
def test_formula(nag: Nag) -> None:
    generator = np.random.RandomState(0)
    plain, negative = generator.standard_normal((2, 2, 3, 5, 4))  # (B, H, L, D)
    plain[0, :, 1] = 0
    negative[0, :, 1] = 0
    ours = AttentionGuidance(nag.scale, nag.tau, nag.alpha).guide(
        mx.array(plain.astype(np.float32)), mx.array(negative.astype(np.float32))
    )
    merged = [a.transpose(0, 2, 1, 3).reshape(10, 12) for a in (plain, negative)]
    expected = _formula(*merged, nag).reshape(2, 5, 3, 4).transpose(0, 2, 1, 3)
    assert relative_error(ours, expected) < 3e-7


def test_lengths_beyond_float16() -> None:
    plain = mx.full((1, 30, 2, 128), 60.0, mx.float16)
    guided = AttentionGuidance(11.0, 3.5, 0.5).guide(plain, -plain)
    assert guided.dtype == mx.float16
    assert np.array(guided) == pytest.approx(60 * (0.5 * 3.5 + 0.5), rel=1e-3)


def _latents(model: ZImage, prompt: Any, **options: Any) -> list[np.ndarray]:
    results = model.generate(prompt, **{**SMALL, **options})
    results = [results] if isinstance(results, Result) else results
    return [np.array(result.latents[0]) for result in results]


def test_it_acts_and_scale_one_does_not(model: ZImage) -> None:
    (plain,) = _latents(model, "a red fox")
    (off,) = _latents(model, "a red fox", nag=1)
    (on,) = _latents(model, "a red fox", nag=NAG, negative_prompt="blue")
    (other,) = _latents(model, "a red fox", nag=NAG, negative_prompt="green")
    assert np.array_equal(plain, off)
    assert relative_error(on, plain) > 1e-3 and relative_error(on, other) > 1e-4


def test_a_negative_like_the_prompt_changes_nothing(model: ZImage) -> None:
    (plain,) = _latents(model, "a red fox")
    (same,) = _latents(model, "a red fox", nag=NAG, negative_prompt="a red fox")
    assert relative_error(same, plain) < 1e-5


def test_a_batch_is_its_pictures(model: ZImage) -> None:
    """Captions of other lengths, so that there is a mask; each with a negative of its own."""
    seeds = [1, 2]
    both = _latents(model, PROMPTS, seed=seeds, nag=NAG, negative_prompt=NEGATIVES)
    for latents, prompt, negative, seed in zip(both, PROMPTS, NEGATIVES, seeds, strict=True):
        (alone,) = _latents(model, prompt, seed=seed, nag=NAG, negative_prompt=negative)
        assert relative_error(latents, alone) < 1e-5
    shared = _latents(model, PROMPTS, seed=seeds, nag=NAG, negative_prompt="blue")
    assert relative_error(shared[1], both[1]) < 1e-6


@pytest.mark.parametrize("memory", ["staged", "low"])
def test_in_every_memory(checkpoint: Callable[[str], Path], model: ZImage, memory: Any) -> None:
    other = ZImage.load(checkpoint("small"), dtype="float32", memory=memory)
    options: dict[str, Any] = {"nag": NAG, "negative_prompt": "blue"}
    assert np.array_equal(_latents(other, "x", **options), _latents(model, "x", **options))


def test_with_embeddings_for_the_prompt(model: ZImage) -> None:
    options: dict[str, Any] = {**SMALL, "nag": NAG, "negative_prompt": "blue"}
    result = model.generate("a red fox", **options)
    again = model.generate(prompt_embeds=result.prompt_embeds, **options)
    assert mx.array_equal(result.latents, again.latents)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    calls = {"forward": 0, "attention": 0, "guide": 0}

    def count(owner: Any, name: str, label: str) -> None:
        original = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            calls[label] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    count(ZImageTransformer, "__call__", "forward")
    count(mx.fast, "scaled_dot_product_attention", "attention")
    count(layer.AttentionGuidance, "guide", "guide")
    return calls


def test_no_cost_where_it_is_off(model: ZImage, counts: dict[str, int]) -> None:
    _latents(model, "a red fox")  # the prompt is encoded once for all
    _latents(model, "a red fox", nag=NAG, negative_prompt="blue")
    layers = model._checkpoint.transformer.n_layers
    found = {}
    for name, options in (
        ("plain", {}),
        ("off", {"nag": 1}),
        ("on", {"nag": NAG, "negative_prompt": "blue"}),
    ):
        counts.update(dict.fromkeys(counts, 0))
        _latents(model, "a red fox", **options)
        found[name] = dict(counts)
    assert found["off"] == found["plain"]
    assert found["plain"]["guide"] == 0 and found["on"]["guide"] == 2 * layers
    assert found["on"]["forward"] == found["plain"]["forward"] == 2  # no second forward
    refiners = model._checkpoint.transformer.n_refiner_layers
    more = found["on"]["attention"] - found["plain"]["attention"]
    assert more == 2 * layers + refiners  # a second one in each layer; the negative is refined


def test_filled_in_fields(model: ZImage) -> None:
    request = model.check("x", nag=5)
    assert (request.nag, request.guidance, request.negative_prompt) == (Nag(5.0), 0, "")
    assert model.check(request) == request


def test_its_memory_is_in_the_estimate(model: ZImage) -> None:
    plain = model.estimate(PROMPTS[1], width=1024, height=1024).denoise
    assert model.estimate(PROMPTS[1], width=1024, height=1024, nag=5).denoise > plain


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nag": 5, "guidance": 2.0}, "nag works without guidance, not with 2; leave one"),
        ({"negative_prompt": "x"}, "negative_prompt has no effect without guidance or nag"),
        ({"nag": 1, "negative_prompt": "x"}, "ask for a guidance above 0, or a nag above 1"),
        ({"nag": 5, "cfg_truncation": 0.5}, "cfg_truncation has no effect without guidance"),
        ({"nag": 0.5}, "nag must be a number from 1 to 100"),
    ],
)
def test_refused(model: ZImage, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        model.check("x", **options)
