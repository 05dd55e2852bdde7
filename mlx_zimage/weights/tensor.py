"""A checkpoint's tensors, described without being read.

Every reader of a file format yields `Tensor`s under the official keys, and everything downstream
is written once. A tensor is read by rows, so that a large one that will be quantized is never in
memory as a whole. One that a safetensors file holds as it is also names its entries there, so that
several can be read side by side.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING

import mlx.core as mx

from ..models.layers.corrected import corrected
from .packing import Packing

if TYPE_CHECKING:
    from .safetensors import Entry

BY_ROWS = ("side_up", "output_scale")
"""The corrections that have one row for each row of the matrix."""
INTEGERS = (mx.uint8, mx.uint32)
PIECE = 8_000_000  # numbers that are read at once of a tensor that is read by rows

Tensors = dict[str, "Tensor"]
"""Tensors by official key."""
Packings = Mapping[str, Packing]
"""How each quantized layer is stored, by the layer's path."""


@dataclass(frozen=True)
class Tensor:
    where: str  # file and key, for messages
    shape: tuple[int, ...]
    kind: str  # the stored type, in the words of the file's format
    place: tuple[str, int]  # file and offset: tensors are read in this order
    rows: Callable[[int, int], mx.array]  # rows from, to: as numbers
    packing: Packing | None = None
    packed_rows: Callable[[int, int], list[mx.array]] | None = None
    readable: bool = True  # whether `rows` can read this kind
    entries: "tuple[Entry, ...]" = ()  # the file's entries that hold it unchanged
    # What corrects the packed numbers, by the names in `Packing`. `rows` has it applied.
    corrections: Mapping[str, "Tensor"] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return prod(self.shape)

    def read(self) -> mx.array:
        return self.rows(0, self.shape[0] if self.shape else 1)

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yield ranges of rows that hold at most PIECE numbers each."""
        step = max(PIECE // max(prod(self.shape[1:]), 1), 1)
        rows = self.shape[0] if self.shape else 1
        for start in range(0, rows, step):
            yield start, min(start + step, rows)

    def slice(self, start: int, stop: int) -> "Tensor":
        """Return some of its rows as a tensor."""
        packed = self.packed_rows
        corrections = {
            name: tensor.slice(start, stop) if name in BY_ROWS else tensor
            for name, tensor in self.corrections.items()
        }
        return replace(
            self,
            shape=(stop - start, *self.shape[1:]),
            place=(self.place[0], self.place[1] + start),
            rows=lambda a, b: self.rows(start + a, start + b),
            packed_rows=packed and (lambda a, b: packed(start + a, start + b)),
            entries=(),
            corrections=corrections,
        )

    def unpacked(self) -> "Tensor":
        """Return it as a tensor of numbers, without its packing."""
        return replace(self, packing=None, packed_rows=None, entries=(), corrections={})


def packed_tensor(
    where: str,
    shape: tuple[int, int],
    place: tuple[str, int],
    packing: Packing,
    packed_rows: Callable[[int, int], list[mx.array]],
    corrections: Mapping[str, Tensor] | None = None,
    entries: "tuple[Entry, ...]" = (),
) -> Tensor:
    """Return a packed matrix as a tensor; its numbers have the corrections applied."""
    by_name = corrections or {}

    def rows(start: int, stop: int) -> mx.array:
        arrays = packed_rows(start, stop)
        if not by_name:
            return packing.unpack(arrays)
        arrays = [a if a.dtype in INTEGERS else a.astype(mx.float32) for a in arrays]
        beside = {
            name: tensor.rows(start, stop) if name in BY_ROWS else tensor.read()
            for name, tensor in by_name.items()
        }
        return corrected(packing.unpack(arrays, mx.float32), beside)

    return Tensor(
        where,
        shape,
        packing.mode,
        place,
        rows,
        packing,
        packed_rows,
        entries=entries,
        corrections=by_name,
    )


def expanded(tensors: Mapping[str, Tensor], packings: Packings) -> Tensors:
    """Return the tensors, and beside those that stay packed as they are what corrects them."""
    result: Tensors = {}
    for key, tensor in tensors.items():
        path = key.removesuffix(".weight")
        result[key] = tensor
        if tensor.corrections and packings.get(path) == tensor.packing:
            result |= {f"{path}.{name}": t for name, t in tensor.corrections.items()}
    return result


def stored(tensors: Mapping[str, Tensor]) -> Packings:
    """Return how the quantized layers are stored in their files."""
    return {
        key.removesuffix(".weight"): tensor.packing
        for key, tensor in tensors.items()
        if tensor.packing is not None
    }
