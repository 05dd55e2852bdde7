"""The files of one folder: a single safetensors file, or shards with an index."""

import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import CheckpointError
from ..files import AGAIN, read_json
from .safetensors import Entry, read_header

INDEX = ".safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def read_folder(folder: Path) -> dict[str, Entry]:
    """Return all tensors of a folder, from its index and shards or from its one file."""
    if index := index_of(folder):
        return _read_shards(index)
    files = _visible(folder, "*.safetensors")
    if len(files) == 1:
        return read_header(files[0])
    if files:
        raise CheckpointError(
            f"{folder} holds {len(files)} safetensors files and no index that says which belong "
            f"together; {AGAIN}"
        )
    pickles = [p.name for p in folder.glob("*") if p.suffix in PICKLES]
    reason = f"; {pickles[0]} is a pickle, which is never loaded" if pickles else ""
    raise CheckpointError(f"{folder} must hold a .safetensors file{reason}")


def index_of(folder: Path) -> Path | None:
    """Return the file that says which shard holds which tensor, if there is one."""
    indexes = _visible(folder, f"*{INDEX}")
    if len(indexes) > 1:
        raise CheckpointError(f"{folder} must hold one index, not {[p.name for p in indexes]}")
    return indexes[0] if indexes else None


def files_of(folder: Path) -> Iterator[Path]:
    """Yield all files in a folder and below, in order, without hidden ones. Links are followed."""
    seen = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(root)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(root, name) for name in sorted(names) if not name.startswith("."))


def _visible(folder: Path, pattern: str) -> list[Path]:
    """Return the files that match, without macOS's hidden `._name` ones."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def _read_shards(index: Path) -> dict[str, Entry]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError(f"{index} must map tensors to files in 'weight_map'; {AGAIN}")
    names = sorted(set(places.values()))
    if outside := [name for name in names if name in ("", ".", "..") or {*name} & {*"/\\:"}]:
        raise CheckpointError(f"{index} must name files beside it, not {outside[0]!r}")
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        raise CheckpointError(
            f"{index.parent} lacks {', '.join(missing)}, named by its index; download it again"
        )
    headers = {name: read_header(index.parent / name) for name in names}
    if absent := [key for key, name in places.items() if key not in headers[name]]:
        raise CheckpointError(
            f"{index.parent / places[absent[0]]} lacks tensor '{absent[0]}', which the index puts "
            f"there; {AGAIN}"
        )
    if extra := [key for header in headers.values() for key in header if key not in places]:
        raise CheckpointError(f"{index} does not list tensor '{extra[0]}' of its shards; {AGAIN}")
    return {key: headers[name][key] for key, name in places.items()}
