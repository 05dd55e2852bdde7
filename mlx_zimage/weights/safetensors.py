"""Safetensors files, checked by their headers before a weight is read."""

import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..errors import CheckpointError
from ..files import AGAIN, read_json
from .tensor import Packing, Tensor
from .whole import Whole

MAX_HEADER = 100_000_000  # bytes; what the format's own library allows
SIZES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
FLOATS = {"F16": mx.float16, "BF16": mx.bfloat16, "F32": mx.float32}
WORDS = {"U8": mx.uint8, "U32": mx.uint32}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Entry:
    """One tensor as the header describes it."""

    file: Path
    name: str  # its key in that file
    dtype: str
    shape: tuple[int, ...]
    start: int  # within the file
    stop: int
    stamp: tuple[int, int] = (0, 0)  # the file's size and time when its header was read
    whole: Whole | None = field(default=None, compare=False, repr=False)

    @property
    def where(self) -> str:
        return f"{self.file}: tensor '{self.name}'"

    @property
    def count(self) -> int:
        return prod(self.shape)

    def raw(self, start: int, stop: int) -> np.ndarray:
        """The bytes of some rows."""
        width = (self.stop - self.start) // max(self.shape[0], 1) if self.shape else 0
        first = self.start + start * width
        length = (stop - start) * width if self.shape else self.stop - self.start
        return read_bytes(self.file, first, length, self.stamp)

    def ahead(self) -> list[mx.array]:
        """What `rows` will take when it is asked for all of them."""
        array = None if self.whole is None else self.whole.lazy(self.name)
        return [] if array is None else [array]

    def rows(self, start: int, stop: int) -> mx.array:
        """As stored, in MLX's type."""
        shape = (stop - start, *self.shape[1:]) if self.shape else ()
        if self.whole is not None and shape == self.shape:
            array = self.whole.take(self.name)
            _check_unchanged(self.file, self.stamp)
            if array is not None and array.shape == shape:
                return array
        kind = {1: np.uint8, 2: np.uint16, 4: np.uint32}[SIZES[self.dtype]]
        words = mx.array(self.raw(start, stop).view(kind))
        return words.view((FLOATS | WORDS)[self.dtype]).reshape(shape)


def read_bytes(file: Path, start: int, length: int, stamp: tuple[int, int]) -> np.ndarray:
    """Some bytes of a file that must still be the one whose header was read."""
    raw = np.empty(length, np.uint8)
    try:
        with file.open("rb", buffering=0) as handle:
            handle.seek(start)
            done = 0
            while done < length and (count := handle.readinto(raw.data[done:])):
                done += count
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error}; {AGAIN}") from error
    _check_unchanged(file, stamp)
    if done < length:
        raise CheckpointError(f"{file} ended before its last tensor did; {AGAIN}")
    return raw


def _check_unchanged(file: Path, stamp: tuple[int, int]) -> None:
    try:
        state = file.stat()
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error}; {AGAIN}") from error
    if (state.st_size, state.st_mtime_ns) != stamp:
        raise CheckpointError(f"{file} was changed while it was being read; start again")


def read_header(file: Path) -> dict[str, Entry]:
    """The tensors of one file; every offset, shape and length is checked against its size."""
    try:
        state = file.stat()
        size, stamp = state.st_size, (state.st_size, state.st_mtime_ns)
        with file.open("rb") as handle:
            start = handle.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            if length > min(MAX_HEADER, size - 8):
                raise CheckpointError(f"{file} is truncated or no safetensors file; {AGAIN}")
            header = json.loads(handle.read(length), object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}; {AGAIN}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{file}: the header must be a JSON object; {AGAIN}")
    whole = Whole(file)
    entries = {
        key: replace(_entry(file, key, value, 8 + length, stamp), whole=whole)
        for key, value in header.items()
        if key != "__metadata__"
    }
    _check_cover(file, entries, 8 + length, size)
    return entries


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the header names '{next(k for k in keys if keys.count(k) > 1)}' twice")
    return found


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


def _entry(file: Path, key: str, value: Any, data: int, stamp: tuple[int, int]) -> Entry:
    kind = value.get("dtype") if isinstance(value, dict) else None
    if isinstance(kind, str) and kind not in SIZES:
        raise CheckpointError(f"{file}: tensor '{key}' is {kind[:40]!r}, a type not known")
    try:
        start, stop = value["data_offsets"]
        shape = tuple(value["shape"])
        entry = Entry(file, key, value["dtype"], shape, data + start, data + stop, stamp)
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
    if index := index_of(folder):
        return _from_index(index)
    files = _visible(folder, "*.safetensors")
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


def files_of(folder: Path) -> Iterator[Path]:
    """All in it and below, in order; links are followed, hidden ones (macOS's `._x`) are not."""
    seen = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(root)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(root, name) for name in sorted(names) if not name.startswith("."))


def _visible(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def index_of(folder: Path) -> Path | None:
    """The file that says which shard holds which tensor."""
    indexes = _visible(folder, "*.safetensors.index.json")
    if len(indexes) > 1:
        raise CheckpointError(f"{folder} must hold one index, not {[p.name for p in indexes]}")
    return indexes[0] if indexes else None


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


def tensors(entries: Mapping[str, Entry], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Under the keys of their floats: what `config` says is quantized comes as one tensor."""
    packed = {key.removesuffix(".scales") for key in entries if key.endswith(".scales")}
    found: dict[str, Tensor] = {}
    for key, entry in entries.items():
        path, _, name = key.rpartition(".")
        if path not in packed or name not in ("weight", "scales", "biases"):
            found[key] = plain(entry)
        elif name == "weight":
            found[key] = _packed(path, entries, config)
    return found


def plain(entry: Entry) -> Tensor:
    """As it is stored."""
    return Tensor(
        entry.where,
        entry.shape,
        entry.dtype,
        (str(entry.file), entry.start),
        entry.rows,
        readable=entry.dtype in FLOATS,
        ahead=entry.ahead,
    )


def _packed(path: str, entries: Mapping[str, Entry], config: Mapping[str, Any]) -> Tensor:
    weight = entries[f"{path}.weight"]
    packing = _packing(weight, path, config)
    rows = weight.shape[0] if weight.shape else 0
    width = weight.shape[-1] * 32 // packing.bits if weight.shape else 0
    if width % packing.group_size:
        raise CheckpointError(
            f"{weight.where} is {width} wide, and its groups of {packing.group_size} do not fit"
        )
    arrays = []
    for name in packing.names:
        entry = entries.get(f"{path}.{name}")
        columns = weight.shape[-1] if name == "weight" else width // packing.group_size
        kinds = ["U32"] if name == "weight" else [*FLOATS] if packing.mode == "affine" else ["U8"]
        if entry is None or entry.shape != (rows, columns) or entry.dtype not in kinds:
            raise CheckpointError(
                f"{weight.where} must come with '{path}.{name}' of shape {(rows, columns)} and "
                f"type {' or '.join(kinds)}, as its config.json says that it is quantized; {AGAIN}"
            )
        arrays.append(entry)

    def packed_rows(start: int, stop: int) -> list[mx.array]:
        return [entry.rows(start, stop) for entry in arrays]

    def ahead() -> list[mx.array]:
        return [array for entry in arrays for array in entry.ahead()]

    def numbers(start: int, stop: int) -> mx.array:
        weight, scales, *biases = packed_rows(start, stop)
        size, bits = packing.group_size, packing.bits
        return mx.dequantize(
            weight, scales, biases[0] if biases else None, size, bits, mode=packing.mode
        )

    place = (str(weight.file), weight.start)
    shape = (rows, width)
    return Tensor(
        weight.where, shape, packing.mode, place, numbers, packing, packed_rows, ahead=ahead
    )


def _packing(weight: Entry, path: str, config: Mapping[str, Any]) -> Packing:
    """From the block that mlx-lm writes as well: for all layers, and for some of their own."""
    block = config.get("quantization")
    said = block.get(path, block) if isinstance(block, Mapping) else None
    if not isinstance(said, Mapping):
        raise CheckpointError(
            f"{weight.where} is quantized, and its config.json does not say how; {AGAIN}"
        )
    try:
        return Packing.parse(said)
    except ValueError as error:
        raise CheckpointError(f"{weight.where} is quantized in a way not known: {error}") from error
