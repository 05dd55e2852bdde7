"""Verification: a converted checkpoint against its manifest."""

from collections.abc import Generator
from pathlib import Path

import mlx.core as mx

from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.components import COMPONENTS
from ..checkpoint.family import MANIFEST
from ..checkpoint.files import read_files
from ..errors import CheckpointError
from ..files import digest, read_json
from ..weights.index import files_of
from ..weights.official import read_component
from ..weights.tensor import Tensors


def verify_checkpoint(folder: Path) -> Generator[str, None, None]:
    """Check hashes, shapes and every number. Yield each file and component that passes."""
    files = read_json(folder / MANIFEST).get("files")
    if not isinstance(files, dict) or not files:
        raise CheckpointError(f"{folder / MANIFEST} lists no files; convert again")
    for file in files_of(folder):
        name = file.relative_to(folder).as_posix()
        if name not in files and name != MANIFEST:
            raise CheckpointError(f"{file} is not listed by {MANIFEST}; move it away")
    for name, entry in sorted(files.items()):
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{folder} lacks {name}, which {MANIFEST} lists")
        if not isinstance(entry, dict) or digest(file) != entry.get("sha256"):
            raise CheckpointError(f"{file} is not the file that was written; convert again")
        yield name
    for name, tensors in _components(folder).items():
        for tensor in tensors.values():
            for start, stop in tensor.spans():
                if not mx.isfinite(tensor.rows(start, stop)).all().item():
                    raise CheckpointError(f"{tensor.where} holds numbers that are not finite")
        yield name


def _components(folder: Path) -> dict[str, Tensors]:
    """Return the components that were written, checked by their configs if all of them were."""
    names = [name for name in COMPONENTS if (folder / name).is_dir()]
    if not any((folder / name / "config.json").is_file() for name in names):
        return read_files([folder])  # for a program that needs no configs
    if all(name in names for name, component in COMPONENTS.items() if component.required):
        checkpoint = Checkpoint.open(folder)
        return {name: stored.tensors for name, stored in checkpoint.components.items()}
    return {
        name: read_component(folder / name, read_json(folder / name / "config.json"))
        for name in names
    }
