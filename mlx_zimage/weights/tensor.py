"""What a checkpoint holds, whatever its form: tensors that are read when they are needed.

Every reader yields these under the official keys, and what follows is written once. A tensor is
read by rows, so that the largest is never whole in memory when it is to be quantized.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal, get_args

import mlx.core as mx

Part = Literal["text_encoder", "transformer", "vae"]
PARTS: tuple[Part, ...] = get_args(Part)

GROUP_SIZES = {
    **{("affine", bits): (64, 32, 128) for bits in (2, 3, 4, 5, 6, 8)},
    ("mxfp4", 4): (32,),
    ("mxfp8", 8): (32,),
    ("nvfp4", 4): (16,),
}
"""What MLX can compute with: by mode and bits, the usual group size first."""
CHUNK = 8_000_000  # numbers that are read at once
BATCH = 1 << 27  # numbers of whole tensors that are read side by side


@dataclass(frozen=True)
class Packing:
    """How the numbers of a quantized matrix are stored, in MLX's own words."""

    mode: str
    bits: int
    group_size: int

    @classmethod
    def parse(cls, block: Mapping[str, Any]) -> "Packing":
        """From a config's words for it."""
        mode, bits, group = block.get("mode", "affine"), block.get("bits"), block.get("group_size")
        if not isinstance(mode, str) or type(bits) is not int or type(group) is not int:
            raise ValueError(f"mode {mode!r}, bits {bits!r}, group_size {group!r}")
        if group not in GROUP_SIZES.get((mode, bits), ()):
            raise ValueError(f"mode {mode}, {bits} bits, groups of {group}")
        return cls(mode, bits, group)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the arrays that stand for one matrix."""
        return ("weight", "scales", "biases")[: 3 if self.mode == "affine" else 2]


@dataclass(frozen=True)
class Tensor:
    where: str  # file and key, for messages
    shape: tuple[int, ...]
    kind: str  # what it is stored as, in the words of its format
    place: tuple[str, int]  # file and offset: read in this order
    rows: Callable[[int, int], mx.array]  # from, to: as numbers
    packing: Packing | None = None
    packed_rows: Callable[[int, int], list[mx.array]] | None = None
    readable: bool = True  # its kind is one that `rows` can read
    ahead: Callable[[], list[mx.array]] = list  # to evaluate before all of it is read

    @property
    def count(self) -> int:
        return prod(self.shape)

    def read(self) -> mx.array:
        return self.rows(0, self.shape[0] if self.shape else 1)

    def spans(self) -> Iterator[tuple[int, int]]:
        """Its rows, in pieces of a bounded size."""
        step = max(CHUNK // max(prod(self.shape[1:]), 1), 1)
        rows = self.shape[0] if self.shape else 1
        for start in range(0, rows, step):
            yield start, min(start + step, rows)

    def slice(self, start: int, stop: int) -> "Tensor":
        """Some of its rows, as a tensor of their own."""
        packed = self.packed_rows
        return replace(
            self,
            shape=(stop - start, *self.shape[1:]),
            place=(self.place[0], self.place[1] + start),
            rows=lambda a, b: self.rows(start + a, start + b),
            packed_rows=packed and (lambda a, b: packed(start + a, start + b)),
            ahead=list,
        )
