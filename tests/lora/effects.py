"""What adapters do, measured: their forms merged, and layers that have them attached."""

from collections.abc import Iterable, Mapping
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_zimage.lora.adapter import Adapter
from mlx_zimage.lora.attach import Attached
from mlx_zimage.lora.forms import VectorChange
from tests.measures import as_float64, relative_error

Weights = Mapping[str, np.ndarray]


def merged(adapter: Adapter, weights: Weights) -> dict[str, np.ndarray]:
    """Return what an adapter's forms make of these weights."""
    result = {}
    for path, change in adapter.changes["transformer"].items():
        key = f"{path}.weight"
        if isinstance(change, VectorChange):
            change_of = as_float64(change.values)
            result[key] = change_of if change.replaces else weights[key] + change_of
            continue
        if change.form is not None:
            weight = mx.array(weights[key].astype(np.float32))
            result[key] = as_float64(change.form.merged(weight))
        if change.bias is not None:
            base = weights.get(f"{path}.bias", np.zeros(len(weights[key])))
            result[f"{path}.bias"] = base + as_float64(change.bias)
    return result


def layer(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = module[int(name) if isinstance(module, list) else name]
    return module


def running(module: Any, shapes: Iterable[str]) -> Weights:
    """Return the weights that a module runs, unpacked, by official key."""
    weights = {}
    for key in shapes:
        path, _, name = key.rpartition(".")
        place = layer(module, path) if path else module
        array = place[name]
        if name == "weight" and "scales" in place:
            packed = array, place.scales, place.get("biases")
            array = mx.dequantize(*packed, place.group_size, place.bits, mode=place.mode)
        weights[key] = as_float64(array)
    return weights


def attach_error(
    base: Any, changed: Any, weights: Weights, expected: Mapping[str, np.ndarray]
) -> float:
    """Return the worst error of a layer's outputs, adapted less base, relative to x delta^T."""
    errors = []
    for path in sorted({key.rpartition(".")[0] for key in expected}):
        before, after = layer(base, path), layer(changed, path)
        weight = weights[f"{path}.weight"]
        delta = expected.get(f"{path}.weight", weight) - weight
        if weight.ndim == 1:
            effect = as_float64(after.weight) - as_float64(before.weight)
            errors.append(relative_error(effect, delta))
            continue
        x = np.random.RandomState(7).standard_normal((24, weight.shape[1]))
        rows = mx.array(x.astype(np.float32)).astype(base.dtype)
        bias = weights.get(f"{path}.bias", np.zeros(len(weight)))
        shift = expected.get(f"{path}.bias", bias) - bias
        effect = as_float64(after(rows)) - as_float64(before(rows))
        errors.append(relative_error(effect, as_float64(rows) @ delta.T + shift))
    return max(errors)


def attached(base: Any, *adapters: tuple[Adapter, float]) -> Any:
    changes = [(adapter.changes, strength) for adapter, strength in adapters]
    return Attached(changes).attach("transformer", base)
