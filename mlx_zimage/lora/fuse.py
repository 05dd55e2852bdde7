"""LoRAs merged into a checkpoint's weights, for good: what `convert` writes.

Weights are merged when they are read, by rows, in float32, and are rounded once by whoever asked
for them. Packed weights take no LoRA: their steps are larger than most changes, which rounding
would remove.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx

from ..checkpoint.checkpoint import Checkpoint
from ..checks import path_text
from ..errors import LoraError
from ..weights.safetensors import FLOATS
from ..weights.tensor import Tensor, Tensors
from .adapter import Adapter
from .form import f32
from .forms import Change, Form, VectorChange
from .source import Lora

FLOAT8 = "F8"
"""Beginning of the kinds of 8-bit floats, whose steps are fine enough to be merged with."""
Opened = Sequence[tuple[Lora, Adapter]]


def fused(checkpoint: Checkpoint, loras: Opened) -> Checkpoint:
    """Return a checkpoint whose tensors have LoRAs merged in."""
    # Sorted, so that their order has no effect on rounding either.
    ordered = sorted(loras, key=lambda pair: (pair[1].identity, pair[0].scale))
    components = dict(checkpoint.components)
    for name, stored in components.items():
        tensors = dict(stored.tensors)
        for path, changes in _by_path(name, ordered).items():
            _merge(tensors, path, changes)
        components[name] = replace(stored, tensors=tensors)
    return replace(checkpoint, components=components)


def _by_path(component: str, loras: Opened) -> dict[str, list[tuple[Any, float]]]:
    by_path: dict[str, list[tuple[Any, float]]] = defaultdict(list)
    for lora, adapter in loras:
        for path, change in adapter.changes.get(component, {}).items() if lora.scale else ():
            by_path[path].append((change, lora.scale))
    return by_path


def _merge(tensors: Tensors, path: str, changes: Sequence[tuple[Any, float]]) -> None:
    """Put a module's changes into its tensors."""
    key, bias = f"{path}.weight", f"{path}.bias"
    vectors = [(c, scale) for c, scale in changes if isinstance(c, VectorChange)]
    layers = [(c, scale) for c, scale in changes if isinstance(c, Change)]
    forms = [(c.form, scale) for c, scale in layers if c.form is not None]
    biases = [(VectorChange(c.bias), scale) for c, scale in layers if c.bias is not None]
    if biases and bias not in tensors:
        raise LoraError(
            f"a LoRA adds a bias to {path}, which has none, and the official layout has no place "
            "for it; apply the LoRA when drawing instead (--lora)"
        )
    if forms:
        _check_unpacked(tensors[key])
        tensors[key] = _changed(tensors[key], Merging(tensors[key], forms))
    for name, several in ((key, vectors), (bias, biases)):
        if several:
            tensors[name] = _changed(tensors[name], Adding(tensors[name], several))


def _changed(tensor: Tensor, rows: Any) -> Tensor:
    return replace(tensor, rows=rows, kind="F32", entries=(), packed_rows=None)


def _check_unpacked(tensor: Tensor) -> None:
    is_float = tensor.kind in FLOATS or tensor.kind.startswith(FLOAT8)
    if tensor.packing is not None or not is_float:
        raise LoraError(
            f"{path_text(tensor.where)} is quantized, and a LoRA would be lost in its steps; "
            "convert from the unquantized checkpoint, or apply the LoRA when drawing (--lora)"
        )


@dataclass
class Merging:
    """The rows of a matrix with changes merged in, in float32."""

    tensor: Tensor
    forms: Sequence[tuple[Form, float]]
    _complete: mx.array | None = None  # where a form needs all rows at once

    def __call__(self, start: int, stop: int) -> mx.array:
        parts = [(form.rows(start, stop), scale) for form, scale in self.forms]
        by_rows = [(form, scale) for form, scale in parts if form is not None]
        if len(by_rows) == len(parts):
            return _sum(f32(self.tensor.rows(start, stop)), by_rows)
        if self._complete is None:
            self._complete = _sum(f32(self.tensor.read()), self.forms)
            mx.eval(self._complete)
        rows = self._complete[start:stop]
        if stop == self.tensor.shape[0]:
            self._complete = None  # tensors are read in order, and once
        return rows


@dataclass
class Adding:
    """The numbers of a norm or a bias with changes added, in float32."""

    tensor: Tensor
    changes: Sequence[tuple[VectorChange, float]]

    def __call__(self, start: int, stop: int) -> mx.array:
        base = f32(self.tensor.rows(start, stop))
        total = base
        for change, scale in self.changes:
            total = total + scale * change.delta(base, start, stop)
        return total


def _sum(weight: mx.array, forms: Sequence[tuple[Form, float]]) -> mx.array:
    deltas = [scale * form.delta(weight) for form, scale in forms]
    return weight + sum(deltas[1:], deltas[0])
