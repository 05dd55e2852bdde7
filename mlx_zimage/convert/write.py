"""Safetensors files written tensor by tensor, by rows: the largest is never whole in memory."""

import json
import os
import struct
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

import mlx.core as mx
import numpy as np

from ..errors import CheckpointError
from ..files import write_json
from ..quantization.recipe import Packings, pack
from ..weights.safetensors import SIZES
from ..weights.tensor import Packing, Tensor

SHARD = 5_000_000_000  # bytes, at most, where no single tensor is larger
KINDS = {mx.float32: "F32", mx.bfloat16: "BF16", mx.float16: "F16"}


@dataclass(frozen=True)
class Output:
    """One tensor of a checkpoint, as it will be written: alone, or quantized in several arrays."""

    key: str
    tensor: Tensor
    packing: Packing | None
    dtype: mx.Dtype

    @property
    def arrays(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """By key: type and shape."""
        kind = KINDS[self.dtype]
        if self.packing is None:
            return {self.key: (kind, self.tensor.shape)}
        path, (rows, width) = self.key.removesuffix(".weight"), self.tensor.shape
        groups = (rows, width // self.packing.group_size)
        scales = (kind if self.packing.mode == "affine" else "U8", groups)
        words = ("U32", (rows, width * self.packing.bits // 32))
        shapes = dict.fromkeys(self.packing.names, scales) | {"weight": words}
        return {f"{path}.{name}": shapes[name] for name in self.packing.names}

    @property
    def size(self) -> int:
        return sum(SIZES[kind] * prod(shape) for kind, shape in self.arrays.values())

    def pieces(self) -> Generator[list[mx.array], None, None]:
        """Some rows of each array at a time."""
        for start, stop in self.tensor.spans():
            if self.packing is None:
                arrays = [self.tensor.rows(start, stop).astype(self.dtype)]
            else:
                arrays = pack(self.tensor, self.packing, self.dtype, start, stop)
            cast = [a.astype(self.dtype) if a.dtype in KINDS else a for a in arrays]
            for array in cast:
                if array.dtype in KINDS and not mx.isfinite(array).all().item():
                    hint = "; try bfloat16" if self.dtype == mx.float16 else ""
                    raise CheckpointError(
                        f"{self.tensor.where} holds numbers that are not finite, or not in "
                        f"{KINDS[self.dtype]}{hint}"
                    )
            yield cast


def outputs(tensors: Mapping[str, Tensor], packings: Packings, dtype: mx.Dtype) -> list[Output]:
    """In the order in which they are read."""
    ordered = sorted(tensors.items(), key=lambda item: item[1].place)
    return [
        Output(key, tensor, packings.get(key.removesuffix(".weight")), dtype)
        for key, tensor in ordered
    ]


def write(folder: Path, stem: str, items: list[Output]) -> Generator[int, None, None]:
    """One file, or shards with an index. Yields the bytes written, tensor by tensor."""
    shards = _split(items)
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"{stem}.safetensors"
        if len(shards) > 1:
            name = f"{stem}-{number:05}-of-{len(shards):05}.safetensors"
        yield from _write_file(folder / name, shard)
        places |= {key: name for item in shard for key in item.arrays}
    if len(shards) > 1:
        total = sum(item.size for item in items)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        write_json(folder / f"{stem}.safetensors.index.json", index)


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


def _write_file(file: Path, items: list[Output]) -> Generator[int, None, None]:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
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
    """Its arrays lie one after the other; each piece brings some rows of every one."""
    starts, at = [], out.tell()
    for kind, shape in item.arrays.values():
        starts.append(at)
        at += SIZES[kind] * prod(shape)
    for arrays in item.pieces():
        for i, array in enumerate(arrays):
            out.seek(starts[i])
            starts[i] += out.write(np.array(mx.view(array.reshape(-1), mx.uint8)).data)
    out.seek(at)
