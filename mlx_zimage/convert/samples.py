"""Samples of what a model computes with: its own runs over a list of prompts.

Every prompt is drawn in one of several shapes, from noise, along the model's schedule; two of its
steps, which differ from prompt to prompt, are the samples.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import mlx.core as mx

from ..checkpoint.checkpoint import Checkpoint, StoredComponent
from ..checkpoint.family import family_of
from ..checks import excerpt, path_text, reason
from ..dtypes import DTYPES, default_dtype
from ..errors import RequestError
from ..events import Calibrated
from ..files import read_json
from ..prompt.tokenizer import MAX_TOKENS, PromptTokenizer
from ..sampling.noise import TORCH_CPU, NoiseStream
from ..sampling.samplers import Euler, SamplerStep
from ..sampling.schedule import SchedulerConfig, make_schedule
from .walk import Forward, TransformerWalk, run

LISTED = "calibration.txt"
"""A checkpoint's own list of prompts, in its folder; the package has one for all others."""
MAX_PROMPTS = 512
LARGEST = 1 << 20  # bytes of a list
SIDE = 512  # pixels: the pictures are as large as squares of it, or of the model's default side
SHAPES = ((1.0, 1.0), (0.75, 1.25), (1.25, 0.75), (1.0, 0.75))  # height and width
MAX_STEPS = 8


@dataclass(frozen=True)
class Sample:
    """The latents of a prompt before one of its steps."""

    prompt: int
    latents: mx.array  # (1, C, h, w) float32
    step: int


def read_prompts(checkpoint: Checkpoint, file: Path | None = None) -> tuple[str, ...]:
    """Return the prompts of a file, one a line; else the checkpoint's own, or the package's."""
    own = checkpoint.home / LISTED
    if file is None and not own.is_file():
        return _lines(files(__package__).joinpath("prompts.txt").read_text("utf-8"))
    file = own if file is None else file
    try:
        with file.open("rb") as handle:
            data = handle.read(LARGEST + 1)
        text = data.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise RequestError(
            f"the prompts must be a text file, one a line; {path_text(file)} cannot be read: "
            f"{reason(error)}"
        ) from error
    prompts = _lines(text)
    if len(data) > LARGEST or "\0" in text or not 0 < len(prompts) <= MAX_PROMPTS:
        count = "more than a list may have" if len(data) > LARGEST else len(prompts)
        raise RequestError(
            f"the prompts must be 1 to {MAX_PROMPTS} lines of text, and {path_text(file)} has "
            f"{'binary data' if chr(0) in text else count}"
        )
    return prompts


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def tokenize(checkpoint: Checkpoint, prompts: Sequence[str]) -> list[tuple[int, ...]]:
    """Return each prompt's token ids."""
    tokenizer = PromptTokenizer.from_folder(checkpoint.tokenizer_folder)
    limit = min(MAX_TOKENS, checkpoint.transformer.max_caption_tokens)
    ids = [tokenizer.turn(prompt, limit).ids for prompt in prompts]
    size = checkpoint.text_encoder.vocab_size
    for prompt, tokens in zip(prompts, ids, strict=True):
        if max(tokens, default=0) >= size:
            raise RequestError(
                f"the text encoder has {size} tokens, and the prompt {excerpt(prompt)} has token "
                f"{max(tokens)}; the tokenizer is of another model"
            )
    return ids


@dataclass(frozen=True)
class Course:
    """The shapes and steps in which prompts are drawn."""

    checkpoint: Checkpoint
    count: int  # prompts
    seed: int = 0  # of the first prompt's noise

    def size(self, prompt: int) -> tuple[int, int]:
        """Return the height and width of a prompt's latents."""
        multiple, factor = self.checkpoint.image_multiple, self.checkpoint.vae.scale_factor
        side = min(self.checkpoint.default_side, SIDE)
        shape = SHAPES[prompt // MAX_STEPS % len(SHAPES)]
        height, width = (max(round(side * s / multiple), 1) * multiple // factor for s in shape)
        return height, width

    def steps(self, prompt: int) -> list[SamplerStep]:
        """Return the steps of a prompt's run."""
        file = self.checkpoint.scheduler_file
        scheduler = SchedulerConfig.from_dict(read_json(file), str(file))
        steps = min(family_of(self.checkpoint, scheduler).steps, MAX_STEPS)
        height, width = self.size(prompt)
        tokens = height * width // self.checkpoint.transformer.patch_size**2
        return Euler().steps(make_schedule(scheduler, steps, tokens))

    def sampled(self, prompt: int) -> tuple[int, ...]:
        """Return the numbers of the steps that become samples."""
        count = len(self.steps(prompt))
        return tuple(sorted({prompt % count, (prompt + count // 2) % count}))

    def walk(self, stored: StoredComponent) -> TransformerWalk:
        times = [step.time for prompt in range(self.count) for step in self.steps(prompt)]
        return TransformerWalk(stored, dtype_of(stored), times)

    def draw(self, captions: Sequence[mx.array]) -> Generator[Calibrated, None, list[Sample]]:
        """Run the model over all captions, and return the samples."""
        stored = self.checkpoint["transformer"]
        walk = self.walk(stored)
        sizes = [self.size(i) for i in range(self.count)]
        channels = self.checkpoint.transformer.in_channels
        latents = [
            NoiseStream(TORCH_CPU, self.seed + i).draw((1, channels, *size))
            for i, size in enumerate(sizes)
        ]
        steps = [self.steps(i) for i in range(self.count)]
        last = [max(self.sampled(i)) for i in range(self.count)]
        conditionings = yield from walk.condition(captions, sizes, run)
        samples, sampler = [], Euler()
        for number in range(max(last) + 1):
            samples += [
                Sample(i, latents[i], number)
                for i in range(self.count)
                if number in self.sampled(i)
            ]
            going = [i for i in range(self.count) if number < last[i]]
            forwards = [Forward(latents[i], steps[i][number].time, conditionings[i]) for i in going]
            velocities = yield from walk.velocities(forwards, run)
            for i, velocity in zip(going, velocities, strict=True):
                latents[i] = sampler.step(latents[i], velocity, steps[i][number])
                mx.eval(latents[i])
            yield Calibrated("transformer", "drawing", number + 1, max(last) + 1)
        return samples


def dtype_of(stored: StoredComponent) -> mx.Dtype:
    """Return the type that a component is run in to take samples: the device's fast one."""
    return stored.component.dtype(DTYPES[default_dtype()])


def save_samples(file: Path, captions: Sequence[mx.array], samples: Sequence[Sample]) -> None:
    """Write captions and samples to a file that appears complete or not at all."""
    arrays = {f"caption.{i}": caption for i, caption in enumerate(captions)}
    arrays |= {f"{s.prompt}.{s.step}": s.latents for s in samples}
    temporary = file.with_suffix(".part.safetensors")
    mx.save_safetensors(str(temporary), arrays)
    temporary.replace(file)


def load_samples(file: Path) -> tuple[list[mx.array], list[Sample]]:
    arrays = dict(mx.load(str(file)))  # type: ignore[arg-type]  # a dict by its ending
    mx.eval(list(arrays.values()))
    captions = sum(name.startswith("caption.") for name in arrays)
    places = sorted(tuple(map(int, n.split("."))) for n in arrays if not n.startswith("caption."))
    samples = [Sample(i, arrays[f"{i}.{step}"], step) for i, step in places]
    return [arrays[f"caption.{i}"] for i in range(captions)], samples
