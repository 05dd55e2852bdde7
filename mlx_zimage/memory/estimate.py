"""The most bytes that each phase of a generation holds, weights included.

Weights are counted exactly; arrays that the models make follow `models.activations`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import mlx.core as mx

from ..checkpoint.checkpoint import Checkpoint, StoredComponent
from ..checkpoint.components import Activations
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
    rows = {name: stored.component for name, stored in checkpoint.components.items()}
    by_phase = {
        p: {n: row.activations for n, row in rows.items() if row.phase == p} for p in PHASES
    }
    images = {n: row.image_activations for n, row in rows.items() if row.image_activations}
    stages: list[tuple[str, Mapping[str, Activations]]] = [*by_phase.items()]
    stages[1:1] = [("encode", images)] if workload.encodes_image else []
    if not workload.encodes:
        del stages[0]
    peaks: dict[str, int] = dict.fromkeys(PHASES, 0)
    kept: set[str] = set()
    for phase, counts in stages:
        others = sum(weights[name].total for name in kept - counts.keys())
        peak = others + _peak(checkpoint, weights, memory, counts, workload)
        peaks[phase] = max(peaks[phase], peak)
        kept |= counts.keys() if memory == "resident" else set()
    return Estimate(memory, **peaks)


def _peak(
    checkpoint: Checkpoint,
    weights: Mapping[str, WeightBytes],
    memory: str,
    counts: Mapping[str, Activations],
    workload: Workload,
) -> int:
    """Return the larger of what loading components holds and what running them holds."""
    held = sum(_held(weights[name], memory) for name in counts)
    freed = sum(weights[name].modulation for name in counts) if memory == "staged" else 0
    working = 0
    for name, count in counts.items():
        size = weights[name]
        working += count(checkpoint[name].config, workload, size.dtype, size.is_quantized)
    return max(held, held - freed + working)


def _held(weights: WeightBytes, memory: str) -> int:
    return weights.streamed if memory == "low" else weights.total
