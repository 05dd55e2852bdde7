"""What fits in the device's memory: which way to hold the parts, and what must be refused."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import mlx.core as mx

from ..checkpoint.checkpoint import Checkpoint
from ..errors import OutOfMemoryError
from ..weights.tensor import Part
from .estimate import NEAR, Estimate, Picture, Weights, estimate

SHARE = 0.85
"""Of the device's memory, that memory="auto" plans with."""
SMALLER = (1, 2, 3, 4, 6, 8, 12, 16)
"""A side is divided by, in search of a picture that fits."""


class Room:
    """`modes`: those that can be chosen, the one that takes most first."""

    def __init__(
        self, checkpoint: Checkpoint, weights: Mapping[Part, Weights], modes: Sequence[str]
    ):
        self._checkpoint, self._weights, self._modes = checkpoint, weights, modes

    def estimate(self, memory: str, picture: Picture) -> Estimate:
        return estimate(self._checkpoint, self._weights, memory, picture)

    def choose(self) -> str:
        """The first way whose usual picture leaves some room, else the last."""
        side = self._checkpoint.default_side
        for memory in self._modes:
            if self.estimate(memory, Picture(side, side)).peak <= SHARE * device_memory():
                return memory
        return self._modes[-1]

    def check_weights(self, memory: str) -> None:
        """Those that cannot fit are refused before one is read."""
        sizes = [weights.whole for weights in self._weights.values()]
        needed = {"resident": sum(sizes), "staged": max(sizes)}.get(memory, 0)
        if needed <= device_memory():
            return
        staged = f"memory='staged' takes {max(sizes) / 1e9:.2f} GB, "
        raise OutOfMemoryError(
            f"the weights take {needed / 1e9:.2f} GB with memory={memory!r}, and this device has "
            f"{device_memory() / 1e9:.2f} GB; {staged if memory == 'resident' else ''}fewer bits "
            "take less, and a checkpoint converted with --q may be loaded with memory='low'"
        )

    def check(self, memory: str, picture: Picture) -> None:
        """A picture that cannot fit, were the estimate as much too high as it may be."""
        if self._fits(memory, picture):
            return
        asked = f"{picture.width} x {picture.height} pixels"
        asked += f", {picture.count} at once," if picture.count > 1 else ""
        needed = self.estimate(memory, picture).peak
        raise OutOfMemoryError(
            f"{asked} would take {needed / 1e9:.2f} GB with memory={memory!r}, and this device has "
            f"{device_memory() / 1e9:.2f} GB; {self._advice(memory, picture)}"
        )

    def _fits(self, memory: str, picture: Picture) -> bool:
        return self.estimate(memory, picture).peak * (1 - NEAR) <= device_memory()

    def _advice(self, memory: str, picture: Picture) -> str:
        for other in self._modes:
            if self._fits(other, picture):
                needed = self.estimate(other, picture).peak
                return f"memory={other!r} would take {needed / 1e9:.2f} GB"
        multiple = self._checkpoint.image_multiple
        for share in SMALLER:
            sides = (picture.width // share, picture.height // share)
            width, height = (side // multiple * multiple for side in sides)
            smaller = replace(picture, width=width, height=height, count=1)
            if min(width, height) and self._fits(memory, smaller):
                alone = " alone" if picture.count > 1 else ""
                return f"{width} x {height}{alone} would fit, or fewer bits might"
        return "a checkpoint of fewer bits takes less"


def device_memory() -> int:
    """Bytes the device may use: what MLX reports of a Metal or CUDA one, else the machine's."""
    info = mx.device_info()
    for key in ("max_recommended_working_set_size", "memory_size", "total_memory"):
        if isinstance(value := info.get(key), int):
            return value
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
