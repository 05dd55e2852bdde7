"""How a quantized matrix is stored, in the form that MLX's kernels read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from ..models.layers.rotation import check_rotation, rotate

GROUP_SIZES = {
    **{("affine", bits): (64, 32, 128) for bits in (2, 3, 4, 5, 6, 8)},
    ("mxfp4", 4): (32,),
    ("mxfp8", 8): (32,),
    ("nvfp4", 4): (16,),
}
"""The group sizes that MLX computes with, by mode and bits; the usual one comes first."""
SCALES = ("input_scale", "output_scale")
CORRECTIONS = ("side_down", "side_up", *SCALES)
"""The arrays that may correct a packed matrix, as they are named beside it."""


@dataclass(frozen=True)
class Packing:
    """The storage of a quantized matrix: its mode, bits and group size, in MLX's terms.

    A matrix may be rotated before it is packed; its layer then rotates each input. Arrays of their
    own beside the packed ones may correct it: y = W (x * input_scale) * output_scale
    + side_up (side_down x), with the rank of the side path.
    """

    mode: str
    bits: int
    group_size: int
    rotation: str = ""
    rank: int = 0
    input_scale: bool = False
    output_scale: bool = False

    @classmethod
    def parse(cls, block: Mapping[str, Any]) -> "Packing":
        """Read a packing from a config's block; raise ValueError for one that MLX lacks."""
        mode, bits, group = block.get("mode", "affine"), block.get("bits"), block.get("group_size")
        rotation = block.get("rotation", "")
        if not isinstance(mode, str) or type(bits) is not int or type(group) is not int:
            raise ValueError(f"mode {mode!r}, bits {bits!r}, group_size {group!r}")
        if group not in GROUP_SIZES.get((mode, bits), ()):
            raise ValueError(f"mode {mode}, {bits} bits, groups of {group}")
        if rotation != "":
            check_rotation(str(rotation))
        rank, scales = block.get("rank", 0), [block.get(name, False) for name in SCALES]
        if type(rank) is not int or rank < 0 or not all(type(scale) is bool for scale in scales):
            raise ValueError(f"rank {rank!r}, {' and '.join(SCALES)} {scales!r}")
        return cls(mode, bits, group, rotation, rank, *scales)

    @property
    def block(self) -> dict[str, Any]:
        """The config's block that `parse` reads."""
        return {name: value for name, value in vars(self).items() if value}

    @property
    def plain(self) -> "Packing":
        """The packing of the same arrays that nothing rotates or corrects."""
        return Packing(self.mode, self.bits, self.group_size)

    def corrections(self, rows: int, width: int) -> dict[str, tuple[int, ...]]:
        """Return the names and shapes of the arrays that correct a matrix."""
        shapes: dict[str, tuple[int, ...]] = {}
        if self.rank:
            shapes = {"side_down": (self.rank, width), "side_up": (rows, self.rank)}
        shapes |= {"input_scale": (width,)} if self.input_scale else {}
        return shapes | ({"output_scale": (rows,)} if self.output_scale else {})

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the arrays that stand for one matrix."""
        return ("weight", "scales", "biases")[: 3 if self.mode == "affine" else 2]

    def columns(self, width: int) -> tuple[int, ...]:
        """Return how many columns each of those arrays has for a matrix `width` numbers wide."""
        groups = width // self.group_size
        return (width * self.bits // 32, groups, groups)[: len(self.names)]

    def pack(self, array: mx.array) -> list[mx.array]:
        """Quantize (rows, width) as MLX does."""
        array = rotate(array, self.rotation)
        return list(mx.quantize(array, self.group_size, self.bits, mode=self.mode))

    def unpack(self, arrays: list[mx.array], dtype: mx.Dtype | None = None) -> mx.array:
        """Return the numbers (rows, width) that the packed arrays stand for."""
        words, scales, *biases = arrays
        bias = biases[0] if biases else None
        array = mx.dequantize(
            words, scales, bias, self.group_size, self.bits, mode=self.mode, dtype=dtype
        )
        return rotate(array, self.rotation)


def split_scale(scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split scales in powers of two, which round no level in any type, and what remains of them."""
    with np.errstate(all="ignore"):  # broken scales: what is not finite is found later
        fraction, exponent = np.frexp(scale.astype(np.float32))
        splits = np.isfinite(fraction) & (fraction != 0)
        power = np.where(splits, np.exp2(exponent - 1.0), 1).astype(np.float32)
        return power, np.where(splits, 2 * fraction, fraction).astype(np.float32)


def words(levels: mx.array, bits: int) -> mx.array:
    """Pack integer levels (rows, width) into 32-bit words: `bits` each, lowest first, no gaps."""
    per = levels.reshape(len(levels), -1, 32)  # 32 numbers fill `bits` words
    packed = [mx.zeros(per.shape[:2], mx.uint32) for _ in range(bits)]
    for number in range(32):
        word, shift = divmod(number * bits, 32)
        packed[word] = packed[word] | (per[..., number] << shift)
        if shift + bits > 32:
            packed[word + 1] = packed[word + 1] | (per[..., number] >> (32 - shift))
    return mx.stack(packed, -1).reshape(len(levels), -1)
