"""Adapters at the real widths, attached to 4-bit weights: sums are 3840 and 10240 numbers long."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage.lora.adapter import Adapter
from mlx_zimage.lora.attach import LayerChanges
from mlx_zimage.lora.forms import Change
from mlx_zimage.lora.targets import Targets
from mlx_zimage.models.layers.linear import Linear
from tests.measures import as_float64, relative_error

from . import deltas
from .writers import Sample, smallest

SHAPES = {
    "layers.0.attention.to_q": (3840, 3840),
    "layers.0.feed_forward.w1": (10240, 3840),
    "layers.0.feed_forward.w2": (3840, 10240),
}
FORMS: dict[str, Callable[..., deltas.Merge]] = {
    "LoRA": lambda put, rng, shape: deltas.low_rank(put, rng, shape, 16, alpha=8.0),
    "LoKr, full": lambda put, rng, shape: deltas.kronecker(put, rng, shape, smallest(shape)),
    "LoKr, factor 8": lambda put, rng, shape: deltas.kronecker(
        put, rng, shape, (8, 8), rank2=16, alpha=1.0
    ),
    "DoRA, rows": lambda put, rng, shape: deltas.decomposed(
        put, rng, shape, deltas.low_rank(put, rng, shape, 16, alpha=8.0)
    ),
    "DoRA, columns": lambda put, rng, shape: deltas.decomposed(
        put, rng, shape, deltas.low_rank(put, rng, shape, 16, alpha=8.0), axis="columns"
    ),
}
LIMITS = {mx.float32: 1e-6, mx.bfloat16: 1e-2}  # 4.6e-7, 5.1e-3


def _packed(shape: tuple[int, int], dtype: mx.Dtype) -> tuple[Any, np.ndarray]:
    """Return a layer on 4-bit weights, and the weights that it runs."""
    layer = Linear(shape[1], shape[0], bias=False)
    layer.weight = mx.random.normal(shape, key=mx.random.key(0)).astype(dtype) * shape[1] ** -0.5
    packed = layer.to_quantized(64, 4, mode="affine")
    numbers = mx.dequantize(packed.weight, packed.scales, packed.biases, 64, 4)
    return packed, as_float64(numbers)


@pytest.mark.large
@pytest.mark.parametrize("path", SHAPES)
@pytest.mark.parametrize("form", FORMS)
def test_real_widths(
    form: str, path: str, tmp_path: Path, measure: Callable[[str, float, float], None]
) -> None:
    shape = SHAPES[path]
    shapes = {f"{path}.weight": shape}
    sample = Sample(shapes, np.random.default_rng(3), "BF16")
    merge = FORMS[form](sample.putter(f"diffusion_model.{path}."), sample.rng, shape)
    file = sample.write(tmp_path / "lora")
    adapter = Adapter.open(file, Targets.of({"transformer": shapes}))
    change = adapter.changes["transformer"][path]
    assert isinstance(change, Change)
    x = np.random.default_rng(4).normal(size=(8, shape[1])).astype(np.float32)
    for dtype, limit in LIMITS.items():
        layer, weight = _packed(shape, dtype)
        delta = merge(weight) - weight
        rows = mx.array(x).astype(dtype)
        before = as_float64(layer(rows))
        layer.adapter = LayerChanges([(change, 1.0)])
        error = relative_error(as_float64(layer(rows)) - before, as_float64(rows) @ delta.T)
        measure(f"LoRA at real widths, {dtype}", error, limit)
