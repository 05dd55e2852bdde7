"""A training run, resolved against a model and its pictures before a weight is read."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .. import device
from ..checkpoint.checkpoint import Checkpoint
from ..errors import OutOfMemoryError, RequestError
from ..generation.plan import Planner
from ..memory.estimate import TOLERANCE
from ..memory.room import gigabytes
from ..memory.store import Store
from ..models.activations import Workload
from ..models.layers.quantized import unpacks_from
from ..prompt.tokenizer import PromptTokenizer
from .adapters import chosen, count, shape_of
from .estimate import StepSize
from .events import TrainingStarted
from .options import TrainingOptions
from .order import Noise, Order
from .pictures import Example, find
from .prepared import Prepared

DTYPES = ("bfloat16", "float32")
SAMPLES = 2  # captions that are drawn where no sample prompts are named


@dataclass(frozen=True)
class Plan:
    """The layers to train, the pictures to train on, and the sizes that follow."""

    options: TrainingOptions
    checkpoint: Checkpoint
    store: Store
    examples: Sequence[Example]
    shapes: Mapping[str, tuple[int, int]]  # of the layers that are trained, by path
    folder: Path
    quantize: int | str | None

    @classmethod
    def make(
        cls,
        images: Path,
        folder: Path,
        checkpoint: Checkpoint,
        store: Store,
        options: TrainingOptions,
        quantize: int | str | None,
    ) -> "Plan":
        """Find the pictures and the layers, or raise what stands against the run."""
        if store.dtype not in DTYPES:
            raise RequestError(
                f"training computes in {' or '.join(DTYPES)}, not {store.dtype}, which loses small "
                "gradients; choose one of them as dtype"
            )
        multiple = checkpoint.image_multiple
        side = options.resolution or checkpoint.default_side
        if side < multiple:
            raise RequestError(f"resolution must be at least {multiple}, not {side}")
        examples = find(images, options.default_caption, side**2, multiple)
        for example in examples:
            width, height = (n // checkpoint.vae.scale_factor for n in example.size)
            checkpoint.transformer.check_size(height, width)
        layers = chosen(checkpoint["transformer"].build(), options.targets)
        shapes = {path: shape_of(layer) for path, layer in layers.items()}
        narrowest = min(min(shape) for shape in shapes.values())
        if options.kind == "lora" and options.rank > narrowest:
            raise RequestError(
                f"rank must be at most {narrowest}, the shortest side of a layer that is trained, "
                f"not {options.rank}"
            )
        return cls(options, checkpoint, store, examples, shapes, folder, quantize)

    @cached_property
    def planner(self) -> Planner:
        return Planner(self.checkpoint)

    @cached_property
    def tokenizer(self) -> PromptTokenizer:
        return PromptTokenizer.from_folder(self.checkpoint.tokenizer_folder)

    @cached_property
    def prepared(self) -> Prepared:
        """The encoded pictures and captions."""
        about = [self.identity, self.quantize, self.store.dtype]
        return Prepared(self.folder / "encoded", json.dumps(about))

    @cached_property
    def identity(self) -> str:
        return self.checkpoint.identity

    @property
    def captions(self) -> list[str]:
        """The texts that are encoded: each caption once, and the empty one."""
        return [*dict.fromkeys([example.caption for example in self.examples] + [""])]

    @property
    def sample_prompts(self) -> tuple[str, ...]:
        if not self.options.sample_every:
            return ()
        return self.options.sample_prompts or tuple(
            [*dict.fromkeys(example.caption for example in self.examples)][:SAMPLES]
        )

    @cached_property
    def order(self) -> Order:
        sizes = [example.size for example in self.examples]
        return Order(sizes, self.options.batch, self.options.seed)

    @cached_property
    def noise(self) -> Noise:
        shift = self.options.shift or self.planner.context.scheduler.shift
        options = self.options
        return Noise(options.seed, options.levels, shift, options.caption_dropout)

    @cached_property
    def about(self) -> dict[str, Any]:
        """All that a resumed run must have in common with its beginning."""
        rows = [[example.digest, example.caption, *example.size] for example in self.examples]
        return {
            "model": self.identity,
            "quantize": self.quantize,
            "dtype": self.store.dtype,
            "adapter": [lora.sha256 for lora in self.store.loras.applied],
            "pictures": hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16],
            "options": self.options.fixed,
        }

    @cached_property
    def parameters(self) -> int:
        """The numbers that are trained."""
        return sum(count(shape, self.options) for shape in self.shapes.values())

    @cached_property
    def size(self) -> StepSize:
        multiple = self.checkpoint.image_multiple
        tokens = [(w // multiple) * (h // multiple) for w, h in (e.size for e in self.examples)]
        limit = self.planner.max_tokens
        lengths = [len(self.tokenizer.turn(text, limit).ids) for text in self.captions]
        options = self.options
        return StepSize(
            options.batch, max(tokens), max(lengths), self.parameters, options.checkpointing
        )

    @cached_property
    def peak(self) -> int:
        """The most bytes of the run: of encoding, of a step, or of a sample's decoding."""
        config = self.checkpoint.transformer
        weights = self.store.weights["transformer"]
        step = self.size.bytes(config, weights.dtype.size, unpacks=self._unpacks)
        width, height = max((e.size for e in self.examples), key=lambda size: size[0] * size[1])
        work = Workload(
            width,
            height,
            self.checkpoint.image_multiple,
            tokens=self.size.caption_tokens,
            encodes_image=True,
        )
        estimate = self.store.estimate(work)
        held = weights.total + 3 * 4 * self.parameters
        sample = held + estimate.decode if self.sample_prompts else 0
        return max(estimate.encode, weights.total + step, sample)

    @property
    def _unpacks(self) -> bool:
        """Whether most products unpack their weights, which the device decides."""
        packings = Counter(self.store.packings["transformer"].values())
        rows, dtype = self.size.image_tokens, self.store.weights["transformer"].dtype
        usual = [packing for packing, _ in packings.most_common(1)]
        return any(rows >= unpacks_from(p.mode, p.bits, dtype) for p in usual)

    def check_room(self) -> None:
        """Refuse a run that would not fit even if the estimate is TOLERANCE too high."""
        if self.peak * (1 - TOLERANCE) <= device.memory():
            return
        ways = ["fewer bits of the base", "a smaller resolution"]
        ways += [] if self.options.checkpointing else ["checkpointing"]
        ways += ["a batch of 1"] if self.options.batch > 1 else []
        raise OutOfMemoryError(
            f"training would take {gigabytes(self.peak)}, and this device has "
            f"{gigabytes(device.memory())}; {' or '.join(ways)} takes less"
        )

    def started(self, step: int) -> TrainingStarted:
        sizes = [example.size for example in self.examples]
        options = self.options
        return TrainingStarted(
            pictures=len(sizes),
            sizes=tuple((*size, sizes.count(size)) for size in dict.fromkeys(sizes)),
            layers=len(self.shapes),
            parameters=self.parameters,
            peak=self.peak,
            device_memory=device.memory(),
            step=step,
            steps=options.steps,
            epochs=options.steps * options.accumulate / self.order.per_epoch,
            folder=self.folder,
        )
