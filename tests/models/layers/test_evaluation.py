"""A block is one graph on a GPU, and a model is evaluated between its blocks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.models.layers import attention as attention_layer
from mlx_zimage.models.layers import evaluation, quantized
from mlx_zimage.models.transformer import ZImageTransformer
from mlx_zimage.quantization.recipe import Quantization
from tests.measures import pretend, relative_error

Run = Callable[[mx.array], mx.array]


@pytest.fixture
def load(checkpoint: Callable[[str], Path]) -> Callable[[int | None], ZImageTransformer]:
    def load(bits: int | None) -> ZImageTransformer:
        quantization = None if bits is None else Quantization.parse(bits)
        stored = Checkpoint.open(checkpoint("even"))["transformer"]
        model: ZImageTransformer = stored.load(mx.float32, quantization)
        return model

    return load


def _block(model: ZImageTransformer) -> tuple[Run, mx.array]:
    caption = mx.random.normal((40, model.config.cap_feat_dim), key=mx.random.key(0))
    conditioning, (modulation,) = model.prepare([caption], 8, 8), model.modulate([0.4])
    mx.eval(conditioning.arrays, modulation.arrays)
    rope, of_block = conditioning.joint_rope, modulation.layers[0]
    x = mx.random.normal((1, rope.cos.shape[1], model.config.dim), key=mx.random.key(1))
    return lambda x: model.layers[0](x, rope, None, of_block), x


def _evaluations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the calls of `mx.eval`, which does its work."""
    count = [0]
    function = mx.eval

    def watched(*arrays: Any) -> None:
        count[0] += 1
        function(*arrays)

    monkeypatch.setattr(mx, "eval", watched)
    return count


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "bits"),
    [("applegpu_g14s", 4), ("applegpu_g16s", None), ("sm_75", None), ("sm_90", 3)],
)
def test_a_block_is_compiled_and_differentiated_on_a_gpu(
    architecture: str,
    bits: int | None,
    load: Callable[[int | None], ZImageTransformer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With attention in parts and weights unpacked, where the device does so."""
    block, x = _block(load(bits))
    weights = mx.random.normal(x.shape, key=mx.random.key(2))

    def loss(x: mx.array) -> mx.array:
        return (block(x) * weights).sum()

    plain, slope = block(x), mx.grad(loss)(x)
    mx.eval(plain, slope)
    pretend(monkeypatch, architecture)
    monkeypatch.setattr(quantized, "APPLE_ROWS", 64)
    monkeypatch.setattr(attention_layer, "CALL_FLOPS", 1e5)
    monkeypatch.setattr(attention_layer, "SCORES", 4000)
    evaluations = _evaluations(monkeypatch)
    results = {
        "plain": (block(x), plain),
        "compiled": (mx.compile(block)(x), plain),
        "gradient": (mx.grad(loss)(x), slope),
    }
    assert mx.compile(mx.grad(loss))(x).shape == x.shape  # traced: a CPU takes long to build it
    assert evaluations == [0]
    if bits != 4:
        del results["compiled"]  # once is enough
    for name, (out, expected) in results.items():
        error = relative_error(out, expected)
        print(f"{name}: {error:.1e}")
        assert error < 1e-5, name


@pytest.mark.slow
def test_a_whole_forward_may_be_compiled(
    load: Callable[[int | None], ZImageTransformer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = load(4)
    caption = mx.random.normal((40, model.config.cap_feat_dim), key=mx.random.key(0))
    conditioning, (modulation,) = model.prepare([caption], 8, 8), model.modulate([0.4])
    mx.eval(conditioning.arrays, modulation.arrays)
    latents = mx.random.normal((1, 16, 8, 8), key=mx.random.key(1))

    def forward(latents: mx.array) -> mx.array:
        return model(latents, modulation, conditioning)

    plain = forward(latents)
    mx.eval(plain)
    pretend(monkeypatch, "applegpu_g16s")
    monkeypatch.setattr(evaluation, "GROUP_FLOPS", 1)
    assert relative_error(mx.compile(forward)(latents), plain) < 1e-5
    monkeypatch.undo()
    assert mx.compile(forward)(latents).shape == latents.shape  # traced, on a CPU
    pretend(monkeypatch, "applegpu_g16s")
    monkeypatch.setattr(evaluation, "GROUP_FLOPS", 1)
    slope = mx.grad(lambda x: forward(x).sum())(latents)
    assert mx.isfinite(slope).all().item()


def test_blocks_are_evaluated_in_groups_on_a_gpu(
    load: Callable[[int | None], ZImageTransformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(None)
    model.layers = model.layers * 3
    length = 64 + 64
    caption = mx.random.normal((40, model.config.cap_feat_dim), key=mx.random.key(0))
    latents = mx.random.normal((1, 16, 16, 16), key=mx.random.key(1))
    conditioning, (modulation,) = model.prepare([caption], 16, 16), model.modulate([0.4])
    mx.eval(conditioning.arrays, modulation.arrays)
    plain = model(latents, modulation, conditioning)
    mx.eval(plain)
    evaluations = _evaluations(monkeypatch)
    model(latents, modulation, conditioning)
    assert evaluations == [0]  # a CPU runs the graph in order, and frees as it goes
    pretend(monkeypatch, "applegpu_g16s")
    model(latents, modulation, conditioning)
    assert evaluations == [0]  # such a small picture is one group
    monkeypatch.setattr(evaluation, "GROUP_FLOPS", 2 * model.config.block_flops(length))
    out = model(latents, modulation, conditioning)
    assert evaluations == [len(model.layers) // 2]
    assert mx.array_equal(out, plain)


def test_layers_of_the_text_encoder_are_too(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Checkpoint.open(checkpoint("small"))["text_encoder"].load(mx.float32, None)
    ids = mx.arange(40)[None]
    plain = encoder(ids)
    mx.eval(plain)
    pretend(monkeypatch, "applegpu_g13g")
    monkeypatch.setattr(evaluation, "GROUP_FLOPS", encoder.config.layer_flops(40))
    evaluations = _evaluations(monkeypatch)
    out = encoder(ids)
    assert evaluations == [len(encoder.model.layers)]
    assert mx.array_equal(out, plain)


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arrays: Any) -> None:
        raise ValueError("[broadcast] shapes")

    monkeypatch.setattr(mx, "eval", fail)
    with pytest.raises(ValueError, match="shapes"):
        evaluation.evaluate(mx.zeros(3))


def test_nothing_is_evaluated_while_a_gradient_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated: list[object] = []
    monkeypatch.setattr(evaluation.mx, "eval", lambda *arrays: evaluated.extend(arrays))
    with evaluation.differentiating():
        evaluation.evaluate(mx.zeros(1))
    assert evaluated == []
    evaluation.evaluate(mx.zeros(1))
    assert len(evaluated) == 1
