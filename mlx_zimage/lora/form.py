"""The face of a form: a change of one layer's weight, as data.

`W` is the layer's weight (out, in), `W'` the changed one. A form is attached by `prepare`, which
returns a function of the layer's input, and merged by adding `delta`, in float32.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import mlx.core as mx

from ..models.layers.evaluation import evaluate
from ..models.layers.slot import Slot


class Parts(NamedTuple):
    """The change of a product: W `before` + `after`. None is nothing."""

    before: mx.array | None  # (..., in)
    after: mx.array | None  # (..., out)


Base = Callable[[], mx.array]
"""Returns the unchanged product."""
Prepared = Callable[[mx.array, Base], Parts]
"""Returns the change for an input (..., in)."""


class Form:
    """A change of one layer's weight."""

    @property
    def arrays(self) -> Iterator[mx.array]:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # every form is one
            value = getattr(self, field.name)
            if isinstance(value, Form):
                yield from value.arrays
            for array in value if isinstance(value, tuple) else (value,):
                if isinstance(array, mx.array):
                    yield array

    @property
    def nbytes(self) -> int:
        """The bytes of its arrays."""
        return sum(array.nbytes for array in self.arrays)

    @property
    def rank(self) -> int | None:
        """The rank, where the form has one."""
        return None

    def prepare(self, layer: Slot, dtype: mx.Dtype, strength: float = 1.0) -> Prepared:
        """Return what adds `strength` times the change to a layer that computes in `dtype`."""
        raise NotImplementedError

    def delta(self, weight: mx.array) -> mx.array:
        """Return W' - W of a weight, both float32."""
        raise NotImplementedError

    def merged(self, weight: mx.array) -> mx.array:
        """Return the changed weight of an unchanged one, both float32."""
        return weight + self.delta(weight)

    def rows(self, start: int, stop: int) -> "Form | None":
        """Return the form for some rows of the weight alone, or None where it needs all."""
        raise NotImplementedError

    def added(self, x: mx.array, y: mx.array, layer: Slot) -> mx.array:
        """Return (W' - W) x, where y = W x."""
        return total(self.prepare(layer, x.dtype)(x, lambda: y), layer)


def total(parts: Parts, layer: Slot) -> mx.array:
    """Return W `before` + `after`."""
    if parts.before is None:
        assert parts.after is not None
        return parts.after
    product = layer.product(parts.before)
    return product if parts.after is None else product + parts.after


def times(x: mx.array, matrix: mx.array, factor: float) -> mx.array:
    """Return factor x @ matrix. The factor meets the sum, which has more digits than 16 bit."""
    if factor == 1:
        return x @ matrix
    return mx.addmm(mx.zeros((1,), x.dtype), x, matrix, factor)


def f32(array: mx.array) -> mx.array:
    return array.astype(mx.float32)


def ready(array: mx.array, dtype: mx.Dtype) -> mx.array:
    """Return an array in a type, evaluated now, so that it can stay in memory.

    Other threads could not evaluate it later, as it would be on this thread's stream.
    """
    array = array.astype(dtype)
    evaluate(array)
    return array
