"""Checkpoints in other programs' forms: what each file holds, under the official keys.

The kind of a file is seen from its content, never from its name. One reader for each way of storing
numbers, one table for each way of naming them; what follows is the same for all.
"""

from pathlib import Path

from ...errors import CheckpointError
from ..shards import read_header
from ..tensors import Part, Tensor
from .floats8 import scaled
from .gguf import MAGIC, read_gguf
from .names import parts

PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How files begin that run code when they are read."""


def read_file(file: Path) -> dict[Part, dict[str, Tensor]]:
    """The parts that one file holds."""
    try:
        with file.open("rb") as handle:
            start = handle.read(4)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    if start.startswith(PICKLED):
        raise CheckpointError(
            f"{file} is a pickle, which can run any program when it is read, and is never loaded; "
            "look for the .safetensors file of the same model"
        )
    found = parts(read_gguf(file) if start == MAGIC else scaled(read_header(file)))
    if not found:
        raise CheckpointError(f"{file} holds no part of Z-Image that is known by its tensors")
    return found


def read_files(path: Path) -> dict[Part, dict[str, Tensor]]:
    """The parts in one file, or in the files that lie side by side in a folder."""
    if path.is_file():
        return read_file(path)
    files = sorted(f for f in path.rglob("*") if f.suffix in (".safetensors", ".gguf"))
    found: dict[Part, dict[str, Tensor]] = {}
    homes: dict[Part, Path] = {}
    for file in files:
        for part, tensors in read_file(file).items():
            if part in found:
                raise CheckpointError(
                    f"{homes[part]} and {file} both hold a {part}; name one file, or keep one"
                )
            found[part], homes[part] = tensors, file
    return found
