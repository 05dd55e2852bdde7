"""Quantized copies of large checkpoints, made once and kept on disk until they are removed.

A copy is identified by its sources (the places, sizes and times of all files, configs and tokenizer
included) and by how it was made.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.family import MANIFEST
from ..errors import CheckpointError, RequestError
from ..events import Written
from ..weights.tensor import Tensor
from .plan import Conversion
from .publish import WORKSPACE, convert_checkpoint, describe, is_busy, origin, other_files

FORMAT = 2
"""A number that changes when the same recipe comes to write other bytes."""
LARGE = 1_000_000_000  # bytes at 16 bit: smaller checkpoints are quantized in a moment


@dataclass(frozen=True)
class Copy:
    """A copy on this disk, or the remnant of one that was not completed."""

    name: str
    path: Path
    size: int


@dataclass(frozen=True)
class QuantizedCopy:
    """A copy that exists or can be made."""

    conversion: Conversion
    path: Path

    def make(self) -> Generator[Written, None, Path]:
        """Write the copy unless it exists, as events; return its folder."""
        if (self.path / MANIFEST).is_file():
            return self.path
        home, total = self.path.parent, self.conversion.total
        try:
            home.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(home).free
        except OSError as error:
            raise CheckpointError(f"no copy can be kept in {home}: {error}") from error
        if total > free:
            raise CheckpointError(
                f"a quantized copy takes {total / 1e9:.1f} GB in {home}, and {free / 1e9:.1f} GB "
                "are free; make room, or quantize in memory with keep_copy=False"
            )
        for event in convert_checkpoint(self.conversion, self.path, force=True):
            if isinstance(event, Written):
                yield event
        return self.path


def quantized_copy(checkpoint: Checkpoint, quantize: int | str, dtype: str) -> QuantizedCopy | None:
    """Return the copy of a checkpoint in this form; None if it is small or stored so already."""
    conversion = Conversion.of(checkpoint, quantize, dtype)
    is_large = sum(2 * tensor.count for tensor in _tensors(conversion)) > LARGE
    if not is_large or conversion.is_as_stored:
        return None
    return QuantizedCopy(conversion, _place(conversion))


def home() -> Path:
    """Return MLX_ZIMAGE_CACHE, or the folder in which the system keeps what can be made again."""
    if place := os.environ.get("MLX_ZIMAGE_CACHE"):
        return Path(place).expanduser()
    if sys.platform == "darwin":
        return Path("~/Library/Caches/mlx-zimage").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mlx-zimage"


def list_copies() -> list[Copy]:
    """Return the copies on this disk, and remnants of those whose making was stopped."""
    if not home().is_dir():
        return []
    folders = sorted(path for path in home().iterdir() if path.is_dir())
    return [
        Copy(path.name, path, _size(path))
        for path in folders
        if (path / MANIFEST).is_file() or (path.suffix == WORKSPACE and not is_busy(path))
    ]


def remove_copy(name: str) -> Copy:
    """Remove a copy by its name, and return what it was."""
    for copy in list_copies():
        if copy.name == name:
            shutil.rmtree(copy.path)
            return copy
    raise RequestError(f"there is no copy {name!r} in {home()}; see mlx-zimage cache list")


def _place(conversion: Conversion) -> Path:
    checkpoint = conversion.checkpoint
    weights = [Path(tensor.place[0]) for tensor in _tensors(conversion)]
    files = {os.path.realpath(file) for file in [*weights, *other_files(checkpoint.home)]}
    stamps = [(file, os.stat(file).st_size, os.stat(file).st_mtime_ns) for file in sorted(files)]
    recipe = {name: describe(p) for name, p in conversion.packings.items() if p}
    identity = json.dumps([FORMAT, stamps, recipe, conversion.dtype], sort_keys=True)
    name = origin(checkpoint.path)[0].rpartition("--")[2]
    return home() / f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:10]}"


def _tensors(conversion: Conversion) -> list[Tensor]:
    return [t for name in conversion.components for t in conversion.tensors(name).values()]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
