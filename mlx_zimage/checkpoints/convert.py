"""A checkpoint folder in another precision: the same layout, the same keys, file by file.

Written to a hidden sibling and renamed at the end, so a broken run leaves nothing that loads. One
tensor is in memory at a time.
"""

import fcntl
import json
import os
import shutil
import struct
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..errors import CheckpointError, RequestError
from .folder import Checkpoint
from .parts import DTYPES
from .shards import FLOATS, PICKLES, Entry, read_arrays, read_header, read_json

NEW, OLD = "new", "old"  # within the workspace
NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


@dataclass(frozen=True)
class Converted:
    """One weight file is done."""

    file: str
    number: int
    total: int


def convert(
    source: Path, out: Path, *, dtype: str = "bfloat16", force: bool = False
) -> Generator[Converted, None, None]:
    """Copy the folder with every weight cast to `dtype`."""
    if dtype not in DTYPES:
        raise RequestError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    checkpoint = Checkpoint.open(source)  # so that a broken folder fails here, with its reason
    source, out = checkpoint.path.resolve(), out.resolve()
    try:
        _check_place(source, out, force)
        with _workspace(out) as work:
            yield from _write(source, work, dtype)
            _publish(work, out)
    except OSError as error:
        raise CheckpointError(f"cannot write {out}: {error}") from error


def _check_place(source: Path, out: Path, force: bool) -> None:
    if out == source or source in out.parents or out in source.parents:
        raise RequestError(f"the output must lie apart from the source {source}, not at {out}")
    if not out.exists():
        return
    if not force:
        raise RequestError(f"{out} exists already; name another folder, or pass --force")
    if not out.is_dir() or (any(out.iterdir()) and not (out / "transformer").is_dir()):
        raise RequestError(f"--force replaces only a checkpoint, and {out} is none; name another")


@contextmanager
def _workspace(out: Path) -> Iterator[Path]:
    """A hidden sibling of `out` that is gone afterwards; locked, so that of two runs one fails."""
    folder = out.with_name(f".{out.name}.part")
    folder.mkdir(exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RequestError(f"another run is writing {out}; wait for it") from None
        try:
            _put_back(folder / OLD, out)
            for left in folder.iterdir():  # by a run that was killed
                shutil.rmtree(left)
            work = folder / NEW
            work.mkdir()
            yield work
        finally:
            _put_back(folder / OLD, out)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _write(source: Path, out: Path, dtype: str) -> Iterator[Converted]:
    weights = []
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        name = file.relative_to(source)
        if any(part.startswith(".") for part in name.parts) or file.suffix in PICKLES:
            continue
        if file.suffix == ".safetensors":
            weights.append(name)
            continue
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.name.endswith(".safetensors.index.json"):
            _write_index(file, target, dtype)
        else:
            shutil.copyfile(file, target)
    for number, name in enumerate(weights, 1):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        _write_shard(source / name, out / name, dtype)
        yield Converted(str(name), number, len(weights))
    _name_dtype(out / "text_encoder" / "config.json", dtype)


def _name_dtype(config: Path, dtype: str) -> None:
    """Where transformers' config names the type of its weights."""
    data = read_json(config)
    named = [key for key in ("torch_dtype", "dtype") if key in data]
    if named:
        data |= dict.fromkeys(named, dtype)
        config.write_text(json.dumps(data, indent=2) + "\n", "utf-8")


def _write_shard(file: Path, target: Path, dtype: str) -> None:
    """Header first, as all lengths are known, then tensor after tensor."""
    entries = read_header(file)
    ordered = sorted(entries.items(), key=lambda item: item[1].start)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for key, entry in ordered:
        if entry.dtype not in FLOATS:
            raise CheckpointError(f"{file}: tensor '{key}' must be a float, not {entry.dtype}")
        end = offset + entry.count * DTYPES[dtype].size
        header[key] = {
            "dtype": NAMES[dtype],
            "shape": list(entry.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with target.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for key, array in read_arrays(dict(ordered)):
            cast = array.astype(DTYPES[dtype])
            if not mx.isfinite(cast).all().item():
                raise CheckpointError(
                    f"{file}: tensor '{key}' holds numbers that are not finite or that {dtype} "
                    "cannot hold; try bfloat16"
                )
            out.write(_bytes(cast))
        out.flush()
        os.fsync(out.fileno())


def _bytes(array: mx.array) -> bytes:
    return np.array(mx.view(array.reshape(-1), mx.uint8)).tobytes()


def _write_index(file: Path, target: Path, dtype: str) -> None:
    index = json.loads(file.read_text("utf-8"))
    entries: list[Entry] = []
    for name in sorted(set(index["weight_map"].values())):
        entries += read_header(file.parent / name).values()
    total = sum(entry.count for entry in entries) * DTYPES[dtype].size
    index["metadata"] = {**index.get("metadata", {}), "total_size": total}
    target.write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def _publish(work: Path, out: Path) -> None:
    """Into place. What stood there waits in the workspace, and goes with it."""
    if out.exists():
        out.rename(work.with_name(OLD))
    work.rename(out)


def _put_back(old: Path, out: Path) -> None:
    """The old output, where a run was stopped between two renames."""
    if old.exists() and not out.exists():
        old.rename(out)
