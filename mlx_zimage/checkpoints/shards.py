"""Safetensors files, checked by their headers before a weight is read."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..errors import CheckpointError

MAX_HEADER = 100_000_000  # bytes; what the format's own library allows
SIZES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
FLOATS = ("F16", "BF16", "F32")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
AGAIN = "copy or download it again"


@dataclass(frozen=True)
class Entry:
    """One tensor as the header describes it."""

    file: Path
    name: str  # its key in that file
    dtype: str
    shape: tuple[int, ...]
    start: int  # within the file
    stop: int

    @property
    def count(self) -> int:
        count = 1
        for side in self.shape:
            count *= side
        return count


def read_header(file: Path) -> dict[str, Entry]:
    """The tensors of one file; every offset, shape and length is checked against its size."""
    try:
        size = file.stat().st_size
        with file.open("rb") as handle:
            start = handle.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            if length > min(MAX_HEADER, size - 8):
                raise CheckpointError(f"{file} is truncated or no safetensors file; {AGAIN}")
            header = json.loads(handle.read(length))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}; {AGAIN}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{file}: the header must be a JSON object; {AGAIN}")
    entries = {
        key: _entry(file, key, value, 8 + length)
        for key, value in header.items()
        if key != "__metadata__"
    }
    _check_cover(file, entries, 8 + length, size)
    return entries


def _check_cover(file: Path, entries: dict[str, Entry], start: int, size: int) -> None:
    """The tensors must fill the file from its header to its end, as the format demands."""
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


def _entry(file: Path, key: str, value: Any, data: int) -> Entry:
    try:
        start, stop = value["data_offsets"]
        shape = tuple(value["shape"])
        entry = Entry(file, key, value["dtype"], shape, data + start, data + stop)
        good = (
            all(type(n) is int and n >= 0 for n in (*entry.shape, start, stop))
            and stop - start == entry.count * SIZES[entry.dtype]
        )
    except (KeyError, TypeError, ValueError):
        good = False
    if not good:
        raise CheckpointError(f"{file}: the header entry of tensor '{key}' is broken; {AGAIN}")
    return entry


def find_weights(folder: Path) -> dict[str, Entry]:
    """All tensors of one part's folder, from its index and shards or from its one file."""
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if len(indexes) > 1:
        raise CheckpointError(f"{folder} must hold one index, not {[p.name for p in indexes]}")
    if indexes:
        return _from_index(indexes[0])
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return read_header(files[0])
    if files:
        raise CheckpointError(
            f"{folder} holds {len(files)} safetensors files and no index that says which belong "
            f"together; {AGAIN}"
        )
    pickles = [p.name for p in folder.glob("*") if p.suffix in PICKLES]
    reason = f"; {pickles[0]} is a pickle, which is never loaded" if pickles else ""
    raise CheckpointError(f"{folder} must hold a .safetensors file{reason}")


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a checkpoint's folder."""
    try:
        data = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{file} is missing; {AGAIN}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}; {AGAIN}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{file} must hold a JSON object; {AGAIN}")
    return data


def _from_index(index: Path) -> dict[str, Entry]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError(f"{index} must map tensors to files in 'weight_map'; {AGAIN}")
    names = sorted(set(places.values()))
    if outside := [name for name in names if name in ("", ".", "..") or {*name} & {*"/\\:"}]:
        raise CheckpointError(f"{index} must name files beside it, not {outside[0]!r}")
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        raise CheckpointError(
            f"{index.parent} lacks {', '.join(missing)}, named by its index; download it again"
        )
    headers = {name: read_header(index.parent / name) for name in names}
    if lost := [key for key, name in places.items() if key not in headers[name]]:
        raise CheckpointError(
            f"{index.parent / places[lost[0]]} lacks tensor '{lost[0]}', which the index puts "
            f"there; {AGAIN}"
        )
    if extra := [key for header in headers.values() for key in header if key not in places]:
        raise CheckpointError(f"{index} does not list tensor '{extra[0]}' of its shards; {AGAIN}")
    return {key: headers[name][key] for key, name in places.items()}


def read_arrays(entries: dict[str, Entry]) -> Iterator[tuple[str, mx.array]]:
    """Each tensor in turn, file by file in the order of the bytes, holding none of them."""
    for file in dict.fromkeys(entry.file for entry in entries.values()):
        wanted = {key: entry for key, entry in entries.items() if entry.file == file}
        try:
            arrays = mx.load(str(file))
        except (RuntimeError, OSError) as error:
            raise CheckpointError(f"{file} cannot be read: {error}; {AGAIN}") from error
        assert isinstance(arrays, dict)
        for key, entry in sorted(wanted.items(), key=lambda item: item[1].start):
            yield key, arrays.pop(entry.name)
