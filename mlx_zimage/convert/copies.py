"""Quantized copies of checkpoints, made once and kept until they are removed.

A copy is found by what it was made of and how: the files' places, sizes and times (all of them:
configs and tokenizer are copied as well), and the recipe.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError, RequestError
from ..weights.tensor import Tensor
from .plan import MANIFEST, PART, Plan, Written, convert, copied, describe, is_busy, origin

FORMAT = 1  # of the copies: another number where the same recipe comes to write other bytes
WORTH = 1_000_000_000  # bytes at 16 bit: smaller checkpoints are quantized in a moment


@dataclass(frozen=True)
class Kept:
    name: str
    path: Path
    size: int


def home() -> Path:
    """MLX_ZIMAGE_CACHE, or where the system keeps what can be made again."""
    if place := os.environ.get("MLX_ZIMAGE_CACHE"):
        return Path(place).expanduser()
    if sys.platform == "darwin":
        return Path("~/Library/Caches/mlx-zimage").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mlx-zimage"


def is_worth(plan: Plan) -> bool:
    """Large, and not quantized as asked for already."""
    return sum(2 * tensor.count for tensor in _tensors(plan)) > WORTH and not plan.is_stored


def place(plan: Plan) -> Path:
    """Where the copy is, or would be."""
    weights = (tensor.place[0] for tensor in _tensors(plan))
    files = {os.path.realpath(file) for file in [*weights, *map(str, copied(plan.checkpoint.home))]}
    stamps = [(file, os.stat(file).st_size, os.stat(file).st_mtime_ns) for file in sorted(files)]
    recipe = {part: describe(packings) for part, packings in plan.packings.items() if packings}
    made = json.dumps([FORMAT, stamps, recipe, plan.dtype], sort_keys=True)
    name = origin(plan.checkpoint.path)[0].rpartition("--")[2]
    return home() / f"{name}-{hashlib.sha256(made.encode()).hexdigest()[:10]}"


def make(plan: Plan) -> Generator[Written, None, None]:
    """The copy, where it is not there yet."""
    folder = place(plan)
    if (folder / MANIFEST).is_file():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder.parent).free
    except OSError as error:
        raise CheckpointError(f"nothing can be kept in {folder.parent}: {error}") from error
    if plan.total > free:
        raise CheckpointError(
            f"a quantized copy takes {plan.total / 1e9:.1f} GB in {folder.parent}, and "
            f"{free / 1e9:.1f} GB are free; make room, or give --no-cache"
        )
    yield from convert(plan, folder, force=True)


def kept() -> list[Kept]:
    """Copies, and what was left of those whose making was stopped."""
    if not home().is_dir():
        return []
    folders = sorted(path for path in home().iterdir() if path.is_dir())
    return [
        Kept(path.name, path, _size(path))
        for path in folders
        if (path / MANIFEST).is_file() or (path.suffix == PART and not is_busy(path))
    ]


def remove(name: str) -> Kept:
    for copy in kept():
        if copy.name == name:
            shutil.rmtree(copy.path)
            return copy
    raise RequestError(f"there is no {name!r} in {home()}; see mlx-zimage cache list")


def _tensors(plan: Plan) -> list[Tensor]:
    return [tensor for part in plan.packings for tensor in plan.tensors(part).values()]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
