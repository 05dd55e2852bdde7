"""Tensors into a module: cast, turned, quantized, or left on disk until they are used.

Tensors that stay as they are stored are read several at a time, side by side. Any other is read
alone, so that no more is in memory than its result and one tensor.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

import mlx.core as mx
from mlx import nn

from .. import device
from ..models.layers.convolution import store_flipped
from ..quantization.recipe import pack, prepare
from ..weights.packing import Packing
from ..weights.safetensors import FLOATS, Entry, SafetensorsFile
from ..weights.tensor import Packings, Tensor, Tensors, expanded
from .components import Component
from .streaming import Streamed, StreamedEmbedding, put, take_blocks

BATCH = 1 << 28  # bytes that are read side by side

Module = TypeVar("Module", bound=nn.Module)
Arrays = list[tuple[str, mx.array]]


def load(
    component: Component,
    module: Module,
    tensors: Tensors,
    packings: Packings,
    dtype: mx.Dtype,
    *,
    streamed: bool = False,
) -> Module:
    """Fill a module with weights. Streamed, its blocks and its embedding stay on disk."""
    prepare(module, packings)
    resident = expanded(tensors, packings)
    on_disk: dict[str, Any] = {}  # what replaces blocks and embeddings, by path
    for path in component.blocks if streamed else ():
        on_disk[path] = []
        for number, block in enumerate(take_blocks(module, path)):
            prefix = f"{path}.{number}."
            keys = [key for key in resident if key.startswith(prefix)]
            read = partial(_read, {k: resident.pop(k) for k in keys}, packings, dtype, prefix)
            on_disk[path].append(Streamed(block, read, component.modulation))
    if streamed and component.embedding in resident:
        path = component.embedding.removesuffix(".weight")
        tensor = resident.pop(component.embedding)
        on_disk[path] = StreamedEmbedding(tensor, packings.get(path), dtype)
        put(module, path, nn.Identity())
    module.load_weights(_read(resident, packings, dtype), strict=True)
    store_flipped(module)
    for path, value in on_disk.items():
        put(module, path, value)
    return module


def _read(
    tensors: Mapping[str, Tensor],
    packings: Packings,
    dtype: mx.Dtype,
    prefix: str = "",
    is_wanted: Callable[[str], bool] = lambda key: True,
) -> Arrays:
    """Read tensors in the order of their files, as the module's arrays; keys lose `prefix`."""
    unchanged: Tensors = {}
    changed: Tensors = {}
    for key, tensor in sorted(tensors.items(), key=lambda item: item[1].place):
        if is_wanted(key):
            is_unchanged = _stays_as_stored(tensor, packings.get(_path(key)), dtype)
            (unchanged if is_unchanged else changed)[key] = tensor
    arrays: Arrays = []
    for batch in _batches(unchanged):
        stored = _read_together(batch)
        for key, tensor in batch.items():
            pieces = [stored.pop(entry) for entry in tensor.entries]
            arrays += _named(key, packings.get(_path(key)), pieces, dtype)
    for key, tensor in changed.items():
        packing = packings.get(_path(key))
        pieces = [tensor.read()] if packing is None else quantize(tensor, packing, dtype)
        arrays += _named(key, packing, pieces, dtype)
    return [(key.removeprefix(prefix), array) for key, array in arrays]


def _path(key: str) -> str:
    return key.removesuffix(".weight")


def _stays_as_stored(tensor: Tensor, packing: Packing | None, dtype: mx.Dtype) -> bool:
    if not tensor.entries or tensor.packing != packing:
        return False
    return packing is not None or FLOATS.get(tensor.kind) == dtype


def _batches(tensors: Mapping[str, Tensor]) -> Iterator[Tensors]:
    batch: Tensors = {}
    size = 0
    for key, tensor in tensors.items():
        stored_bytes = sum(entry.stop - entry.start for entry in tensor.entries)
        if batch and size + stored_bytes > BATCH:
            yield batch
            batch, size = {}, 0
        batch[key], size = tensor, size + stored_bytes
    yield batch


def _read_together(tensors: Mapping[str, Tensor]) -> dict[Entry, mx.array]:
    """Read all entries of these tensors, those of one file at once."""
    by_file: dict[SafetensorsFile, list[Entry]] = defaultdict(list)
    for tensor in tensors.values():
        for entry in tensor.entries:
            by_file[entry.file].append(entry)
    arrays: dict[Entry, mx.array] = {}
    for file, entries in by_file.items():
        read = file.read(entries)
        arrays |= {entry: read[entry.name] for entry in entries}
    return arrays


def _named(key: str, packing: Packing | None, pieces: list[mx.array], dtype: mx.Dtype) -> Arrays:
    """Return a tensor's arrays as its module has them: named, cast, turned, and evaluated."""
    if packing is None:
        arrays = [(key, _turned(pieces[0].astype(dtype)))]
    else:
        path = _path(key)
        cast = [a.astype(dtype) if a.dtype in FLOATS.values() else a for a in pieces]
        arrays = [(f"{path}.{name}", a) for name, a in zip(packing.names, cast, strict=True)]
    pieces.clear()
    arrays = [(name, on_device(array)) for name, array in arrays]
    mx.eval([array for _, array in arrays])
    return arrays


def quantize(tensor: Tensor, packing: Packing, dtype: mx.Dtype) -> list[mx.array]:
    """Quantize a tensor by rows: its numbers are never in memory as a whole."""
    if tensor.packing == packing:
        return pack(tensor, packing, dtype, 0, tensor.shape[0])
    pieces: list[list[mx.array]] = []
    for start, stop in tensor.spans():
        pieces.append(pack(tensor, packing, dtype, start, stop))
        mx.eval(pieces[-1])
    if len(pieces) == 1:
        return pieces[0]
    return [mx.concatenate(list(arrays)) for arrays in zip(*pieces, strict=True)]


def on_device(array: mx.array) -> mx.array:
    """Return the array in memory that the device reads at full speed.

    On CUDA, what the host has read stays in memory that it shares with the device, until an
    operation on the device writes it anew. Apple's GPUs and CPUs have one memory.
    """
    if device.kind() != "cuda":
        return array
    return mx.multiply(array, mx.array(1, array.dtype))


def _turned(array: mx.array) -> mx.array:
    """Turn convolutions from (out, in, h, w), as in files, to MLX's (out, h, w, in)."""
    return mx.contiguous(array.transpose(0, 2, 3, 1)) if array.ndim == 4 else array
