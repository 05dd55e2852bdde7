"""The room in the device's memory: how to hold a model's components, and what must be refused."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from .. import device
from ..checkpoint.checkpoint import Checkpoint
from ..errors import OutOfMemoryError
from ..models.activations import Workload
from .estimate import PHASES, TOLERANCE, Estimate, WeightBytes, estimate

SHARE = 0.85
"""The share of the device's memory that memory="auto" plans with."""
DIVISORS = (1, 2, 3, 4, 6, 8, 12, 16)
"""Divisors of a picture's sides, tried in turn to find one that fits."""


class Room:
    """Judges workloads. `modes` are the memory modes to choose from, the largest first."""

    def __init__(
        self, checkpoint: Checkpoint, weights: Mapping[str, WeightBytes], modes: Sequence[str]
    ):
        self._checkpoint, self._weights, self._modes = checkpoint, weights, modes
        self._adapters = 0

    def beside(self, adapters: int) -> "Room":
        """Return the room beside adapters of so many bytes, which stay in memory."""
        room = Room(self._checkpoint, self._weights, self._modes)
        room._adapters = adapters
        return room

    def estimate(self, memory: str, workload: Workload) -> Estimate:
        weights = estimate(self._checkpoint, self._weights, memory, workload)
        peaks = {phase: getattr(weights, phase) for phase in PHASES}
        return Estimate(memory, **{p: n + self._adapters if n else 0 for p, n in peaks.items()})

    def choose(self) -> str:
        """Return the first mode in which a picture of the default size leaves room, or the last."""
        side = self._checkpoint.default_side
        usual = Workload(side, side, self._checkpoint.image_multiple)
        for memory in self._modes:
            if self.estimate(memory, usual).peak <= SHARE * device.memory():
                return memory
        return self._modes[-1]

    def check_weights(self, memory: str) -> None:
        """Refuse weights that cannot fit, before any of them is read."""
        sizes = [weights.total for weights in self._weights.values()]
        needed = {"resident": sum(sizes), "staged": max(sizes)}.get(memory, 0) + self._adapters
        if needed <= device.memory():
            return
        staged = f"memory='staged' takes {gigabytes(max(sizes) + self._adapters)}, "
        what = "the weights and the LoRAs" if self._adapters else "the weights"
        raise OutOfMemoryError(
            f"{what} take {gigabytes(needed)} with memory={memory!r}, and this device has "
            f"{gigabytes(device.memory())}; {staged if memory == 'resident' else ''}fewer bits "
            "take less, and a converted quantized checkpoint can be loaded with memory='low'"
        )

    def check(self, memory: str, workload: Workload) -> None:
        """Refuse a workload that would not fit even if the estimate is TOLERANCE too high."""
        if self._fits(memory, workload):
            return
        picture = f"{workload.width} x {workload.height} pixels"
        picture += f", {workload.count} at once," if workload.count > 1 else ""
        needed = self.estimate(memory, workload).peak
        raise OutOfMemoryError(
            f"{picture} would take {gigabytes(needed)} with memory={memory!r}, and this device has "
            f"{gigabytes(device.memory())}; {self._advice(memory, workload)}"
        )

    def _fits(self, memory: str, workload: Workload) -> bool:
        return self.estimate(memory, workload).peak * (1 - TOLERANCE) <= device.memory()

    def _advice(self, memory: str, workload: Workload) -> str:
        """Name a mode or a smaller picture that fits."""
        for mode in self._modes:
            if self._fits(mode, workload):
                return f"memory={mode!r} would take {gigabytes(self.estimate(mode, workload).peak)}"
        multiple = workload.multiple
        for divisor in DIVISORS:
            sides = (workload.width // divisor, workload.height // divisor)
            width, height = (side // multiple * multiple for side in sides)
            smaller = replace(workload, width=width, height=height, count=1)
            if min(width, height) and self._fits(memory, smaller):
                alone = " alone" if workload.count > 1 else ""
                return f"{width} x {height}{alone} would fit, or fewer bits might"
        return "a checkpoint of fewer bits takes less"


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB"
