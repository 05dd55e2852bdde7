"""Readers of other programs' files.

A file's kind is recognised from its content, never from its name. There is one reader for each way
of storing numbers and one table (names.py) for each way of naming tensors.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import CheckpointError
from ..index import read_folder
from ..official import from_entries
from ..safetensors import Entry, read_header
from ..tensor import Tensors
from .fp8 import read_scaled
from .gguf import MAGIC, read_gguf
from .mflux import is_packed, read_mflux
from .mlx_vlm import read_vlm, vlm_metadata
from .names import Names
from .nunchaku import is_nunchaku, read_nunchaku
from .sdnq import read_sdnq, sdnq_block

PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""The first bytes of files that run code when they are read. A safetensors file may share them."""


def read_file(file: Path) -> Tensors:
    """Return one file's tensors, under its own names."""
    start = refuse_pickle(file)
    return read_gguf(file) if start[:4] == MAGIC else _numbers(read_header(file))


def refuse_pickle(file: Path) -> bytes:
    """Return a file's first bytes, unless they are those of a file that is never loaded."""
    try:
        with file.open("rb") as handle:
            start, size = handle.read(9), os.fstat(handle.fileno()).st_size
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    is_safetensors = start[8:] == b"{" and int.from_bytes(start[:8], "little") <= size - 8
    if start.startswith(PICKLED) and not is_safetensors:
        raise CheckpointError(
            f"{file} is a pickle, which can run any program when it is read, and is never loaded; "
            "look for the .safetensors file of the same model"
        )
    return start


def read_shards(folder: Path) -> Tensors:
    """Return the tensors of the shards that a folder's index binds together."""
    return _numbers(read_folder(folder))


def read_component(folder: Path, config: Mapping[str, Any], names: Names | None = None) -> Tensors:
    """Return the tensors of a component's folder in the official layout, under the official names.

    `names` are for a folder that other programs wrote in that layout.
    """
    entries = read_folder(folder)
    if block := sdnq_block(folder, config):
        return read_sdnq(entries, block)
    if metadata := vlm_metadata(folder):
        return read_vlm(entries, metadata, config, names)
    return from_entries(entries, config)


def _numbers(entries: Mapping[str, Entry]) -> Tensors:
    if is_nunchaku(entries):
        return read_nunchaku(entries)
    return read_mflux(entries) if is_packed(entries) else read_scaled(entries)
