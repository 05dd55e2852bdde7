"""How far a quantized checkpoint is from its source, block by block, without looking at pictures.

Each block of both is given the same inputs, those of the source; the error is the distance of the
outputs over the size of the source's. The velocity's error is that of all blocks and of the text
encoder together.
"""

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..checkpoint.checkpoint import Checkpoint
from ..errors import RequestError
from ..events import Calibrated
from ..files import write_atomically
from ..weights.tensor import stored
from .card import record_errors
from .exports import has_configs
from .plan import Conversion
from .samples import Course, dtype_of, read_prompts, tokenize
from .walk import Forward, Visit, encode, run

PROMPTS, SEED = 8, 1000
"""The prompts of a report, and its first seed, which no calibration draws with."""


@dataclass(frozen=True)
class BlockError:
    """The relative error of one block's output; `bits` of its matrices in the mean."""

    component: str
    block: str
    bits: float
    error: float


@dataclass(frozen=True)
class Report:
    """The errors of a conversion."""

    blocks: tuple[BlockError, ...]
    captions: float  # of the text encoder's output
    velocity: float  # of the transformer's, with the quantized captions

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def save(self, file: Path) -> None:
        """Write the errors as JSON."""
        text = json.dumps(self.to_dict(), indent=2) + "\n"
        write_atomically(file, lambda out: out.write(text.encode()))

    def record(self, folder: Path) -> None:
        """Write the errors into the model card and the manifest of the folder they are of."""
        record_errors(folder, self.captions, self.velocity)

    @property
    def table(self) -> str:
        """The errors as a table in Markdown."""
        rows = ["| component | block | bits | error |", "|---|---|---|---|"]
        for row in self.blocks:
            rows.append(f"| {row.component} | {row.block} | {row.bits:.2f} | {row.error:.3%} |")
        rows.append(f"| text_encoder | all: the captions | | {self.captions:.3%} |")
        rows.append(f"| transformer | all: the velocity | | {self.velocity:.3%} |")
        return "\n".join(rows)


def check_reportable(conversion: Conversion) -> None:
    """Refuse a report on a conversion that quantizes nothing, or not from numbers."""
    if not conversion.is_complete or not any(conversion.packings.values()):
        raise RequestError("a report is on a full checkpoint that is quantized; say how many bits")
    if not has_configs(conversion.target):
        raise RequestError("a report is on a folder with configs; leave out --report or --for")
    for name in conversion.components:
        if stored(conversion.tensors(name)):
            raise RequestError(
                f"a report compares with weights that are not quantized, and the {name} of "
                f"{conversion.checkpoint.path} is; leave the report out"
            )


def measure_conversion(conversion: Conversion, folder: Path) -> Generator[Calibrated, None, Report]:
    """Compare what a conversion has written to `folder` with its source."""
    source, written = conversion.checkpoint, Checkpoint.open(folder)
    calibration = conversion.calibration
    prompts = read_prompts(source) if calibration is None else calibration.prompts
    prompts = prompts[:: max(len(prompts) // PROMPTS, 1)][:PROMPTS]
    errors: list[BlockError] = []
    ids = tokenize(source, prompts)
    encoders = [checkpoint["text_encoder"] for checkpoint in (source, written)]
    blocks = encoders[1].load(dtype_of(encoders[1]), streamed=True).model.layers
    others = {f"model.layers.{i}": block for i, block in enumerate(blocks)}
    visit = _comparing("text_encoder", others, written, errors)
    captions = yield from encode(encoders[0], dtype_of(encoders[0]), ids, visit)
    theirs = yield from encode(encoders[1], dtype_of(encoders[1]), ids, run)
    course = Course(source, len(prompts), SEED)
    samples = yield from course.draw(captions)
    walks = [course.walk(checkpoint["transformer"]) for checkpoint in (source, written)]
    sizes = [course.size(i) for i in range(course.count)]
    velocities = []
    for walk, mine in zip(walks, (captions, theirs), strict=True):
        visit = run
        if walk is walks[0]:
            visit = _comparing("transformer", walks[1].blocks, written, errors)
        conditionings = yield from walk.condition(mine, sizes, visit)
        forwards = [
            Forward(s.latents, course.steps(s.prompt)[s.step].time, conditionings[s.prompt])
            for s in samples
        ]
        velocities.append((yield from walk.velocities(forwards, visit)))
    return Report(tuple(errors), _error(theirs, captions), _error(velocities[1], velocities[0]))


def _comparing(
    component: str, others: Mapping[str, Any], written: Checkpoint, errors: list[BlockError]
) -> Visit[Calibrated]:
    """Return a visit that runs a block of both checkpoints, and goes on with the source's."""
    layers = {path: packing.bits for path, packing in stored(written[component].tensors).items()}

    def visit(
        name: str, block: Any, inputs: list[mx.array], arguments: Sequence[tuple[Any, ...]]
    ) -> Generator[Calibrated, None, list[mx.array]]:
        with others[name].loaded() as other:
            found = [other(x, *further) for x, further in zip(inputs, arguments, strict=True)]
            mx.eval(found)
        outputs = yield from run(name, block, inputs, arguments)
        bits = [layers[path] for path in layers if path.startswith(f"{name}.")]
        mean = sum(bits) / len(bits) if bits else 16.0
        errors.append(BlockError(component, name, mean, _error(found, outputs)))
        count = sum(row.component == component for row in errors)
        yield Calibrated(component, "measuring", count, len(others))
        return outputs

    return visit


def _error(found: Sequence[mx.array], expected: Sequence[mx.array]) -> float:
    """Return the relative L2 distance of all arrays together."""
    squares = [0.0, 0.0]
    for a, b in zip(found, expected, strict=True):
        wide = b.astype(mx.float32)
        squares[0] += float((a.astype(mx.float32) - wide).square().sum())
        squares[1] += float(wide.square().sum())
    return float((squares[0] / squares[1]) ** 0.5) if squares[1] else 0.0
