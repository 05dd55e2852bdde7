"""Safetensors files: a header that is checked before a weight is read, then stateless reads.

A `SafetensorsFile` keeps no handle and no lazy array, so that any thread may read from it at any
time. Whole tensors come from MLX's own reader, several side by side; rows come as bytes.
"""

import json
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..errors import CheckpointError
from ..files import AGAIN

METADATA = "__metadata__"
MAX_HEADER = 100_000_000  # bytes; the format's own library allows no more
SIZES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
FLOATS = {"F16": mx.float16, "BF16": mx.bfloat16, "F32": mx.float32}
INTEGERS = {"U8": mx.uint8, "U32": mx.uint32}
READABLE = FLOATS | INTEGERS


@dataclass(frozen=True)
class SafetensorsFile:
    """A file, and its size and time when its header was read."""

    path: Path
    stamp: tuple[int, int]

    def bytes(self, start: int, length: int) -> np.ndarray:
        """Read some bytes."""
        return read_bytes(self.path, start, length, self.stamp)

    def read(self, entries: Iterable["Entry"]) -> dict[str, mx.array]:
        """Read these of its tensors side by side, as stored, by their names in the file."""
        arrays: dict[str, mx.array] = {}
        wanted = {entry.name: entry for entry in entries}
        # MLX refuses a file that holds a type it lacks. One that was changed is found below.
        with suppress(RuntimeError, KeyError):
            lazy: Any = mx.load(str(self.path), format="safetensors", stream=mx.cpu)
            arrays = {name: lazy[name] for name in wanted}
            del lazy
            mx.eval(list(arrays.values()))
        check_unchanged(self.path, self.stamp)
        for name, entry in wanted.items():
            if name not in arrays or arrays[name].shape != entry.shape:
                arrays[name] = entry.rows(0, entry.shape[0] if entry.shape else 1)
        return arrays


@dataclass(frozen=True)
class Entry:
    """One tensor as the header describes it."""

    file: SafetensorsFile
    name: str  # its key in that file
    dtype: str
    shape: tuple[int, ...]
    start: int  # within the file
    stop: int

    @property
    def where(self) -> str:
        return f"{self.file.path}: tensor '{self.name}'"

    @property
    def count(self) -> int:
        return prod(self.shape)

    def raw(self, start: int, stop: int) -> np.ndarray:
        """Read the bytes of some rows."""
        width = (self.stop - self.start) // max(self.shape[0], 1) if self.shape else 0
        first = self.start + start * width
        length = (stop - start) * width if self.shape else self.stop - self.start
        return self.file.bytes(first, length)

    def rows(self, start: int, stop: int) -> mx.array:
        """Read some rows, as stored, in MLX's type."""
        shape = (stop - start, *self.shape[1:]) if self.shape else ()
        kind = {1: np.uint8, 2: np.uint16, 4: np.uint32}[SIZES[self.dtype]]
        numbers = mx.array(self.raw(start, stop).view(kind))
        return numbers.view(READABLE[self.dtype]).reshape(shape)


def read_bytes(file: Path, start: int, length: int, stamp: tuple[int, int]) -> np.ndarray:
    """Read some bytes of a file that must still be the one whose header was read."""
    raw = np.empty(length, np.uint8)
    try:
        with file.open("rb", buffering=0) as handle:
            handle.seek(start)
            done = 0
            while done < length and (count := handle.readinto(raw.data[done:])):
                done += count
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error}; {AGAIN}") from error
    check_unchanged(file, stamp)
    if done < length:
        raise CheckpointError(f"{file} ended before its last tensor did; {AGAIN}")
    return raw


def check_unchanged(file: Path, stamp: tuple[int, int]) -> None:
    try:
        state = file.stat()
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error}; {AGAIN}") from error
    if (state.st_size, state.st_mtime_ns) != stamp:
        raise CheckpointError(f"{file} was changed while it was being read; start again")


def read_header(path: Path) -> dict[str, Entry]:
    """Return a file's tensors; every offset, shape and length is checked against its size."""
    header, start, stamp = _header(path)
    file = SafetensorsFile(path, stamp)
    entries = {
        key: _entry(file, key, value, start) for key, value in header.items() if key != METADATA
    }
    _check_cover(path, entries, start, stamp[0])
    return entries


def read_metadata(path: Path) -> dict[str, str]:
    """Return the texts that a file's header says about it."""
    header, _, _ = _header(path)
    texts = header.get(METADATA)  # MLX writes null where there is none
    items = texts.items() if isinstance(texts, dict) else ()
    return {name: text for name, text in items if isinstance(text, str)}


def _header(path: Path) -> tuple[dict[str, Any], int, tuple[int, int]]:
    """Return a file's header, the byte at which its tensors begin, and its size and time."""
    try:
        state = path.stat()
        size = state.st_size
        with path.open("rb") as handle:
            start = handle.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            if length > min(MAX_HEADER, size - 8):
                raise CheckpointError(f"{path} is truncated or no safetensors file; {AGAIN}")
            header = json.loads(handle.read(length), object_pairs_hook=_unique)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; {AGAIN}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header must be a JSON object; {AGAIN}")
    return header, 8 + length, (size, state.st_mtime_ns)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object, and refuse one that names a key twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the header names '{next(k for k in keys if keys.count(k) > 1)}' twice")
    return values


def _check_cover(file: Path, entries: dict[str, Entry], start: int, size: int) -> None:
    """Refuse tensors that do not fill the file from its header to its end."""
    last = max((entry.stop for entry in entries.values()), default=start)
    if last > size:
        raise CheckpointError(
            f"{file} is truncated: its tensors need {last} bytes, the file has {size}; {AGAIN}"
        )
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.stop)):
        if entry.start != start:
            raise CheckpointError(
                f"{file}: tensor '{entry.name}' must begin where the one before it ends, at byte "
                f"{start}, not {entry.start}; {AGAIN}"
            )
        start = entry.stop
    if start != size:
        raise CheckpointError(f"{file} has {size - start} bytes after its last tensor; {AGAIN}")


def _entry(file: SafetensorsFile, key: str, value: Any, data: int) -> Entry:
    """Read one entry of a header; `data` is where the tensors begin."""
    kind = value.get("dtype") if isinstance(value, dict) else None
    if isinstance(kind, str) and kind not in SIZES:
        raise CheckpointError(f"{file.path}: tensor '{key}' has the unknown type {kind[:40]!r}")
    try:
        start, stop = value["data_offsets"]
        entry = Entry(file, key, value["dtype"], tuple(value["shape"]), data + start, data + stop)
        is_sound = (
            all(type(n) is int and n >= 0 for n in (*entry.shape, start, stop))
            and stop - start == entry.count * SIZES[entry.dtype]
        )
    except (KeyError, TypeError, ValueError):
        is_sound = False
    if not is_sound:
        raise CheckpointError(f"{file.path}: the header entry of tensor '{key}' is broken; {AGAIN}")
    return entry
