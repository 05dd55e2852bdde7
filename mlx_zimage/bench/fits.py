"""Precisions and sizes of the real model that fit on this machine.

The shapes are the real model's, and nothing is allocated.
"""

from dataclasses import dataclass

from .. import device
from ..dtypes import DTYPES, default_dtype
from ..memory.estimate import WeightBytes, estimate
from ..memory.room import SHARE
from ..memory.store import MODES
from ..models.activations import Workload
from ..quantization.recipe import Quantization
from .synthetic import synthetic

PRECISIONS: tuple[int | None, ...] = (None, 8, 4)
SIDES = (512, 1024, 1536, 2048)
TOKENS = 512  # the longest prompt


@dataclass(frozen=True)
class Fit:
    """A picture of the real model in one precision, and the first memory mode that it fits in."""

    quantize: int | None  # None: as published, 16 bit
    side: int
    memory: str | None  # None: in no mode
    peak: int  # bytes in that mode, or in the mode that takes least


def fits(memory: int | None = None) -> list[Fit]:
    """Return a row for each precision and size; `memory` stands in for the device's bytes."""
    room = SHARE * (device.memory() if memory is None else memory)
    checkpoint = synthetic()
    dtype = DTYPES[default_dtype()]
    rows = []
    for quantize in PRECISIONS:
        recipe = None if quantize is None else Quantization.parse(quantize)
        weights = {
            name: WeightBytes.of(stored, stored.component.dtype(dtype), stored.packings(recipe))
            for name, stored in checkpoint.components.items()
        }
        for side in SIDES:
            work = Workload(side, side, checkpoint.image_multiple, 1, 8, TOKENS)
            peaks = {mode: estimate(checkpoint, weights, mode, work).peak for mode in MODES}
            fitting = next((mode for mode in MODES if peaks[mode] <= room), None)
            rows.append(Fit(quantize, side, fitting, peaks[fitting or MODES[-1]]))
    return rows
