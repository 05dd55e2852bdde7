"""16-bit models stay 16 bit: no float32 wider than a norm's inside, and near float32 results."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn

from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.models import blocks
from mlx_zimage.models.layers import positions
from mlx_zimage.models.transformer import StepModulation, ZImageTransformer
from tests.measures import cosine

KINDS = ["small", "diffusers", "wide"]
HALVES = [mx.bfloat16, mx.float16]


def _normal(*shape: int) -> mx.array:
    return mx.array(np.random.RandomState(0).standard_normal(shape).astype(np.float32))


def _runs(checkpoint: Checkpoint) -> dict[str, Callable[[mx.Dtype], mx.array]]:
    """Return a forward of each model, which takes the dtype to load it in."""
    ids = mx.array([list(range(40, 80))])

    def transformer(dtype: mx.Dtype) -> mx.array:
        model = checkpoint["transformer"].load(dtype, None)
        width = checkpoint.transformer.cap_feat_dim
        captions = [_normal(n, width).astype(dtype) for n in (9, 40)]
        return model(_normal(2, 16, 8, 6), model.modulate([0.4])[0], model.prepare(captions, 8, 6))

    pixels = 8 * checkpoint.vae.scale_factor
    return {
        "transformer": transformer,
        "text encoder": lambda dtype: checkpoint["text_encoder"].load(dtype, None)(ids),
        "decoder": lambda dtype: checkpoint["vae"].load(dtype).decode(_normal(1, 16, 8, 8)),
        "encoder": lambda dtype: (
            checkpoint["vae"]
            .load(dtype)
            .encode(mx.clip(_normal(1, pixels, pixels, 3), -1, 1), _normal(1, 16, 8, 8))
        ),
    }


@contextmanager
def _watched_modules() -> Iterator[list[tuple[str, mx.Dtype]]]:
    """Record the dtype that every module returns."""
    seen: list[tuple[str, mx.Dtype]] = []
    classes = [nn.Linear, nn.Embedding, nn.RMSNorm, nn.LayerNorm, nn.Conv2d, nn.SiLU]
    for module in list(nn.Module.__subclasses__()):
        if module.__module__.startswith("mlx_zimage"):
            classes.append(module)
    calls = {cls: cls.__call__ for cls in classes if "__call__" in vars(cls)}

    def watch(cls: Any, call: Any) -> Any:
        def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
            out = call(self, *args, **kwargs)
            arrays = out if isinstance(out, list) else [out]  # a list: an image in strips
            seen.extend((cls.__name__, array.dtype) for array in arrays)
            return out

        return watched

    for cls, call in calls.items():
        cls.__call__ = watch(cls, call)
    try:
        yield seen
    finally:
        for cls, call in calls.items():
            cls.__call__ = call


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_every_module_keeps_its_dtype(
    kind: str, dtype: mx.Dtype, checkpoint: Callable[[str], Path]
) -> None:
    for name, run in _runs(Checkpoint.open(checkpoint(kind))).items():
        with _watched_modules() as seen:
            out = run(dtype)
        assert out.dtype == dtype, name
        assert len(seen) > 10
        assert {of_module for _, of_module in seen} == {dtype}, (name, seen)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_near_float32(kind: str, dtype: mx.Dtype, checkpoint: Callable[[str], Path]) -> None:
    for name, run in _runs(Checkpoint.open(checkpoint(kind))).items():
        similarity = cosine(run(dtype), run(mx.float32))
        print(f"{kind} {name} in {dtype}: cosine {similarity:.6f}")
        assert similarity >= 0.999, name


@pytest.mark.large
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_near_float32_at_full_width(dtype: mx.Dtype, full_width: Path) -> None:
    opened = Checkpoint.open(full_width)
    captions = [_normal(9, opened.transformer.cap_feat_dim)]

    def run(kind: mx.Dtype) -> dict[str, mx.array]:
        model = opened["transformer"].load(kind, None)
        conditioning = model.prepare(captions, 4, 4)
        velocity = model(_normal(1, 16, 4, 4), model.modulate([0.4])[0], conditioning)
        mx.eval(velocity)
        del model
        hidden = opened["text_encoder"].load(kind, None)(mx.array([list(range(40, 49))]))
        decoded = opened["vae"].load(kind).decode(_normal(1, 16, 4, 4))
        return {"transformer": velocity, "text encoder": hidden, "decoder": decoded}

    half, full = run(dtype), run(mx.float32)
    for name, out in half.items():
        similarity = cosine(out, full[name])
        print(f"full-width {name} in {dtype}: cosine {similarity:.6f}")
        assert out.dtype == dtype
        assert similarity >= 0.999, name


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_no_float32_in_the_transformers_graph(
    kind: str,
    dtype: mx.Dtype,
    checkpoint: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Walk every operation of a forward. Fused ones are taken as one operation each: what happens
    inside a norm, an attention or a rotation never is an array."""
    opened = Checkpoint.open(checkpoint(kind))
    model = opened["transformer"].load(dtype, None)
    captions = [_normal(n, opened.transformer.cap_feat_dim) for n in (9, 40)]
    conditioning = model.prepare(captions, 8, 6)
    modulations = model.modulate([0.4]) + model.modulate(np.array([[0.4, 0.5]]))
    arrays = [array for modulation in modulations for array in modulation.arrays]
    mx.eval(conditioning.arrays, arrays)
    assert {array.dtype for array in arrays} == {dtype}
    _fuse(monkeypatch)
    for modulation in modulations:
        # The sampler's float32 latents are an input, cast at once.
        def forward(x: mx.array, modulation: StepModulation = modulation) -> mx.array:
            return model(x, modulation, conditioning)

        assert _float32_outputs(forward, _normal(2, 16, 8, 6)) == []
    halves = [caption.astype(dtype) for caption in captions]
    outputs = _float32_outputs(lambda x: model.prepare([x, halves[1]], 8, 6).captions, halves[0])
    assert outputs == []


def _fuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a plain operation or two in the place of each fused one, for an exported graph."""
    monkeypatch.setattr(mx.fast, "rms_norm", lambda x, *_: mx.negative(x))
    monkeypatch.setattr(mx.fast, "layer_norm", lambda x, *_: mx.negative(x))
    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", lambda q, k, v, **_: q + k + v)
    monkeypatch.setattr(positions, "_rotated", lambda x, swapped, cos, sin: x + swapped)


def _float32_outputs(
    run: Callable[[mx.array], mx.array], x: mx.array
) -> list[tuple[str, tuple[int, ...]]]:
    outputs: list[tuple[str, tuple[int, ...]]] = []
    operations = 0

    def look(part: dict[str, Any]) -> None:
        nonlocal operations
        if part["type"] == "primitive":
            operations += 1
            outputs.extend(
                (part["name"], shape)
                for _, shape, dtype in part["outputs"]
                if dtype == mx.float32 and np.prod(shape) > 2 * 256
            )

    mx.disable_compile()  # a compiled operation cannot be exported
    try:
        mx.export_function(look, run, x)
    finally:
        mx.enable_compile()
    assert operations > 30
    return outputs


def _drive_past_float16(model: ZImageTransformer) -> None:
    """Drive the attention's output past 1e5 and the feed-forward past 1e6, as real weights do."""
    for block in [*model.noise_refiner, *model.context_refiner, *model.layers]:
        block.attention.to_out[0].weight = block.attention.to_out[0].weight * 1e5
        for layer in (block.feed_forward.w1, block.feed_forward.w3):
            layer.weight = layer.weight * 560


@pytest.mark.parametrize("factor", [1.0, blocks.HEADROOM])
def test_float16_where_a_plain_port_overflows(
    factor: float, checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relative error is 1.1e-3; without headroom there is nothing but NaN."""
    opened = Checkpoint.open(checkpoint("wide"))
    monkeypatch.setattr(blocks, "HEADROOM", factor)
    reached: dict[str, float] = {}
    for cls in (blocks.Attention, blocks.FeedForward):
        call = cls.__call__

        def watched(self: Any, x: mx.array, *args: Any, call: Any = call) -> mx.array:
            out: mx.array = call(self, x, *args)
            if x.dtype == mx.float32:
                name = type(self).__name__
                reached[name] = max(reached.get(name, 0), mx.abs(out).max().item())
            return out

        monkeypatch.setattr(cls, "__call__", watched)
    latents, captions = _normal(1, 16, 8, 6), [_normal(9, opened.transformer.cap_feat_dim)]

    def run(dtype: mx.Dtype) -> mx.array:
        model = opened["transformer"].load(mx.float32, None)
        _drive_past_float16(model)
        model.set_dtype(dtype)
        return model(latents, model.modulate([0.4])[0], model.prepare(captions, 8, 6))

    exact, half = run(mx.float32), run(mx.float16)
    print(reached)
    assert reached["Attention"] > 1e5
    assert reached["FeedForward"] > 1e6
    assert half.dtype == mx.float16
    if factor == 1:
        assert mx.isnan(half).any().item()
        return
    error = mx.linalg.norm(half.astype(mx.float32) - exact) / mx.linalg.norm(exact)
    print(f"float16: {error.item():.1e}")
    assert error.item() < 2e-3
