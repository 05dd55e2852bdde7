"""The components that lie in other programs' files, side by side or all in one."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import CheckpointError
from ..weights.formats import read_file, read_shards
from ..weights.formats.names import split
from ..weights.index import INDEX
from ..weights.tensor import Tensors
from .components import COMPONENTS

SUFFIXES = (".safetensors", ".gguf")
SPLIT = "split_files"
"""The folder in which ComfyUI's repositories keep one folder for each component."""
LORA = re.compile(
    r"\.(lora_(A|B|down|up)|lora\.(down|up)|(lokr|hada)_w[12](_[ab])?|oft_R|oft_blocks)\b"
)
"""Parts of the keys of LoRA files."""


def read_files(paths: Sequence[Path]) -> dict[str, Tensors]:
    """Return the components in these files and folders, by name."""
    components: dict[str, Tensors] = {}
    homes: dict[str, Path] = {}
    for path in paths:
        for place, held in _components_of(path):
            for name, tensors in held.items():
                if name in components:
                    raise CheckpointError(
                        f"{homes[name]} and {place} both hold a {name}; name one file, "
                        "or move one away"
                    )
                components[name], homes[name] = tensors, place
    return components


def _components_of(path: Path) -> Iterator[tuple[Path, dict[str, Tensors]]]:
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; name a weight file or a folder of them")
    if path.is_file():
        tensors = read_file(path)
        _refuse_lora(path, tensors)
        held = _known(tensors)
        if not held:
            raise CheckpointError(f"{path} holds no component of Z-Image that its tensors show")
        yield path, held
        return
    read = [(place, _read(place)) for place in _weight_places(path)]
    held_by_place = [(place, _known(tensors)) for place, tensors in read]
    if not any(held for _, held in held_by_place):
        for place, tensors in read:
            _refuse_lora(place, tensors)
        raise CheckpointError(_no_checkpoint(path, [place for place, _ in read]))
    yield from held_by_place


def _refuse_lora(place: Path, tensors: Tensors) -> None:
    if any(LORA.search(key) for key in tensors):
        raise CheckpointError(
            f"{place} is a LoRA, which changes a model and is none; "
            "load the model that it is for, and apply the file to that (--lora)"
        )


def _read(place: Path) -> Tensors:
    return read_shards(place) if place.is_dir() else read_file(place)


def _known(tensors: Tensors) -> dict[str, Tensors]:
    return split(tensors, {n: c.names for n, c in COMPONENTS.items() if c.names is not None})


def _weight_places(folder: Path) -> Iterator[Path]:
    """Yield the weight files of a folder, and folders whose index binds shards together.

    They lie in the folder, in a folder of it, or in one of `split_files`; nowhere deeper.
    """
    inner = [path for path in _visible(folder) if path.is_dir()]
    split_files = folder / SPLIT
    deeper = [path for path in _visible(split_files) if path.is_dir()]
    for place in (folder, *inner, *deeper):
        files = [path for path in _visible(place) if path.is_file()]
        is_bound = any(file.name.endswith(INDEX) for file in files)
        if is_bound:
            yield place
        for file in files:
            if file.suffix in SUFFIXES and not (is_bound and file.suffix == ".safetensors"):
                yield file


def _visible(folder: Path) -> list[Path]:
    """Return a folder's content in order, without hidden names (macOS's `._x`)."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _no_checkpoint(folder: Path, places: Sequence[Path]) -> str:
    """Say why a folder is no checkpoint, and what it would have to hold."""
    configs = ", ".join(f"{name}/config.json" for name, c in COMPONENTS.items() if c.required)
    reason = f"{folder} is no checkpoint: it has no model_index.json and none of {configs}"
    if not places:
        return f"{reason}, and no weight file"
    names = ", ".join(place.name for place in places[:3])
    return f"{reason}, and no weight file of it ({names}) holds a component of Z-Image"
