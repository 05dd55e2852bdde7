"""Forms that rotate: OFT and BOFT, on a layer's output or on its input.

Rotations are computed on the host, in float64, and without the identity: beside its ones, the
digits of a small rotation would be lost.
"""

from dataclasses import dataclass
from functools import cached_property
from math import prod

import mlx.core as mx
import numpy as np

from ..models.layers.slot import Slot
from .form import Base, Form, Parts, Prepared, f32, ready

Floats = np.ndarray


@dataclass(frozen=True)
class OutputRotation(Form):
    """OFT of LyCORIS: each block of b rows becomes R^T W, then each row times `rescale`."""

    blocks: mx.array  # (n, b, b), where n b = out
    constraint: float = 0.0  # as stored: times `out`, the most norm of all blocks; 0 is none
    rescale: mx.array | None = None  # (out, 1)

    def prepare(self, layer: Slot, dtype: mx.Dtype, strength: float = 1.0) -> Prepared:
        turn = self._turn  # (n, b, b), of rows: y_block turn
        if self.rescale is not None:
            scales = f32(self.rescale).reshape(len(turn), 1, -1)
            turn = turn * scales + (scales - 1) * mx.eye(turn.shape[-1])
        turn = ready(strength * turn, dtype)
        return lambda _, base: Parts(None, _blockwise(base(), turn))

    def delta(self, weight: mx.array) -> mx.array:
        rows = weight.reshape(*self.blocks.shape[:2], -1)
        delta = (self._turn.swapaxes(1, 2) @ rows).reshape(weight.shape)
        return _rescaled(delta, weight, self.rescale)

    def rows(self, start: int, stop: int) -> None:
        return None

    @cached_property
    def _turn(self) -> mx.array:
        """R - I, float32."""
        most = self.constraint * prod(self.blocks.shape[:2])
        return _float32(cayley(self.blocks, most))


@dataclass(frozen=True)
class Butterfly(Form):
    """BOFT of LyCORIS: stages that rotate blocks of b rows, further apart at each stage."""

    blocks: mx.array  # (m, n, b, b), where n b = out
    constraint: float = 0.0  # as stored: times `out`, the most norm of all blocks; 0 is none
    rescale: mx.array | None = None  # (out, 1)

    def prepare(self, layer: Slot, dtype: mx.Dtype, strength: float = 1.0) -> Prepared:
        turns = ready(self._turns, dtype)

        def added(_: mx.array, base: Base) -> Parts:
            y = base()
            out = mx.zeros_like(y)  # what is added so far
            for stage, turn in enumerate(turns):
                out = out + self._gathered(y + out, stage, turn)
            out = f32(out)
            if self.rescale is not None:
                scales = f32(self.rescale).reshape(-1)
                out = scales * out + (scales - 1) * y
            return Parts(None, (strength * out).astype(dtype))

        return added

    def delta(self, weight: mx.array) -> mx.array:
        columns, delta = weight.T, mx.zeros_like(weight.T)
        for stage, turn in enumerate(self._turns):
            delta = delta + self._gathered(columns + delta, stage, turn)
        return _rescaled(delta.T, weight, self.rescale)

    def rows(self, start: int, stop: int) -> None:
        return None

    @cached_property
    def _turns(self) -> mx.array:
        """R^T - I of each stage, float32."""
        most = self.constraint * prod(self.blocks.shape[1:3])
        return _float32(cayley(self.blocks, most).swapaxes(-1, -2))

    def _gathered(self, y: mx.array, stage: int, turn: mx.array) -> mx.array:
        """Turn blocks of numbers that lie 2^stage b/2 apart in the last axis of y."""
        apart = 2**stage * self.blocks.shape[-1] // 2
        shape = (*y.shape[:-1], -1, 2, apart)
        near = y.reshape(shape).swapaxes(-1, -2)
        return (
            _blockwise(near.reshape(y.shape), turn)
            .reshape(near.shape)
            .swapaxes(-1, -2)
            .reshape(y.shape)
        )


@dataclass(frozen=True)
class InputRotation(Form):
    """OFT of PEFT and OneTrainer: W_block R^T for each block of columns."""

    upper: mx.array  # (n, b (b - 1) / 2), where n b = in, or n = 1 for all blocks alike
    block: int
    scaled: bool = False  # whether the numbers are divided by 2 sqrt(b - 1)

    def prepare(self, layer: Slot, dtype: mx.Dtype, strength: float = 1.0) -> Prepared:
        turn = ready(strength * self._turn, dtype)
        return lambda x, _: Parts(_blockwise(x, turn), None)

    def delta(self, weight: mx.array) -> mx.array:
        return _blockwise(weight, self._turn.swapaxes(1, 2))

    def rows(self, start: int, stop: int) -> "InputRotation":
        return self

    @cached_property
    def _turn(self) -> mx.array:
        """R - I, float32."""
        return _float32(neumann(self.upper, self.block, self.scaled))


def _rescaled(delta: mx.array, weight: mx.array, rescale: mx.array | None) -> mx.array:
    """Return the change where each row of the changed weight is multiplied as well."""
    if rescale is None:
        return delta
    scales = f32(rescale).reshape(-1, 1)
    return scales * delta + (scales - 1) * weight


def _float32(turn: Floats) -> mx.array:
    return ready(mx.array(turn.astype(np.float32)), mx.float32)


def _blockwise(x: mx.array, turn: mx.array) -> mx.array:
    """Multiply each block of b numbers of (..., n b) by its matrix (n, b, b)."""
    blocks = x.reshape(-1, x.shape[-1] // turn.shape[-1], turn.shape[-1]).swapaxes(0, 1)
    return (blocks @ turn).swapaxes(0, 1).reshape(x.shape)


def host(array: mx.array) -> Floats:
    """Return an array as float64 on the host."""
    return np.array(array.astype(mx.float32)).astype(np.float64)


def cayley(blocks: mx.array, constraint: float) -> Floats:
    """Return (I + Q)(I - Q)^-1 - I of blocks (..., b, b), where Q = B - B^T.

    A `constraint` above 0 is the most norm that all Q may have together.
    """
    values = host(blocks)
    skew = values - values.swapaxes(-1, -2)
    norm = np.sqrt((skew**2).sum())
    if 0 < constraint < norm:
        skew *= constraint / norm
    return 2 * np.linalg.solve(np.eye(skew.shape[-1]) - skew, skew)  # both factors commute


def neumann(upper: mx.array, block: int, scaled: bool) -> Floats:
    """Return 2 Q + 2 Q^2 + 2 Q^3 + Q^4, where `upper` (n, b(b-1)/2) holds Q above its diagonal."""
    values = host(upper)
    if scaled:
        values = values / (2 * np.sqrt(block - 1))
    skew = np.zeros((len(values), block, block))
    rows, columns = np.triu_indices(block, 1)
    skew[:, rows, columns] = values
    skew -= skew.swapaxes(1, 2)
    square = skew @ skew
    return 2 * (skew + square + square @ skew) + square @ square
