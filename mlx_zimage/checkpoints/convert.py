"""A checkpoint folder in another precision: the same layout, the same keys, file by file.

Written to a sibling folder and renamed at the end, so a broken run leaves nothing that loads. One
tensor is in memory at a time.
"""

import json
import os
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..errors import CheckpointError, RequestError
from .folder import Checkpoint
from .parts import DTYPES
from .shards import FLOATS, Entry, read_arrays, read_header

NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


@dataclass(frozen=True)
class Converted:
    """One weight file is done."""

    file: str
    number: int
    total: int


def convert(
    source: Path, out: Path, *, dtype: str = "bfloat16", force: bool = False
) -> Iterator[Converted]:
    """Copy the folder with every weight cast to `dtype`."""
    if dtype not in DTYPES:
        raise RequestError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    checkpoint = Checkpoint.open(source)  # so that a broken folder fails here, with its reason
    source, out = checkpoint.path.resolve(), out.resolve()
    if out == source or source in out.parents or out in source.parents:
        raise RequestError(f"the output must lie apart from the source {source}, not at {out}")
    if out.exists() and not force:
        raise RequestError(f"{out} exists already; name another folder, or pass --force")
    temporary = out.with_name(f".{out.name}.part")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # what a killed run left
        yield from _write(source, temporary, dtype)
        _publish(temporary, out)
    except OSError as error:
        raise CheckpointError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(source: Path, out: Path, dtype: str) -> Iterator[Converted]:
    out.mkdir(parents=True)
    wanted = [
        file
        for part in ("text_encoder", "transformer", "vae", "scheduler", "tokenizer")
        for file in sorted((source / part).iterdir())
        if file.suffix in (".json", ".txt", ".safetensors")
    ]
    index = source / "model_index.json"
    for file in [*wanted, *([index] if index.is_file() else [])]:
        target = out / file.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        if file.name.endswith(".safetensors.index.json"):
            _write_index(file, target, dtype)
        elif file.suffix != ".safetensors":
            shutil.copyfile(file, target)
    weights = [file for file in wanted if file.suffix == ".safetensors"]
    for number, file in enumerate(weights, 1):
        name = file.relative_to(source)
        _write_shard(file, out / name, dtype)
        yield Converted(str(name), number, len(weights))


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
        for _, array in read_arrays(dict(ordered)):
            out.write(_bytes(array.astype(DTYPES[dtype])))
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


def _publish(temporary: Path, out: Path) -> None:
    """Into place; what stood there goes last, so that one of the two is always whole."""
    if not out.exists():
        temporary.rename(out)
        return
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    out.rename(old)
    temporary.rename(out)
    shutil.rmtree(old, ignore_errors=True)
