"""Verification: a converted checkpoint against its manifest."""

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.components import COMPONENTS
from ..checkpoint.family import MANIFEST
from ..checkpoint.files import read_files
from ..errors import CheckpointError
from ..files import digest, read_json
from ..weights.formats import read_component
from ..weights.index import files_of
from ..weights.packing import Packing
from ..weights.tensor import Packings, Tensors, stored


def verify_checkpoint(folder: Path) -> Generator[str, None, None]:
    """Check hashes, shapes, recipe and every number. Yield each file and component that passes."""
    if folder.is_dir() and not (folder / MANIFEST).is_file():
        raise CheckpointError(
            f"{folder} has no {MANIFEST}, so convert has not written it; compare it with what was "
            "published (--against)"
        )
    manifest = read_json(folder / MANIFEST)
    files, recipe = manifest.get("files"), manifest.get("recipe")
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
        if isinstance(recipe, dict) and not _is_by(recipe.get(name), stored(tensors)):
            raise CheckpointError(
                f"{folder / name} is not quantized as {MANIFEST} says; convert again"
            )
        for tensor in tensors.values():
            for start, stop in tensor.spans():
                if not mx.isfinite(tensor.rows(start, stop)).all().item():
                    raise CheckpointError(f"{tensor.where} holds numbers that are not finite")
        yield name


def _is_by(recipe: Any, packings: Packings) -> bool:
    """Return whether layers are stored as a recipe says: most by its block, others by their own."""
    if not isinstance(recipe, Mapping):
        return recipe is None and not packings
    try:
        return bool(packings) and all(
            Packing.parse(recipe.get(path, recipe)) == packing for path, packing in packings.items()
        )
    except (ValueError, AttributeError):
        return False


def _components(folder: Path) -> dict[str, Tensors]:
    """Return the components that were written, checked by their configs if all of them were."""
    names = [name for name in COMPONENTS if (folder / name).is_dir()]
    if not any((folder / name / "config.json").is_file() for name in names):
        return read_files([folder])  # for a program that needs no configs
    if all(name in names for name, component in COMPONENTS.items() if component.required):
        checkpoint = Checkpoint.open(folder)
        return {name: component.tensors for name, component in checkpoint.components.items()}
    return {
        name: read_component(
            folder / name, read_json(folder / name / "config.json"), COMPONENTS[name].names
        )
        for name in names
    }
