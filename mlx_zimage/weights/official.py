"""Tensors of a folder in the official layout: plain, or packed as mlx-lm and MLX write them."""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from ..errors import CheckpointError
from ..files import AGAIN
from ..models.layers.rotation import check_rotation
from .packing import CORRECTIONS, Packing
from .safetensors import FLOATS, Entry
from .tensor import Tensor, Tensors, packed_tensor


def from_entries(entries: Mapping[str, Entry], config: Mapping[str, Any]) -> Tensors:
    """Return a file's tensors; a matrix that `config` says is quantized is one of them."""
    packed = {key.removesuffix(".scales") for key in entries if key.endswith(".scales")}
    tensors: Tensors = {}
    for key, entry in entries.items():
        path, _, name = key.rpartition(".")
        if path not in packed or name not in ("weight", "scales", "biases", *CORRECTIONS):
            tensors[key] = plain(entry)
        elif name == "weight":
            tensors[key] = _packed(path, entries, config)
    return tensors


def plain(entry: Entry) -> Tensor:
    """Return the tensor that one entry holds."""
    place = (str(entry.file.path), entry.start)
    readable = entry.dtype in FLOATS
    return Tensor(
        entry.where,
        entry.shape,
        entry.dtype,
        place,
        entry.rows,
        readable=readable,
        entries=(entry,) if readable else (),
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
    if packing.rotation:
        try:
            check_rotation(packing.rotation, width)
        except ValueError as error:
            raise CheckpointError(f"{weight.where} cannot have the {error}") from error
    arrays = _arrays_of(weight, path, entries, packing, width)

    def packed_rows(start: int, stop: int) -> list[mx.array]:
        return [entry.rows(start, stop) for entry in arrays]

    return packed_tensor(
        weight.where,
        (rows, width),
        (str(weight.file.path), weight.start),
        packing,
        packed_rows,
        _corrections_of(weight, path, entries, packing.corrections(rows, width)),
        arrays,
    )


def _corrections_of(
    weight: Entry,
    path: str,
    entries: Mapping[str, Entry],
    shapes: Mapping[str, tuple[int, ...]],
) -> Tensors:
    """Return what corrects a packed matrix, checked to be what its packing says."""
    tensors: Tensors = {}
    for name in CORRECTIONS:
        entry, shape = entries.get(f"{path}.{name}"), shapes.get(name)
        if (entry and entry.shape) != shape or (entry and entry.dtype not in FLOATS):
            rule = f"with '{path}.{name}' of shape {shape}" if shape else f"without '{path}.{name}'"
            raise CheckpointError(
                f"{weight.where} must come {rule}, because its config.json says how it is "
                f"quantized; {AGAIN}"
            )
        if entry:
            tensors[name] = plain(entry)
    return tensors


def _arrays_of(
    weight: Entry, path: str, entries: Mapping[str, Entry], packing: Packing, width: int
) -> tuple[Entry, ...]:
    """Return the entries of a packed matrix, checked to be of the types and shapes they must be."""
    arrays = []
    for name, columns in zip(packing.names, packing.columns(width), strict=True):
        entry = entries.get(f"{path}.{name}")
        shape = (weight.shape[0], weight.shape[-1] if name == "weight" else columns)
        kinds = ["U32"] if name == "weight" else [*FLOATS] if packing.mode == "affine" else ["U8"]
        if entry is None or entry.shape != shape or entry.dtype not in kinds:
            raise CheckpointError(
                f"{weight.where} must come with '{path}.{name}' of shape {shape} and "
                f"type {' or '.join(kinds)}, because its config.json says that it is quantized; "
                f"{AGAIN}"
            )
        arrays.append(entry)
    return tuple(arrays)


def _packing(weight: Entry, path: str, config: Mapping[str, Any]) -> Packing:
    """Read a layer's packing from its config: the block for all layers, or the layer's own."""
    block = config.get("quantization")
    layer = block.get(path, block) if isinstance(block, Mapping) else None
    if not isinstance(layer, Mapping):
        raise CheckpointError(
            f"{weight.where} is quantized, and its config.json does not say how; {AGAIN}"
        )
    try:
        return Packing.parse(layer)
    except ValueError as error:
        raise CheckpointError(f"{weight.where} is quantized in an unknown way: {error}") from error
