"""Checkpoints in other programs' forms: what each file holds, under the official keys.

The kind of a file is seen from its content, never from its name. One reader for each way of storing
numbers, one table for each way of naming them; what follows is the same for all.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ...errors import CheckpointError
from ..safetensors import Entry, files_of, find_weights, read_header
from ..tensor import Part, Tensor
from .fp8 import read_scaled
from .gguf import MAGIC, read_gguf
from .mflux import is_packed, read_mflux
from .names import parts

PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How files begin that run code when they are read; a safetensors file may begin so too."""


def read_file(file: Path) -> dict[Part, dict[str, Tensor]]:
    """The parts that one file holds."""
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
    return _known(file, read_gguf(file) if start[:4] == MAGIC else _numbers(read_header(file)))


def read_files(paths: Sequence[Path]) -> dict[Part, dict[str, Tensor]]:
    """The parts in these files, and in what lies side by side in these folders."""
    found: dict[Part, dict[str, Tensor]] = {}
    homes: dict[Part, Path] = {}
    for home, held in (pair for path in paths for pair in _held(path)):
        for part, tensors in held.items():
            if part in found:
                raise CheckpointError(
                    f"{homes[part]} and {home} both hold a {part}; name one file, or keep one"
                )
            found[part], homes[part] = tensors, home
    return found


def _held(path: Path) -> Iterator[tuple[Path, dict[Part, dict[str, Tensor]]]]:
    """Each file, and the shards that an index binds together."""
    if path.is_file():
        yield path, read_file(path)
        return
    files = list(files_of(path))
    bound = {file.parent for file in files if file.name.endswith(".safetensors.index.json")}
    for folder in sorted(bound):
        yield folder, _known(folder, _numbers(find_weights(folder)))
    for file in files:
        if file.suffix == ".gguf" or (file.suffix == ".safetensors" and file.parent not in bound):
            yield file, read_file(file)


def _numbers(entries: Mapping[str, Entry]) -> dict[str, Tensor]:
    return read_mflux(entries) if is_packed(entries) else read_scaled(entries)


def _known(path: Path, tensors: dict[str, Tensor]) -> dict[Part, dict[str, Tensor]]:
    found = parts(tensors)
    if not found:
        raise CheckpointError(f"{path} holds no part of Z-Image that is known by its tensors")
    return found
