"""Small LoRA files by hand, for the tiny checkpoint: 48 wide, with a feed-forward of 128."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np

from mlx_zimage.lora.adapter import Adapter
from mlx_zimage.lora.targets import Targets
from tests.make_checkpoint import KINDS, models, official_shapes

from .stored import Stored, store, write

WIDTH = 48
QUERY = "layers.0.attention.to_q"
Tensors = dict[str, Stored]


@cache
def tiny() -> Targets:
    """Return what a LoRA may change of the tiny checkpoint."""
    modules = models(KINDS["tiny"])
    return Targets.of({n: official_shapes(modules[n]) for n in ("transformer", "text_encoder")})


def numbers(*shape: int, kind: str = "F32", seed: int = 0) -> Stored:
    return store(np.random.default_rng([seed, *shape]).normal(0, 0.1, shape), kind)


def tensors(module: str, shapes: Mapping[str, tuple[int, ...]], kind: str = "F32") -> Tensors:
    """Return random tensors of a module by their tails."""
    return {f"{module}.{tail}": numbers(*shape, kind=kind) for tail, shape in shapes.items()}


def pair(module: str, rank: int = 2, rows: int = WIDTH, columns: int = WIDTH) -> Tensors:
    shapes = {"lora_A.weight": (rank, columns), "lora_B.weight": (rows, rank)}
    return tensors(module, shapes)


def kohya(module: str, alpha: float, rank: int = 2, rows: int = WIDTH) -> Tensors:
    shapes = {"lora_down.weight": (rank, WIDTH), "lora_up.weight": (rows, rank)}
    return tensors(module, shapes) | {f"{module}.alpha": store(alpha, "F32")}


def opened(folder: Path, content: Tensors, metadata: Mapping[str, str] = {}) -> Adapter:
    return Adapter.open(write(folder / "lora.safetensors", content, metadata), tiny())
