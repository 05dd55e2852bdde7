"""The story of one generation: encode the prompt, denoise, decode.

A model holds an opened checkpoint and loads each of its three parts when first needed. Where memory
is short ("staged") a part is dropped once its phase is over; everything it made has been evaluated
by then, so nothing keeps it alive.
"""

import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

import mlx.core as mx

from .checkpoint.checkpoint import Checkpoint
from .errors import CheckpointError, LoraError, OutOfMemoryError
from .files import read_json
from .generation.plan import Defaults, latents_shape, resolve, schedule_of
from .hub.download import find
from .images.pixels import to_image
from .memory.estimate import Estimate, Picture
from .memory.store import Parts
from .models.transformer import Conditioning
from .prompt.embeddings import Embeddings
from .prompt.tokenizer import MAX_TOKENS, PromptTokenizer, Tokens
from .quantization.recipe import Quantization
from .request import Event, Finished, Request, Result, Started, Step, Truncated
from .sampling import guidance, noise
from .sampling.schedule import SchedulerConfig, euler_step
from .weights.tensor import Part

OUT_OF_MEMORY = ("malloc", "alloc_", "allocat", "out of memory", "insufficient memory")
"""What MLX's backends say in a plain RuntimeError."""


class PromptTruncatedWarning(UserWarning):
    """A prompt was longer than the model takes, and its end was dropped."""


@dataclass(frozen=True)
class Capabilities:
    """What a loaded model can be asked for, and what it does by default."""

    source: str
    width: int
    height: int
    steps: int
    guidance: float
    side_multiple: int
    max_prompt_tokens: int
    latent_channels: int
    pixels_per_latent: int
    dtype: str
    quantize: int | str | None
    memory: str


class ZImage:
    """A Z-Image model: `ZImage.load(...)`, then `generate` or `stream`, from any thread."""

    def __init__(self, checkpoint: Checkpoint, parts: Parts, quantize: int | str | None = None):
        file = checkpoint.scheduler_file
        self._checkpoint = checkpoint
        self._parts = parts
        self._quantize = quantize
        self._scheduler = SchedulerConfig.from_dict(read_json(file), str(file))
        self._tokenizer = PromptTokenizer.from_folder(checkpoint.tokenizer_folder)
        self._embeddings = Embeddings()

    @classmethod
    def load(
        cls,
        source: str | Path = "turbo",
        *,
        quantize: int | str | None = None,
        dtype: str | None = None,
        loras: Sequence[str] = (),
        memory: Literal["auto", "resident", "staged", "low"] = "auto",
        download: bool = False,
        revision: str | None = None,
    ) -> "ZImage":
        """Open a checkpoint: a name, a Hub repo id, a folder in the official layout, or a file.

        What a single file lacks comes from Turbo, which must be on this machine then.

        Configs and file headers are checked now; weights are read when first needed. Nothing is
        downloaded unless `download` is true. `dtype` ("bfloat16", "float16", "float32") is the
        device's fast one of 16 bits on a GPU and float32 on a CPU unless given.
        """
        if loras:
            raise LoraError("LoRA files cannot be loaded yet; leave loras empty")
        checkpoint = Checkpoint.open(find(source, download=download, revision=revision))
        quantization = None if quantize is None else Quantization.parse(quantize)
        return cls(checkpoint, Parts(checkpoint, quantization, dtype, memory), quantize)

    def capabilities(self) -> Capabilities:
        defaults = Defaults.of(self._checkpoint, self._scheduler)
        return Capabilities(
            source=str(self._checkpoint.path),
            width=defaults.side,
            height=defaults.side,
            steps=defaults.steps,
            guidance=defaults.guidance,
            side_multiple=self._checkpoint.image_multiple,
            max_prompt_tokens=self._max_tokens,
            latent_channels=self._checkpoint.transformer.in_channels,
            pixels_per_latent=self._checkpoint.vae.scale_factor,
            dtype=self._parts.dtype,
            quantize=self._quantize or self._checkpoint.quantized,
            memory=self._parts.memory,
        )

    @overload
    def generate(self, prompt: str, **options: Any) -> Result: ...
    @overload
    def generate(self, prompt: list[str] | tuple[str, ...], **options: Any) -> list[Result]: ...
    @overload
    def generate(self, prompt: Request | None = None, **options: Any) -> Any: ...
    def generate(self, prompt: Any = None, **options: Any) -> Any:
        """One picture, or a list of one for each prompt of a list; `options` as in `Request`."""
        events = self.stream(prompt, **options)
        results = [event for event in events if isinstance(event, Result)]
        several = isinstance(options.get("prompt_embeds"), list | tuple)
        if len(results) > 1 or several or isinstance(results[0].request.prompt, tuple):
            return results
        return results[0]

    def stream(
        self, prompt: str | Sequence[str] | Request | None = None, **options: Any
    ) -> Generator[Event, None, None]:
        """The same as events, as they happen. To cancel, stop asking for the next one, or close.

        What cannot be, or cannot fit in memory, is refused at once.
        """
        request = self._resolved(prompt, options)
        self._parts.check_room(self._picture(request))
        return self._run(request)

    def estimate(
        self, prompt: str | Sequence[str] | Request | None = None, **options: Any
    ) -> Estimate:
        """The most bytes that each stage of this generation would hold, with this `memory`."""
        return self._parts.estimate(self._picture(self._resolved(prompt, options)))

    def unload(self) -> None:
        """Give the memory back. The next generation loads again; one that is under way keeps what
        it has."""
        self._parts.clear()
        self._embeddings.clear()

    def _resolved(
        self, prompt: str | Sequence[str] | Request | None, options: dict[str, Any]
    ) -> Request:
        given = vars(prompt) if isinstance(prompt, Request) else {"prompt": prompt}
        request = Request.from_dict({**given, **options})
        return resolve(request, self._checkpoint, self._scheduler)

    def _texts(self, request: Request) -> list[str]:
        """All that has to be encoded, each once."""
        negatives = request.negative_prompts if request.guidance else ()
        return list(dict.fromkeys((*request.prompts, *negatives)))

    def _picture(self, request: Request) -> Picture:
        assert request.width and request.height and request.steps
        lengths = [len(embeds) for embeds in request.prompt_embeds or ()]
        texts = self._texts(request)
        lengths += [len(self._tokenizer.turn(text, self._max_tokens).ids) for text in texts]
        return Picture(
            request.width,
            request.height,
            request.count,
            request.steps,
            max(lengths),
            encodes=any(self._embeddings.get(text) is None for text in texts),
        )

    @property
    def _max_tokens(self) -> int:
        return min(MAX_TOKENS, self._checkpoint.transformer.max_caption_tokens)

    def _run(self, request: Request) -> Generator[Event, None, None]:
        try:
            positive, negative = yield from self._encode(request)
            latents = yield from self._denoise(request, positive, negative)
            yield from self._decode(request, latents, positive)
        except (RuntimeError, MemoryError) as error:
            if any(word in str(error).lower() for word in OUT_OF_MEMORY):
                raise OutOfMemoryError(
                    f"{request.width} x {request.height} pixels do not fit in memory ({error}); "
                    "ask for a smaller picture, quantize, or load with memory='staged'"
                ) from error
            raise
        finally:
            self._parts.done()  # also where the consumer stopped half-way

    def _encode(
        self, request: Request
    ) -> Generator[Event, None, tuple[list[mx.array], list[mx.array]]]:
        """Positive and negative captions, one (length, width) array for each picture."""
        negatives = request.negative_prompts if request.guidance else ()
        texts = self._texts(request)
        turns = {text: self._tokenizer.turn(text, self._max_tokens) for text in texts}
        for tokens in turns.values():
            if tokens.lost:
                message = f"the prompt is longer than {self._max_tokens} tokens"
                warnings.warn(f"{message}; lost: {tokens.lost!r}", PromptTruncatedWarning, 2)
                yield Truncated(tokens.lost, self._max_tokens)
        kept = {text: self._embeddings.get(text) for text in turns}
        encoded = {text: embedding for text, embedding in kept.items() if embedding is not None}
        if turns.keys() - encoded.keys():
            encoder = yield from self._part("text_encoder")
            started = _now()
            yield Started("encode")
            for text, tokens in turns.items():
                if text in encoded:
                    continue
                self._check_ids(tokens)
                encoded[text] = encoder(mx.array([tokens.ids]))[0]
                mx.eval(encoded[text])
                self._embeddings.put(text, encoded[text])
            del encoder
            self._parts.done()
            yield Finished("encode", _now() - started)
        given = [mx.array(embeds) for embeds in request.prompt_embeds or ()]
        positives = [encoded[text] for text in request.prompts]
        return given or positives, [encoded[text] for text in negatives]

    def _denoise(
        self, request: Request, positive: list[mx.array], negative: list[mx.array]
    ) -> Generator[Event, None, mx.array]:
        transformer = yield from self._part("transformer")
        started = _now()
        yield Started("denoise")
        latents = self._initial_latents(request)
        schedule = schedule_of(request, self._checkpoint, self._scheduler)
        size = latents.shape[2:]
        with_prompt = transformer.prepare(positive, *size)
        without = transformer.prepare(negative, *size) if negative else None
        modulations = transformer.modulate(schedule.times)
        made = [array for modulation in modulations for array in modulation.arrays]
        mx.eval(made, with_prompt.arrays, without.arrays if without else [])
        del made
        if self._parts.memory == "staged":
            transformer.drop_modulation()
        for step, modulation in enumerate(modulations):
            begun = _now()
            forward = partial(transformer, latents, modulation)
            model_time = float(schedule.times[step])
            velocity = _velocity(request, forward, model_time, with_prompt, without)
            latents = euler_step(latents, velocity, schedule, step)
            self._check_finite(latents, f"step {step + 1}")
            reached = float(schedule.sigmas[step + 1])
            yield Step(step + 1, len(schedule), reached, _now() - begun, latents)
        del transformer, forward, with_prompt, without, velocity, modulation, modulations
        self._parts.done()
        yield Finished("denoise", _now() - started)
        return latents

    def _decode(
        self, request: Request, latents: mx.array, embeds: list[mx.array]
    ) -> Iterator[Event]:
        vae = yield from self._part("vae")
        for index in range(request.count):
            started = _now()
            yield Started("decode")
            own = mx.contiguous(latents[index : index + 1])
            mx.eval(own)
            pixels = vae.decode(own)[0]
            self._check_finite(pixels, "the decoder")
            image = to_image(pixels)
            yield Finished("decode", _now() - started)
            yield Result(image, own, embeds[index], request, index)

    def _part(self, part: Part) -> Generator[Event, None, Any]:
        if part in self._parts:
            return self._parts.get(part)
        started = _now()
        yield Started("load", part)
        model = self._parts.get(part)
        yield Finished("load", _now() - started, part)
        return model

    def _check_ids(self, tokens: Tokens) -> None:
        size = self._checkpoint.text_encoder.vocab_size
        if max(tokens.ids, default=0) >= size:
            raise CheckpointError(
                f"{self._checkpoint.tokenizer_folder} gives token {max(tokens.ids)}, and the text "
                f"encoder has {size}; they are of two models"
            )

    def _check_finite(self, numbers: mx.array, where: str) -> None:
        if not mx.isfinite(numbers).all().item():
            half = self._parts.dtype == "float16"
            hint = 'load it with dtype="bfloat16"' if half else "download it again"
            raise CheckpointError(
                f"{self._checkpoint.path} makes numbers that are not finite in {where}: its "
                f"weights are broken, or they, the latents or the guidance are too large for "
                f"{self._parts.dtype}; {hint}"
            )

    def _initial_latents(self, request: Request) -> mx.array:
        if request.latents is not None:
            return mx.array(request.latents)
        assert request.noise is not None and request.seed is not None
        return noise.draw(request.noise, request.seed, latents_shape(request, self._checkpoint))


def _velocity(
    request: Request,
    forward: Callable[[Conditioning], mx.array],
    model_time: float,
    with_prompt: Conditioning,
    without: Conditioning | None,
) -> mx.array:
    """The direction to move in, float32; the model predicts the opposite one."""
    prediction = forward(with_prompt).astype(mx.float32)
    strength, truncation = request.guidance or 0.0, request.cfg_truncation or 0.0
    if without is not None and guidance.applies(strength, truncation, model_time):
        mx.eval(prediction)  # one forward's memory at a time
        other = forward(without)
        normalization = request.cfg_normalization or 0.0
        prediction = guidance.guide(prediction, other, strength, normalization)
    return -prediction


def _now() -> float:
    return time.perf_counter()
