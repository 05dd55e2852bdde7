"""Rotations: equal to products with their matrices, and undone by a second one."""

import json
from functools import reduce
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage.errors import CheckpointError
from mlx_zimage.models.layers.linear import Linear
from mlx_zimage.models.layers.rotation import check_rotation, rotate
from mlx_zimage.weights.official import from_entries
from mlx_zimage.weights.packing import Packing
from mlx_zimage.weights.safetensors import read_header
from tests.measures import relative_error

BASES = {
    "hadamard": np.array([[1, 1], [1, -1]]) / np.sqrt(2),
    "regular": np.array([[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]]) / 2,
}


def _matrix(rotation: str, width: int) -> np.ndarray:
    """Build the rotation of a whole row in float64, from Kronecker products."""
    kind, _, size = rotation.partition("-")
    base = BASES[kind]
    power = round(np.log(int(size)) / np.log(len(base)))
    return np.kron(np.eye(width // int(size)), reduce(np.kron, [base] * power))


@pytest.mark.parametrize("rotation", ["hadamard-2", "hadamard-64", "regular-4", "regular-256"])
def test_is_a_product_and_its_own_inverse(rotation: str) -> None:
    """The relative error is at most 1.1e-7, in float32."""
    x = np.random.RandomState(0).standard_normal((3, 5, 512)).astype(np.float32)
    turned = rotate(mx.array(x), rotation)
    assert relative_error(turned, x @ _matrix(rotation, 512)) < 3e-7
    assert relative_error(rotate(turned, rotation), x) < 3e-7
    assert rotate(mx.array(x), "").shape == x.shape


@pytest.mark.parametrize("bits", [3, 8])
def test_a_rotated_layer_multiplies_with_what_its_weights_stand_for(bits: int) -> None:
    """The relative error is at most 3.4e-7, in float32."""
    packing = Packing("affine", bits, 64, "hadamard-64")
    layer = Linear(256, 128)
    layer.weight = mx.random.normal((128, 256), key=mx.random.key(0))
    layer.bias = mx.random.normal((128,), key=mx.random.key(1))
    quantized = layer.to_quantized(**vars(packing))
    arrays = packing.pack(layer.weight)
    quantized.weight, quantized.scales, quantized.biases = arrays
    x = mx.random.normal((7, 256), key=mx.random.key(2))
    plain = mx.dequantize(*arrays, 64, bits)
    weight = np.array(plain, np.float64) @ _matrix("hadamard-64", 256)
    assert relative_error(packing.unpack(arrays), weight) < 1e-6
    expected = np.array(x, np.float64) @ weight.T + np.array(layer.bias)
    assert relative_error(quantized(x), expected) < 1e-6
    assert relative_error(packing.unpack(arrays), layer.weight) < (0.2 if bits == 3 else 0.006)


UNKNOWN = (
    *("", "hadamard", "hadamard-0", "hadamard-1", "hadamard-48", "hadamard-2048"),
    *("regular-8", "regular-64x", "other-64", "hadamard--64"),
)


@pytest.mark.parametrize("rotation", UNKNOWN)
def test_unknown_rotations(rotation: str) -> None:
    with pytest.raises(ValueError, match="rotation"):
        check_rotation(rotation)


def test_a_config_names_the_rotation(tmp_path: Path) -> None:
    packing = Packing("affine", 3, 64, "hadamard-64")
    block = {"mode": "affine", "bits": 3, "group_size": 64, "rotation": "hadamard-64"}
    assert packing.block == block and Packing.parse(json.loads(json.dumps(block))) == packing
    weight = mx.random.normal((8, 192), key=mx.random.key(0))
    arrays = packing.pack(weight)
    file = tmp_path / "layer.safetensors"
    mx.save_safetensors(
        str(file), {f"x.{n}": a for n, a in zip(packing.names, arrays, strict=True)}
    )
    [tensor] = from_entries(read_header(file), {"quantization": block}).values()
    assert tensor.packing == packing
    assert mx.array_equal(tensor.read(), packing.unpack(arrays))
    with pytest.raises(CheckpointError, match="rotation 'hadamard-128' of a layer 192 wide"):
        from_entries(read_header(file), {"quantization": block | {"rotation": "hadamard-128"}})
    with pytest.raises(CheckpointError, match="unknown way: rotation 'hadamard-63'"):
        from_entries(read_header(file), {"quantization": block | {"rotation": "hadamard-63"}})
