"""The training forward and its gradients, against what a generation predicts and by differences."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage import TrainingOptions
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.models.layers.quantized import QuantizedLinear
from mlx_zimage.quantization.recipe import Quantization
from mlx_zimage.training.adapters import chosen, make, shape_of
from mlx_zimage.training.forward import RecomputedBlock, inputs, loss, velocity
from tests.measures import relative_error


def _normal(*shape: int, seed: int) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def _model(folder: Path, bits: int | None = None) -> tuple[Any, dict[str, Any]]:
    """Return a model with adapters that have an effect."""
    quantization = None if bits is None else Quantization.parse(bits)
    model = Checkpoint.open(folder)["transformer"].load(mx.float32, quantization)
    model.freeze()
    layers = chosen(model, ("attention", "feed_forward", "adaLN_modulation"))
    shapes = {path: shape_of(layer) for path, layer in layers.items()}
    adapters = make(shapes, TrainingOptions(rank=2), {})
    for number, (path, adapter) in enumerate(adapters.items()):
        adapter.up = mx.array(0.1 * _normal(*adapter.up.shape, seed=number))
        layers[path].adapter = adapter
    return model, adapters


def _inputs(model: Any, lengths: tuple[int, ...] = (5, 40)) -> dict[str, mx.array]:
    count = len(lengths)
    captions = [mx.array(_normal(n, model.config.cap_feat_dim, seed=n)) for n in lengths]
    sigmas = np.array([0.3, 0.8][:count], np.float32)
    clean, noise = _normal(count, 16, 8, 12, seed=1), _normal(count, 16, 8, 12, seed=2)
    return inputs(model, clean, noise, sigmas, captions)


@pytest.fixture(scope="module")
def even(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("even")


def test_a_batch_is_what_a_generation_predicts_of_each(even: Path) -> None:
    """Each alone, by `prepare` and `modulate`; the answer is the way from noise to clean."""
    model, _ = _model(even)
    x = _inputs(model)
    both = velocity(model, x)
    for i, (length, time) in enumerate(((5, 0.7), (40, 0.2))):
        caption = mx.array(_normal(length, model.config.cap_feat_dim, seed=length))
        conditioning = model.prepare([caption], 8, 12)
        alone = model(x["latents"][i : i + 1], model.modulate([time])[0], conditioning)
        assert relative_error(both[i : i + 1], alone) < 5e-6  # measured 1e-6
    clean, noise = _normal(2, 16, 8, 12, seed=1), _normal(2, 16, 8, 12, seed=2)
    np.testing.assert_allclose(np.array(x["target"]), clean - noise)
    at = 0.7 * clean[0] + 0.3 * noise[0]
    np.testing.assert_allclose(np.array(x["latents"][0]), at, atol=1e-6)


def _gradients(model: Any, adapters: dict[str, Any], x: dict[str, mx.array]) -> Any:
    """Return the loss, its gradients by the adapters' arrays, and the loss as a function."""

    def of(values: dict[str, Any]) -> mx.array:
        for path, arrays in values.items():
            for name, array in arrays.items():
                adapters[path][name] = array
        return loss(model, x)

    parameters = {path: dict(a.trainable_parameters()) for path, a in adapters.items()}
    value, gradients = mx.value_and_grad(of)(parameters)
    flat = {(p, n): g for p, arrays in gradients.items() for n, g in arrays.items()}
    mx.eval(value, flat)
    return value.item(), flat, parameters, of


def test_gradients_are_the_slope_of_the_loss(even: Path) -> None:
    """The oracle calls the forward alone, at two points along the gradient."""
    model, adapters = _model(even)
    _, gradients, parameters, of = _gradients(model, adapters, _inputs(model))
    slope = sum(np.square(np.array(g, np.float64)).sum() for g in gradients.values()) ** 0.5
    step = 0.02

    def at(distance: float) -> float:
        moved = {
            path: {n: a + distance / slope * gradients[path, n] for n, a in arrays.items()}
            for path, arrays in parameters.items()
        }
        return float(of(moved).item())

    expected = (at(step) - at(-step)) / (2 * step)
    assert abs(slope - expected) / slope < 1e-3  # measured 1.4e-4


@pytest.mark.parametrize("bits", [4, 8])
def test_gradients_flow_through_packed_layers(even: Path, bits: int) -> None:
    """The oracle is a model of ordinary layers with the numbers that the packed ones stand for.

    Blocks that are computed again have the same gradients.
    """
    model, adapters = _model(even, bits)
    x = _inputs(model)
    value, gradients, _, _ = _gradients(model, adapters, x)
    dense, dense_adapters = _model(even)
    ordinary = dict(dense.named_modules())
    packed = [(p, m) for p, m in model.named_modules() if isinstance(m, QuantizedLinear)]
    assert len(packed) == 7 * 4
    for path, layer in packed:
        arrays = layer.weight, layer.scales, layer.biases
        ordinary[path].weight = mx.dequantize(*arrays, layer.group_size, layer.bits)
    expected, expected_gradients, _, _ = _gradients(dense, dense_adapters, x)
    assert abs(value - expected) < 1e-6
    for name in ("noise_refiner", "context_refiner", "layers"):
        setattr(model, name, [RecomputedBlock.of(block) for block in getattr(model, name)])
    again, recomputed, _, _ = _gradients(model, adapters, x)
    assert abs(value - again) < 1e-6
    for key, gradient in expected_gradients.items():
        error = max(relative_error(g[key], gradient) for g in (gradients, recomputed))
        assert error < 1e-6, key  # measured 0
