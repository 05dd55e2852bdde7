"""The most bytes that each phase of a generation holds, weights included.

Weights are counted exactly; arrays that the models make follow `models.activations`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx

from ..checkpoint.checkpoint import Checkpoint, StoredComponent
from ..events import Phase
from ..models.activations import Workload
from ..weights.sizes import outputs
from ..weights.tensor import Packings

TOLERANCE = 0.15  # the share that an estimate may be wrong by
PHASES: tuple[Phase, ...] = ("encode", "denoise", "decode")


@dataclass(frozen=True)
class Estimate:
    """The most bytes at once in each phase, for a model that has loaded nothing yet."""

    memory: str
    encode: int
    denoise: int
    decode: int

    @property
    def peak(self) -> int:
        return max(self.encode, self.denoise, self.decode)


@dataclass(frozen=True)
class WeightBytes:
    """The bytes of one component's weights."""

    dtype: mx.Dtype
    total: int
    modulation: int  # the share that a run frees before its first step, if it may
    streamed: int  # held with memory="low": everything outside the blocks, and the largest block
    is_quantized: bool

    @classmethod
    def of(cls, stored: StoredComponent, dtype: mx.Dtype, packings: Packings) -> "WeightBytes":
        """Count them for a component loaded in `dtype` with these packings."""
        component = stored.component
        total = modulation = outside = 0
        blocks: dict[str, int] = {}
        for output in outputs(stored.needed, packings, dtype):
            total += output.size
            lists = [path for path in component.blocks if output.key.startswith(f"{path}.")]
            if not lists:
                outside += output.size if output.key != component.embedding else 0
            elif component.modulation and component.modulation in output.key:
                modulation += output.size
            else:
                number = output.key.removeprefix(f"{lists[0]}.").partition(".")[0]
                block = f"{lists[0]}.{number}"
                blocks[block] = blocks.get(block, 0) + output.size
        streamed = outside + max(blocks.values(), default=0)
        return cls(dtype, total, modulation, streamed, bool(packings))


def estimate(
    checkpoint: Checkpoint, weights: Mapping[str, WeightBytes], memory: str, workload: Workload
) -> Estimate:
    """Add up what each phase holds. Components of the same phase are held together."""
    peaks: dict[str, int] = {}
    resident = 0
    for phase in PHASES:
        names = [n for n, c in checkpoint.components.items() if c.component.phase == phase]
        if phase == "encode" and not workload.encodes:
            peaks[phase] = 0
            continue
        peaks[phase] = resident + _peak(checkpoint, weights, memory, names, workload)
        if memory == "resident":
            resident += sum(weights[name].total for name in names)
    return Estimate(memory, **peaks)


def _peak(
    checkpoint: Checkpoint,
    weights: Mapping[str, WeightBytes],
    memory: str,
    names: Sequence[str],
    workload: Workload,
) -> int:
    """Return the larger of what loading holds and what running holds."""
    held = sum(_held(weights[name], memory) for name in names)
    freed = sum(weights[name].modulation for name in names) if memory == "staged" else 0
    working = 0
    for name in names:
        stored, size = checkpoint[name], weights[name]
        count = stored.component.activations
        working += count(stored.config, workload, size.dtype, size.is_quantized)
    return max(held, held - freed + working)


def _held(weights: WeightBytes, memory: str) -> int:
    return weights.streamed if memory == "low" else weights.total
