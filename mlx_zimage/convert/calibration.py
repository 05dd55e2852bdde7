"""A request to calibrate: which layers are rounded to which packings, and by which prompts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..checkpoint.checkpoint import Checkpoint
from ..dtypes import DTYPES
from ..errors import RequestError
from ..quantization.calibrated import DAMPING
from ..quantization.mixed import (
    ROTATION,
    Target,
    allocate,
    candidates,
    check_room,
    estimate,
)
from ..weights.packing import Packing
from ..weights.sizes import outputs
from ..weights.tensor import Packings, Tensor, stored
from .samples import read_prompts

MIXED = "transformer"
"""The component whose layers may have different bits."""
REMAINING_BITS = 3  # at least, of layers whose inputs no run shows, such as the embedding


@dataclass(frozen=True)
class Calibration:
    prompts: tuple[str, ...]
    candidates: Mapping[str, Mapping[str, tuple[Packing, ...]]]  # by component and layer
    rooms: Mapping[str, int]  # bytes for those layers, of a component with mixed bits
    asked: Mapping[str, Any]

    @property
    def described(self) -> dict[str, Any]:
        """The manifest's words for it."""
        listed = "\n".join(self.prompts).encode()
        return {
            "method": "gptq",
            "damping": DAMPING,
            "prompts": len(self.prompts),
            "prompts_sha256": sha256(listed).hexdigest(),
            **self.asked,
        }


def calibrated_plan(
    checkpoint: Checkpoint,
    packings: Mapping[str, Packings],
    dtype: str,
    *,
    mixed: str | None,
    rotate: bool,
    prompts: Path | None,
) -> tuple[Mapping[str, Packings], Calibration]:
    """Return packings as far as they are known before anything is measured, and the request."""
    quantized = {name: chosen for name, chosen in packings.items() if chosen}
    for name, chosen in quantized.items():
        if stored(checkpoint[name].tensors):
            raise RequestError(
                f"calibrating needs weights that are not quantized, and the {name} of "
                f"{checkpoint.path} is; name the checkpoint that it was made from"
            )
        if any(packing.mode != "affine" for packing in chosen.values()):
            raise RequestError(
                f"calibrating is for a number of bits, not {next(iter(chosen.values())).mode}"
            )
    planned = {name: dict(chosen) for name, chosen in packings.items()}
    listed: dict[str, dict[str, tuple[Packing, ...]]] = {}
    rooms: dict[str, int] = {}
    for name, chosen in quantized.items():
        walked = {
            path: packing for path, packing in chosen.items() if _is_run(checkpoint, name, path)
        }
        for path in chosen.keys() - walked.keys():
            bits = max(chosen[path].bits, REMAINING_BITS)
            planned[name][path] = replace(chosen[path], bits=bits)
        listed[name] = {p: _with_rotation(q, rotate) for p, q in walked.items()}
        if mixed is not None and name == MIXED:
            layers = {path: checkpoint[name].tensors[f"{path}.weight"] for path in walked}
            others = _others(checkpoint, planned[name], layers, DTYPES[dtype])
            group = next(iter(chosen.values())).group_size
            rooms[name], choices = _mixed(layers, Target.parse(mixed), others, group, rotate)
            listed[name] = dict.fromkeys(walked, choices)
            planned[name] |= allocate(estimate(layers, choices), rooms[name])
    asked = {"mixed": mixed, "rotate": rotate}
    lines = read_prompts(checkpoint, prompts)
    return planned, Calibration(lines, listed, rooms, asked)


def _is_run(checkpoint: Checkpoint, name: str, path: str) -> bool:
    """Return whether a layer lies in a block that a generation runs."""
    stored_component = checkpoint[name]
    is_in_block = any(path.startswith(f"{b}.") for b in stored_component.component.blocks)
    return is_in_block and f"{path}.weight" in stored_component.needed


def _with_rotation(packing: Packing, rotate: bool) -> tuple[Packing, ...]:
    return (packing, replace(packing, rotation=ROTATION)) if rotate else (packing,)


def _others(
    checkpoint: Checkpoint, planned: Packings, layers: Mapping[str, Tensor], dtype: mx.Dtype
) -> int:
    """Return the bytes of a component's tensors other than these layers."""
    tensors = checkpoint[MIXED].tensors
    others = {k: t for k, t in tensors.items() if k.removesuffix(".weight") not in layers}
    return sum(output.size for output in outputs(others, planned, dtype))


def _mixed(
    layers: Mapping[str, Tensor], target: Target, others: int, group: int, rotate: bool
) -> tuple[int, tuple[Packing, ...]]:
    """Return the bytes for these layers, and the packings to choose from."""
    count = sum(tensor.count for tensor in layers.values())
    room = target.room(count, others)
    every = candidates(4, group, rotate=False), candidates(7, group, rotate=False)
    options = estimate(layers, sorted({*every[0], *every[1]}, key=lambda p: p.bits))
    check_room(options, room)
    return room, candidates(8 * room / count, group, rotate)
