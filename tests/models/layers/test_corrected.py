"""A packed layer with what corrects it: both ways to its products, its matrix, and its adapters."""

import math
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage.models.layers import quantized
from mlx_zimage.models.layers.corrected import CorrectedLinear
from mlx_zimage.models.layers.linear import Linear
from mlx_zimage.weights.packing import Packing
from tests.measures import as_float64, relative_error

PACKINGS = [
    Packing("affine", 4, 64, rank=16, input_scale=True),
    Packing("nvfp4", 4, 16, rank=16, input_scale=True, output_scale=True),
    Packing("affine", 8, 128, "regular-64", output_scale=True),
    Packing("affine", 4, 64, "hadamard-32", rank=4),
]


def _layer(packing: Packing, bias: bool) -> CorrectedLinear:
    plain = Linear(256, 128, bias=bias)
    plain.weight = mx.random.normal((128, 256), key=mx.random.key(0)) * 0.1
    if bias:
        plain.bias = mx.random.normal((128,), key=mx.random.key(1))
    layer: Any = plain.to_quantized(**packing.block)
    for number, (name, shape) in enumerate(packing.corrections(128, 256).items()):
        layer[name] = 1 + 0.3 * mx.random.normal(shape, key=mx.random.key(number + 2))
    return layer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("packing", PACKINGS, ids=str)
def test_products(packing: Packing, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways are within 4e-7 of float64, and `rows` is the matrix that they multiply by."""
    layer = _layer(packing, bias)
    assert {*layer.parameters()} - {"weight", "scales", "biases", "bias"} == {
        *packing.corrections(128, 256)
    }
    x = mx.random.normal((2, 9, 256), key=mx.random.key(9))
    words = [layer[name] for name in packing.names]
    matrix = as_float64(packing.plain.unpack(words, mx.float32))
    if packing.rotation:
        matrix = matrix @ as_float64(_rotation(packing.rotation, 256))
    if packing.output_scale:
        matrix = matrix * as_float64(layer.output_scale)[:, None]
    if packing.input_scale:
        matrix = matrix * as_float64(layer.input_scale)
    if packing.rank:
        matrix = matrix + as_float64(layer.side_up) @ as_float64(layer.side_down)
    expected = as_float64(x) @ matrix.T + (as_float64(layer.bias) if bias else 0)
    for rows in (math.inf, 1):
        monkeypatch.setattr(quantized, "unpacks_from", lambda *_, rows=rows: rows)
        assert relative_error(layer(x), expected) <= 1e-6
    assert relative_error(layer.rows(30, 70), matrix[30:70]) <= 1e-6


def _rotation(name: str, width: int) -> np.ndarray:
    """A matrix with the rotation's blocks on its diagonal."""
    kind, size = name.split("-")
    base = np.array([[1, 1], [1, -1]]) / 2**0.5
    if kind == "regular":
        base = (np.ones((4, 4)) - 2 * np.eye(4)[::-1]) / 2
    block = base
    while len(block) < int(size):
        block = np.kron(block, base)
    return np.kron(np.eye(width // len(block)), block)


def test_an_adapter_sees_the_input_as_it_comes() -> None:
    """So that an adapter that was made for the plain weights fits."""
    layer = _layer(PACKINGS[1], bias=True)
    x = mx.random.normal((3, 256), key=mx.random.key(9))
    plain = layer(x)
    layer.adapter = lambda inner, of: of.product(inner) + inner[:, :128]
    assert relative_error(layer(x), plain + x[:, :128]) <= 1e-6
