"""GGUF files: a header of keys and tensors, then blocks of numbers."""

import struct
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import mlx.core as mx
import numpy as np

from ...errors import CheckpointError
from ...files import AGAIN
from ..packing import Packing, words
from ..safetensors import read_bytes
from ..tensor import Tensor, Tensors
from .gguf_blocks import TYPES, Blocks

MAGIC = b"GGUF"
SCALARS = dict(zip((*range(8), 10, 11, 12), "BbHhIif?Qqd", strict=True))  # as in `struct`
STRING, ARRAY = 8, 9
ALIGNMENT = 32  # of the data, unless the header says otherwise
DEEPEST = 4  # arrays in arrays
LONGEST = 1 << 24  # bytes of one text
CARRIED = {"Q8_0": 8, "Q4_0": 4, "Q4_1": 4}
"""Types whose blocks are MLX's affine groups of 32 in another order, and the bits of each."""


def read_gguf(file: Path) -> Tensors:
    """Return a GGUF file's tensors, under its own names."""
    try:
        state = file.stat()
        with file.open("rb") as handle:
            return _read(file, handle, (state.st_size, state.st_mtime_ns))
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error}; {AGAIN}") from error
    except (ValueError, OverflowError) as error:
        raise CheckpointError(f"{file} is truncated or no GGUF file: {error}; {AGAIN}") from error


def _read(file: Path, handle: BinaryIO, stamp: tuple[int, int]) -> Tensors:
    header = _Header(handle, stamp[0])
    if header.take(4) != MAGIC:
        raise ValueError("it does not begin with GGUF")
    version = header.number("I")
    if version not in (2, 3):
        raise ValueError(f"version {version} is not known")
    count, keys = header.number("Q"), header.number("Q")
    alignment = ALIGNMENT
    for _ in range(header.bounded(keys)):
        key, value = header.text(), header.value(header.number("I"))
        if key == "general.alignment":
            alignment = value
    if type(alignment) is not int or not 0 < alignment <= 1 << 20:
        raise ValueError(f"an alignment of {alignment!r}")
    entries = [header.tensor() for _ in range(header.bounded(count))]
    start = -(-handle.tell() // alignment) * alignment
    tensors = {entry[0]: _tensor(file, stamp, start, *entry) for entry in entries}
    if len(tensors) != len(entries):
        raise ValueError("two tensors have one name")
    return tensors


class _Header:
    """Reads a header's values; none may be longer than what remains of the file."""

    def __init__(self, handle: BinaryIO, size: int):
        self._handle, self._size = handle, size

    def take(self, length: int) -> bytes:
        data = self._handle.read(self.bounded(length))
        if len(data) < length:
            raise ValueError("it ends within its header")
        return data

    def bounded(self, count: int) -> int:
        """Return a count, or refuse one that exceeds the bytes that remain."""
        if not 0 <= count <= self._size - self._handle.tell():
            raise ValueError(f"a count of {count} at byte {self._handle.tell()} of {self._size}")
        return count

    def number(self, kind: str) -> Any:
        return struct.unpack(f"<{kind}", self.take(struct.calcsize(kind)))[0]

    def text(self) -> str:
        length = self.number("Q")
        if length > LONGEST:
            raise ValueError(f"a text of {length} bytes")
        return self.take(length).decode("utf-8", "replace")

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.text()
        if kind != ARRAY or depth == DEEPEST:
            raise ValueError(f"a value of type {kind}")
        inner, count = self.number("I"), self.number("Q")
        for _ in range(self.bounded(count)):
            self.value(inner, depth + 1)
        return None  # no array is needed here

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Read a tensor's name, shape, type and offset."""
        name, dimensions = self.text(), self.number("I")
        if dimensions > 4:
            raise ValueError(f"tensor '{name}' has {dimensions} dimensions")
        sides = [self.number("Q") for _ in range(dimensions)]
        return name, tuple(reversed(sides)), self.number("I"), self.number("Q")


@dataclass(frozen=True)
class _Stored:
    """One tensor of the file, stored in blocks along its rows."""

    file: Path
    stamp: tuple[int, int]
    shape: tuple[int, ...]
    blocks: Blocks
    start: int  # within the file

    @property
    def each(self) -> int:
        """The bytes of one row, a row being one item of the first dimension."""
        inner = prod(self.shape[1:])
        return inner // self.blocks.numbers * self.blocks.size

    def raw(self, start: int, stop: int) -> np.ndarray:
        at = self.start + start * self.each
        return read_bytes(self.file, at, (stop - start) * self.each, self.stamp)

    def numbers(self, start: int, stop: int) -> mx.array:
        values = mx.array(self.blocks.decode(self.raw(start, stop)))
        return values.reshape(stop - start, *self.shape[1:])

    def packed(self, start: int, stop: int) -> list[mx.array]:
        """Return rows as MLX packs them: levels in another order, scales unchanged, no rounding."""
        fields = self.blocks.split(self.raw(start, stop))
        scale = np.ascontiguousarray(fields["d"]).view(np.float16)
        low = fields["low"]
        if self.blocks.name == "Q8_0":
            levels = low ^ np.uint8(128)  # from -128..127 to 0..255
            bias = scale * np.float16(-128)
        else:
            levels = np.concatenate([low & np.uint8(15), low >> np.uint8(4)], -1)
            signed = self.blocks.name == "Q4_0"
            bias = scale * np.float16(-8) if signed else _minima(fields)
        rows, width = stop - start, self.shape[1]
        numbers = mx.array(levels.reshape(rows, width).astype(np.uint32))
        scales, biases = (mx.array(a.reshape(rows, width // 32)) for a in (scale, bias))
        return [words(numbers, CARRIED[self.blocks.name]), scales, biases]


def _minima(fields: dict[str, np.ndarray]) -> np.ndarray:
    return np.ascontiguousarray(fields["m"]).view(np.float16)


def _tensor(
    file: Path,
    stamp: tuple[int, int],
    data: int,
    name: str,
    shape: tuple[int, ...],
    number: int,
    offset: int,
) -> Tensor:
    where = f"{file}: tensor '{name}'"
    if number not in TYPES:
        known = ", ".join(blocks.name for blocks in TYPES.values())
        raise CheckpointError(f"{where} must be one of {known}, not of GGUF's type {number}")
    blocks = TYPES[number]
    if (shape[-1:] and shape[-1] % blocks.numbers) or (len(shape) < 2 and blocks.numbers > 1):
        raise CheckpointError(f"{where}: {blocks.name} cannot have the shape {shape}; {AGAIN}")
    stored = _Stored(file, stamp, shape, blocks, data + offset)
    if stored.start + prod(shape) // blocks.numbers * blocks.size > stamp[0]:
        raise CheckpointError(f"{where} ends after the file does; {AGAIN}")
    tensor = Tensor(where, shape, blocks.name, (str(file), stored.start), stored.numbers)
    is_matrix = name.endswith(".weight") and len(shape) == 2 and shape[1] % 64 == 0
    if is_matrix and blocks.name in CARRIED:
        packing = Packing("affine", CARRIED[blocks.name], 32)
        return replace(tensor, packing=packing, packed_rows=stored.packed)
    return tensor
