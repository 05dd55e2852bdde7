"""Affine groups: their scale and bias searched for, in MLX's own format.

Clipping an end of a group a little, and fitting scale and bias to the levels that result, brings
the rest of it nearer. MLX's kernels read what comes of it as they read `mx.quantize`'s.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import mlx.core as mx

from ..weights.tensor import Packing

CLIPPED = (0.0, 0.5)
"""Where the search begins at either end of a group, in steps inside its smallest and largest."""
REFITS = 2
TINY = 1e-8  # in place of a step of zero
AT_ONCE = {mx.DeviceType.cpu: 1 << 19, mx.DeviceType.gpu: 1 << 23}
"""Numbers: what fits a CPU's cache is 2.5 times as fast as 16 million; a GPU wants more."""
MOST_WORKERS = 8


def search(array: mx.array, packing: Packing) -> list[mx.array]:
    """As `mx.quantize` has it, and nearer: in float32 no group is worse."""
    device = mx.default_device().type
    rows = max(AT_ONCE[device] // array.shape[1], 1)
    mx.eval(array)

    def piece(start: int) -> list[mx.array]:
        found = _search(array[start : start + rows], packing)
        mx.eval(found)
        return found

    def piece_apart(start: int) -> list[mx.array]:
        with mx.stream(_own.stream):
            return piece(start)

    starts = range(0, len(array), rows)
    on_cpu = device == mx.DeviceType.cpu
    pieces = list(_workers().map(piece_apart, starts) if on_cpu else map(piece, starts))
    return [mx.concatenate(list(arrays)) for arrays in zip(*pieces, strict=True)]


_own = threading.local()


@cache
def _workers() -> ThreadPoolExecutor:
    """MLX gives each operation one core of a CPU, and each thread has streams of its own."""

    def begin() -> None:
        _own.stream = mx.new_stream(mx.cpu)

    return ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_WORKERS), initializer=begin)


def _search(array: mx.array, packing: Packing) -> list[mx.array]:
    top, kind = 2**packing.bits - 1, array.dtype
    groups = array.astype(mx.float32).reshape(len(array), -1, packing.group_size)
    found = _searched(groups, top, kind)
    _, *plain = mx.quantize(array, packing.group_size, packing.bits)
    scale, bias = (value.astype(mx.float32)[..., None] for value in plain)
    usual = _Line(_not_zero(scale), bias)
    nearest = found.where(found.error(groups, top) < usual.error(groups, top), usual)
    levels = nearest.levels(groups, top).astype(mx.uint32).reshape(len(array), -1)
    return [
        words(levels, packing.bits),
        nearest.scale.squeeze(-1).astype(kind),
        nearest.bias.squeeze(-1).astype(kind),
    ]


def words(levels: mx.array, bits: int) -> mx.array:
    """Levels (rows, width) as MLX packs them: `bits` each, the first lowest, without gaps."""
    per = levels.reshape(len(levels), -1, 32)  # 32 numbers fill `bits` words
    words = [mx.zeros(per.shape[:2], mx.uint32) for _ in range(bits)]
    for number in range(32):
        word, shift = divmod(number * bits, 32)
        words[word] = words[word] | (per[..., number] << shift)
        if shift + bits > 32:
            words[word + 1] = words[word + 1] | (per[..., number] >> (32 - shift))
    return mx.stack(words, -1).reshape(len(levels), -1)


@dataclass(frozen=True)
class _Line:
    """A scale and a bias for each group, (rows, groups, 1)."""

    scale: mx.array
    bias: mx.array

    def levels(self, groups: mx.array, top: int) -> mx.array:
        return mx.clip(mx.round((groups - self.bias) * (1 / self.scale)), 0, top)

    def error(self, groups: mx.array, top: int) -> mx.array:
        away = self.scale * self.levels(groups, top) + self.bias - groups
        return away.square().sum(-1, keepdims=True)

    def where(self, mine: mx.array, other: "_Line") -> "_Line":
        return _Line(mx.where(mine, self.scale, other.scale), mx.where(mine, self.bias, other.bias))


def _searched(groups: mx.array, top: int, kind: mx.Dtype) -> _Line:
    """The best of some lines through clipped groups, fitted again, in numbers of `kind`."""
    mean = groups.mean(-1, keepdims=True)
    centred = groups - mean
    low = centred.min(-1, keepdims=True)
    span = centred.max(-1, keepdims=True) - low
    best, most = _Line(low, low), mx.full(low.shape, -1.0)
    for left in CLIPPED:
        for right in CLIPPED:
            step = mx.maximum(span * ((1 - (left + right) / top) / top), TINY)
            levels = _Line(step, low + span * (left / top)).levels(centred, top)
            fitted, explained = _fit(centred, levels)
            best = fitted.where(explained > most, best)
            most = mx.maximum(explained, most)
    for _ in range(REFITS):
        best, _ = _fit(centred, best.levels(centred, top))
    scale = _not_zero(best.scale.astype(kind).astype(mx.float32))
    middle = _Line(scale, best.bias).levels(centred, top).mean(-1, keepdims=True)
    return _Line(scale, (mean - scale * middle).astype(kind).astype(mx.float32))


def _fit(centred: mx.array, levels: mx.array) -> tuple[_Line, mx.array]:
    """The line that least squares gives these levels, and the squares it explains."""
    middle = levels.mean(-1, keepdims=True)
    spread = levels.square().sum(-1, keepdims=True) - middle.square() * levels.shape[-1]
    covariance = (levels * centred).sum(-1, keepdims=True)
    scale = covariance / mx.maximum(spread, TINY)
    return _Line(_not_zero(scale), -scale * middle), covariance * scale


def _not_zero(scale: mx.array) -> mx.array:
    return mx.where(mx.abs(scale) < TINY, TINY, scale)
