"""The forms that a change of a layer comes in, and what each does.

Notable:
- no dense change is computed to attach a form that has fewer numbers;
- arrays are as stored; scales are Python floats, multiplied in float32 or where a product sums up,
  never rounded to 16 bit alone;
- what a form adds is computed as such, never as a difference of products: 16 bits would lose it.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from math import gcd
from typing import Literal

import mlx.core as mx
import numpy as np

from ..models.layers.slot import Slot
from .form import Base, Form, Parts, Prepared, f32, ready, times, total
from .rotations import Butterfly, Floats, InputRotation, OutputRotation, host

__all__ = [
    "Butterfly",
    "Change",
    "Dense",
    "Factor",
    "Form",
    "Glora",
    "Hadamard",
    "InputRotation",
    "Kronecker",
    "LowRank",
    "Magnitude",
    "OutputRotation",
    "Replacement",
    "VectorChange",
]

SPAN = 4_000_000  # numbers of a weight that are unpacked at once
TINY = 1e-12  # of a length, which divides

Factor = mx.array | tuple[mx.array, mx.array]
"""A matrix, or two whose product it is."""


@dataclass(frozen=True)
class LowRank(Form):
    """LoRA: W + scale up down."""

    down: mx.array  # (r, in)
    up: mx.array  # (out, r)
    scale: float = 1.0

    @property
    def rank(self) -> int:
        return len(self.down)

    def prepare(self, layer: Slot, dtype: mx.Dtype, strength: float = 1.0) -> Prepared:
        down, up = ready(self.down, dtype), ready(self.up, dtype)
        return lambda x, _: Parts(None, times(x @ down.T, up.T, self.scale * strength))

    def delta(self, weight: mx.array) -> mx.array:
        return self.scale * (f32(self.up) @ f32(self.down))

    def rows(self, start: int, stop: int) -> "LowRank":
        return dataclasses.replace(self, up=self.up[start:stop])


@dataclass(frozen=True)
class Hadamard(Form):
    """LoHa: W + scale (w1_a w1_b) o (w2_a w2_b), element by element."""

    w1_a: mx.array  # (out, r)
    w1_b: mx.array  # (r, in)
    w2_a: mx.array
    w2_b: mx.array
    scale: float = 1.0

    @property
    def rank(self) -> int:
        return len(self.w1_b)

    def prepare(self, layer: Slot, dtype: mx.Dtype, strength: float = 1.0) -> Prepared:
        """Compute with rank r^2, or with the dense change where that is less.

        Either is computed anew at each call, in little time beside a product, and not kept.
        """
        (outputs, _), inputs = self.w1_a.shape, self.w1_b.shape[1]
        factor = self.scale * strength
        if self.rank**2 * (inputs + outputs) > inputs * outputs:
            return lambda x, _: Parts(None, times(x, self._dense().astype(dtype).T, factor))

        def added(x: mx.array, _: Base) -> Parts:
            up = (f32(self.w1_a)[:, :, None] * f32(self.w2_a)[:, None]).reshape(outputs, -1)
            down = (f32(self.w1_b)[:, None] * f32(self.w2_b)[None]).reshape(-1, inputs)
            return Parts(None, times(x @ down.astype(dtype).T, up.astype(dtype).T, factor))

        return added

    def delta(self, weight: mx.array) -> mx.array:
        return self.scale * self._dense()

    def rows(self, start: int, stop: int) -> "Hadamard":
        return dataclasses.replace(self, w1_a=self.w1_a[start:stop], w2_a=self.w2_a[start:stop])

    def _dense(self) -> mx.array:
        return (f32(self.w1_a) @ f32(self.w1_b)) * (f32(self.w2_a) @ f32(self.w2_b))


@dataclass(frozen=True)
class Kronecker(Form):
    """LoKr: W + scale kron(w1, w2). `span` takes some rows of that alone."""

    w1: Factor  # (l, m)
    w2: Factor  # (k, n), where l k = out and m n = in
    scale: float = 1.0
    span: tuple[int, int] | None = None

    @property
    def rank(self) -> int | None:
        ranks = [f[1].shape[0] for f in (self.w1, self.w2) if isinstance(f, tuple)]
        return ranks[-1] if ranks else None

    def prepare(self, layer: Slot, dtype: mx.Dtype, strength: float = 1.0) -> Prepared:
        w1 = ready(_full(self.w1) * (self.scale * strength), dtype)
        factors = self.w2 if isinstance(self.w2, tuple) else (self.w2,)
        w2 = [ready(factor, dtype) for factor in reversed(factors)]
        start, stop = self.span or (0, None)

        def added(x: mx.array, _: Base) -> Parts:
            t = x.reshape(*x.shape[:-1], w1.shape[1], -1)  # (..., m, n)
            for factor in w2:
                t = t @ factor.T
            out = (w1 @ t).reshape(*x.shape[:-1], -1)  # (..., l k)
            return Parts(None, out if self.span is None else out[..., start:stop])

        return added

    def delta(self, weight: mx.array) -> mx.array:
        w1, w2 = _full(self.w1), _full(self.w2)
        start, stop = self.span or (0, len(w1) * len(w2))
        numbers = mx.arange(start, stop)
        left, right = w1[numbers // len(w2)], w2[numbers % len(w2)]
        dense = (left[:, :, None] * right[:, None]).reshape(weight.shape)
        return self.scale * dense

    def rows(self, start: int, stop: int) -> "Kronecker":
        first = self.span[0] if self.span else 0
        return dataclasses.replace(self, span=(first + start, first + stop))


@dataclass(frozen=True)
class Glora(Form):
    """GLoRA: W + scale (b1 b2 + W a1 a2)."""

    a1: mx.array  # (in, r)
    a2: mx.array  # (r, in)
    b1: mx.array  # (out, r)
    b2: mx.array  # (r, in)
    scale: float = 1.0

    @property
    def rank(self) -> int:
        return len(self.a2)

    def prepare(self, layer: Slot, dtype: mx.Dtype, strength: float = 1.0) -> Prepared:
        a1, a2, b1, b2 = (ready(a, dtype) for a in (self.a1, self.a2, self.b1, self.b2))
        factor = self.scale * strength

        def added(x: mx.array, _: Base) -> Parts:
            before = times(x @ a2.T, a1.T, factor)
            return Parts(before, times(x @ b2.T, b1.T, factor))

        return added

    def delta(self, weight: mx.array) -> mx.array:
        fixed, of_weight = f32(self.b1) @ f32(self.b2), weight @ f32(self.a1) @ f32(self.a2)
        return self.scale * (fixed + of_weight)

    def rows(self, start: int, stop: int) -> "Glora":
        return dataclasses.replace(self, b1=self.b1[start:stop])


@dataclass(frozen=True)
class Dense(Form):
    """A difference: W + diff."""

    diff: mx.array  # (out, in)

    def prepare(self, layer: Slot, dtype: mx.Dtype, strength: float = 1.0) -> Prepared:
        diff = ready(self.diff, dtype)
        return lambda x, _: Parts(None, times(x, diff.T, strength))

    def delta(self, weight: mx.array) -> mx.array:
        return f32(self.diff)

    def rows(self, start: int, stop: int) -> "Dense":
        return Dense(self.diff[start:stop])


@dataclass(frozen=True)
class Replacement(Form):
    """Another weight in place of W."""

    weight: mx.array  # (out, in)

    def prepare(self, layer: Slot, dtype: mx.Dtype, strength: float = 1.0) -> Prepared:
        weight = ready(self.weight, dtype)

        def added(x: mx.array, base: Base) -> Parts:
            return Parts(None, mx.addmm(base(), x, weight.T, strength, -strength))

        return added

    def delta(self, weight: mx.array) -> mx.array:
        return f32(self.weight) - weight

    def rows(self, start: int, stop: int) -> "Replacement":
        return Replacement(self.weight[start:stop])


@dataclass(frozen=True)
class Magnitude(Form):
    """DoRA: V = W + the inner change, then each row or column of V set to a length."""

    inner: Form
    magnitude: mx.array  # (out,) or (in,)
    axis: Literal["rows", "columns"] = "rows"

    @property
    def rank(self) -> int | None:
        return self.inner.rank

    def prepare(self, layer: Slot, dtype: mx.Dtype, strength: float = 1.0) -> Prepared:
        """Measure V's lengths, by the weights that run, and compute with their quotients."""
        lengths = self._lengths(layer.rows, len(layer.weight))
        quotients = host(self.magnitude).reshape(-1) / lengths
        gain = ready(mx.array((strength * (quotients - 1)).astype(np.float32)), dtype)
        if self.axis == "columns":
            factors = ready(mx.array(quotients.astype(np.float32)), dtype)
            inner = self.inner.prepare(layer, dtype, strength)

            def of_columns(x: mx.array, _: Base) -> Parts:
                scaled = x * factors
                before, after = inner(scaled, lambda: layer.product(scaled))
                moved = x * gain
                return Parts(moved if before is None else moved + before, after)

            return of_columns
        factors = ready(mx.array((strength * quotients).astype(np.float32)), dtype)
        inner = self.inner.prepare(layer, dtype)

        def of_rows(x: mx.array, base: Base) -> Parts:
            return Parts(None, gain * base() + factors * total(inner(x, base), layer))

        return of_rows

    def delta(self, weight: mx.array) -> mx.array:
        lengths = self._lengths(lambda a, b: weight[a:b], len(weight))
        quotients = host(self.magnitude).reshape(-1) / lengths
        if self.axis == "rows":
            quotients = quotients[:, None]
        gain, factors = (mx.array(q.astype(np.float32)) for q in (quotients - 1, quotients))
        return gain * weight + factors * self.inner.delta(weight)

    def rows(self, start: int, stop: int) -> "Magnitude | None":
        inner = self.inner.rows(start, stop)
        if inner is None or self.axis == "columns":
            return None
        return Magnitude(inner, self.magnitude.reshape(-1)[start:stop])

    def _lengths(self, read: Callable[[int, int], mx.array], count: int) -> Floats:
        """Return the length of each row or column of V, from W by rows, in float64."""
        step = count if self.inner.rows(0, 1) is None else max(SPAN // read(0, 1).size, 1)
        squares = []
        for start in range(0, count, step):
            stop = min(start + step, count)
            inner = self.inner if step == count else self.inner.rows(start, stop)
            assert inner is not None
            squares.append(_squares(inner.merged(read(start, stop)), self.axis))
        joined = np.concatenate(squares) if self.axis == "rows" else sum(squares)
        lengths: Floats = np.maximum(np.sqrt(joined), TINY)
        return lengths


def _squares(values: mx.array, axis: str) -> Floats:
    """Return the sum of squares of each row or column: short sums in float32, theirs in float64."""
    if axis == "columns":
        values = values.T
    short = gcd(values.shape[1], 64)
    squares: Floats = host((values**2).reshape(len(values), -1, short).sum(-1)).sum(-1)
    return squares


@dataclass(frozen=True)
class Change:
    """The change of a layer. A form of None leaves the weight."""

    form: Form | None = None
    bias: mx.array | None = None  # added

    @property
    def arrays(self) -> list[mx.array]:
        form = [] if self.form is None else [*self.form.arrays]
        return form if self.bias is None else [*form, self.bias]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)


@dataclass(frozen=True)
class VectorChange:
    """The change of a tensor that no layer multiplies by, such as a norm's weight."""

    values: mx.array
    replaces: bool = False  # else the values are added

    def delta(self, base: mx.array, start: int = 0, stop: int | None = None) -> mx.array:
        """Return the change of some numbers of the tensor, in float32."""
        values = f32(self.values[start:stop])
        return values - base if self.replaces else values

    @property
    def arrays(self) -> list[mx.array]:
        return [self.values]

    @property
    def nbytes(self) -> int:
        return self.values.nbytes


def _full(factor: Factor) -> mx.array:
    if isinstance(factor, tuple):
        return f32(factor[0]) @ f32(factor[1])
    return f32(factor)
