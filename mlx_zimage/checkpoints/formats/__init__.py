"""Checkpoints in other programs' forms: what each file holds, under the official keys.

The kind of a file is seen from its content, never from its name. One reader for each way of storing
numbers, one table for each way of naming them; what follows is the same for all.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ...errors import CheckpointError
from ..shards import Entry, find_weights, read_header
from ..tensors import Part, Tensor
from .gguf import MAGIC, read_gguf
from .mflux import is_packed, read_mflux
from .names import parts
from .scaled import read_scaled

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
    return _known(file, read_gguf(file) if start == MAGIC else _numbers(read_header(file)))


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
    bound = {index.parent for index in path.rglob("*.safetensors.index.json")}
    for folder in sorted(bound):
        yield folder, _known(folder, _numbers(find_weights(folder)))
    for file in sorted(f for f in path.rglob("*") if f.suffix in (".safetensors", ".gguf")):
        if file.suffix == ".gguf" or file.parent not in bound:
            yield file, read_file(file)


def _numbers(entries: Mapping[str, Entry]) -> dict[str, Tensor]:
    return read_mflux(entries) if is_packed(entries) else read_scaled(entries)


def _known(path: Path, tensors: dict[str, Tensor]) -> dict[Part, dict[str, Tensor]]:
    found = parts(tensors)
    if not found:
        raise CheckpointError(f"{path} holds no part of Z-Image that is known by its tensors")
    return found
