"""Safetensors files written by rows, so that no large tensor is in memory as a whole."""

import json
import os
import struct
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import BinaryIO

import mlx.core as mx
import numpy as np

from ..errors import CheckpointError
from ..files import write_json
from ..quantization.recipe import pack
from ..weights.index import INDEX
from ..weights.safetensors import SIZES
from ..weights.sizes import KINDS, Output

SHARD = 5_000_000_000  # bytes, at most, unless a single tensor is larger
PYTORCH: Mapping[str, str] = {"format": "pt"}
"""The metadata without which transformers refuses a file."""


@dataclass(frozen=True)
class Files:
    """How the files of a component are named, and what they say of themselves."""

    stem: str  # of their names
    numbered: bool = False  # 0.safetensors, 1.safetensors, ... instead
    header: Mapping[str, str] = field(default_factory=lambda: PYTORCH)
    about: Mapping[str, str] = field(default_factory=dict)  # metadata that needs an index

    @property
    def index(self) -> str:
        """The name of the index; other programs look for their metadata in one name alone."""
        return f"model{INDEX}" if self.about else f"{self.stem}{INDEX}"

    def name(self, number: int, count: int) -> str:
        """Return the name of one file of several, counted from 0."""
        if self.numbered:
            return f"{number}.safetensors"
        if count == 1:
            return f"{self.stem}.safetensors"
        return f"{self.stem}-{number + 1:05}-of-{count:05}.safetensors"


def write(folder: Path, files: Files, items: list[Output]) -> Generator[int, None, None]:
    """Write one file, or shards with an index. Yield the bytes of each tensor once written."""
    shards = _split(items)
    places: dict[str, str] = {}
    for number, shard in enumerate(shards):
        name = files.name(number, len(shards))
        yield from _write_file(folder / name, shard, files.header)
        places |= {key: name for item in shard for key in item.arrays}
    if len(shards) > 1 or files.about:
        total = {"total_size": sum(item.size for item in items)}
        index = {"metadata": {**total, **files.about}, "weight_map": dict(sorted(places.items()))}
        write_json(folder / files.index, index)


def _split(items: list[Output]) -> list[list[Output]]:
    shards: list[list[Output]] = [[]]
    room = SHARD
    for item in items:
        if shards[-1] and item.size > room:
            shards.append([])
            room = SHARD
        shards[-1].append(item)
        room -= item.size
    return shards


def _write_file(
    file: Path, items: list[Output], metadata: Mapping[str, str]
) -> Generator[int, None, None]:
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for item in items:
        for key, (kind, shape) in item.arrays.items():
            end = offset + SIZES[kind] * prod(shape)
            header[key] = {"dtype": kind, "shape": list(shape), "data_offsets": [offset, end]}
            offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for item in items:
            _write_output(out, item)
            yield item.size
        out.flush()
        os.fsync(out.fileno())


def _write_output(out: BinaryIO, item: Output) -> None:
    """Write an output's arrays one after the other; each piece brings some rows of every one."""
    starts, at = [], out.tell()
    for kind, shape in item.arrays.values():
        starts.append(at)
        at += SIZES[kind] * prod(shape)
    for arrays in _pieces(item):
        for i, array in enumerate(arrays):
            out.seek(starts[i])
            starts[i] += out.write(np.array(mx.view(array.reshape(-1), mx.uint8)).data)
    out.seek(at)


def _pieces(item: Output) -> Generator[list[mx.array], None, None]:
    """Yield some rows of each of an output's arrays at a time, checked to be finite."""
    for start, stop in item.tensor.spans():
        if item.packing is None:
            arrays = [item.tensor.rows(start, stop).astype(item.dtype)]
        else:
            arrays = pack(item.tensor, item.packing, item.dtype, start, stop)
        cast = [a.astype(item.dtype) if a.dtype in KINDS else a for a in arrays]
        for array in cast:
            if array.dtype in KINDS and not mx.isfinite(array).all().item():
                hint = "; try bfloat16" if item.dtype == mx.float16 else ""
                raise CheckpointError(
                    f"{item.tensor.where} holds numbers that are not finite, or exceed "
                    f"{KINDS[item.dtype]}{hint}"
                )
        yield cast
