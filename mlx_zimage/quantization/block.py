"""One block calibrated: its layers' inputs recorded while it runs, then its matrices rounded."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_map_with_path

from ..device import give_back
from ..weights.packing import Packing
from .calibrated import Factor, calibrate, rotated

Candidates = Mapping[str, Sequence[Packing]]
"""The packings that each layer is rounded to, by the layer's path."""


class Inputs:
    """The sum H = X^T X over the inputs that some layers share."""

    def __init__(self, width: int):
        self.layers: list[str] = []
        self._sum = mx.zeros((width, width))

    def add(self, x: mx.array) -> None:
        rows = x.reshape(-1, x.shape[-1]).astype(mx.float32)
        self._sum = mx.addmm(self._sum, rows.T, rows)
        mx.eval(self._sum)

    def take(self) -> np.ndarray:
        """Return H, which is no longer held here."""
        hessian = np.array(self._sum)
        self._sum = mx.zeros((1, 1))
        give_back()
        return hessian


class Recording:
    """The inputs of a block's layers; those that are called with the same array share them."""

    def __init__(self) -> None:
        self.inputs: list[Inputs] = []
        self.outputs: dict[str, float] = {}  # sums of squares, by layer
        self._of: dict[str, Inputs] = {}
        self._last: tuple[mx.array | None, Inputs | None] = (None, None)

    def see(self, layer: str, x: mx.array, y: mx.array) -> None:
        last_x, last = self._last
        if layer not in self._of:
            if last is None or last_x is not x:
                self.inputs.append(Inputs(x.shape[-1]))
                last = self.inputs[-1]
            self._of[layer] = last
            last.layers.append(layer)
        if last_x is not x:
            self._of[layer].add(x)
            self._last = (x, self._of[layer])
        squares = float(y.astype(mx.float32).square().sum())
        self.outputs[layer] = self.outputs.get(layer, 0.0) + squares


class _Recorded(nn.Module):
    """A layer that shows what it is called with."""

    def __init__(self, layer: nn.Module, see: Callable[[mx.array, mx.array], None]):
        super().__init__()  # type: ignore[no-untyped-call]  # MLX's
        self.layer, self._see = layer, see

    def __call__(self, x: mx.array) -> mx.array:
        y: mx.array = self.layer(x)
        self._see(x, y)
        return y


@contextmanager
def record(block: nn.Module, layers: Sequence[str]) -> Iterator[Recording]:
    """Record what these layers of a block, by their paths in it, are called with."""
    recording = Recording()
    plain = block.leaf_modules()

    def shown(path: str, layer: nn.Module) -> nn.Module:
        if path not in layers:
            return layer
        return _Recorded(layer, lambda x, y: recording.see(path, x, y))

    block.update_modules(tree_map_with_path(shown, plain, is_leaf=nn.Module.is_module))
    try:
        yield recording
    finally:
        block.update_modules(plain)


def label(packing: Packing) -> str:
    """Return a packing's name among the candidates of a layer."""
    return f"{packing.bits}-{packing.rotation}" if packing.rotation else str(packing.bits)


def calibrate_block(
    recording: Recording,
    candidates: Candidates,
    read: Callable[[str], mx.array],
    dtype: mx.Dtype,
) -> dict[str, mx.array]:
    """Return the arrays of all candidates, under LAYER.LABEL.weight, .scales and .biases.

    LAYER.LABEL.error is the error of the layer's outputs relative to them, squared. `read` returns
    a layer's matrix.
    """
    arrays: dict[str, mx.array] = {}
    for inputs in recording.inputs:
        hessian = inputs.take()
        rotations = sorted({p.rotation for layer in inputs.layers for p in candidates[layer]})
        for rotation in rotations:
            turned = rotated(hessian, rotation)
            if rotation == rotations[-1]:
                del hessian  # the largest is 0.4 GB
            factor = Factor.of(turned)
            del turned
            give_back()
            for layer in inputs.layers:
                weight = read(layer)
                for packing in [p for p in candidates[layer] if p.rotation == rotation]:
                    packed, error = calibrate(weight, factor, packing, dtype)
                    name = f"{layer}.{label(packing)}"
                    keys = [f"{name}.{part}" for part in packing.names]
                    arrays |= dict(zip(keys, packed, strict=True))
                    share = error / (recording.outputs[layer] or 1.0)
                    arrays[f"{name}.error"] = mx.array([share], mx.float32)
    return arrays
