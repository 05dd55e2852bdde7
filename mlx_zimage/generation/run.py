"""A run: a request resolved against a checkpoint, with slots that the features set.

A run is carried out in this order: `prepare` (what the VAE encodes), `begin` (the first latents),
then for each step of the sampler predict, move and `keep`, then decode and `finish`; `then` is a
run that goes on from there. Most slots have a default that does nothing special; a feature's `plan`
replaces those that it needs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mlx.core as mx
from PIL import Image

from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.family import Family
from ..models.activations import Workload
from ..models.autoencoder import Autoencoder
from ..models.layers.nag import AttentionGuidance
from ..prompt.tokenizer import Tokens
from ..request import Request
from ..sampling.noise import TORCH_CPU, NoiseStream, VariedNoise
from ..sampling.samplers import Euler, Sampler, SamplerStep
from ..sampling.schedule import Schedule, SchedulerConfig

Keep = Callable[[mx.array, SamplerStep], mx.array]


def unchanged(latents: mx.array, step: SamplerStep) -> mx.array:
    """Keep what the sampler made."""
    return latents


def guides(request: Request) -> bool:
    """Return whether a filled request's negative prompts act: by guidance, or by NAG."""
    return bool(request.guidance) or (request.nag is not None and request.nag.scale > 1)


@dataclass(frozen=True)
class Beginning:
    """The state from which the steps begin."""

    latents: mx.array  # (B, C, h, w) float32
    keep: Keep = unchanged  # applied after each step


Prepared = Mapping[str, mx.array]
"""Latents that the VAE has encoded, by the names that a run's `prepare` gives them."""
Prepare = Callable[[Autoencoder, NoiseStream], Prepared]
Begin = Callable[[Prepared, NoiseStream], Beginning]
Finish = Callable[[Image.Image, int], Image.Image]  # the decoded picture and its index
Vary = Callable[[mx.array, int], mx.array]  # a caption (length, width), the picture's index


@dataclass(frozen=True, eq=False)
class Run:
    """A request with all that can be decided before a weight is read."""

    request: Request  # with every field that acts filled in
    shape: tuple[int, int, int, int]  # of the latents: (B, C, h, w)
    schedule: Schedule
    tokens: Mapping[str, Tokens]  # of each distinct prompt and negative prompt
    workload: Workload
    begin: Begin
    prepare: Prepare | None = None
    sampler: Callable[[], Sampler] = Euler  # makes one for each time the run is carried out
    vary: Vary | None = None  # changes captions for the first `varied_steps` steps
    varied_steps: int = 0
    attention_guidance: AttentionGuidance | None = None  # by the negative prompts
    finish: Finish | None = None
    tile: tuple[int, int] | None = None  # (h, w) of the latents that one forward takes
    then: "Callable[[Sequence[Image.Image]], Run] | None" = None
    """A run that goes on from this one's pictures, and makes the results instead."""
    steps_before: int = 0  # of the run that this one goes on from
    steps_after: int = 0  # of the run that goes on from this one

    @property
    def negative_prompts(self) -> tuple[str, ...]:
        """The negative prompt of each picture; empty where none acts."""
        return self.request.negative_prompts if guides(self.request) else ()

    def noise(self) -> NoiseStream:
        """Return the noise that the run draws from, at its beginning."""
        request = self.request
        kind, seed = request.noise or TORCH_CPU, 0 if request.seed is None else request.seed
        stream = NoiseStream(kind, seed)
        if request.variation_of is None:
            return stream
        seeds = request.variation_of
        base = NoiseStream(kind, seeds if isinstance(seed, int) else (seeds,) * len(seed))
        return VariedNoise(base, stream, request.variation_strength or 0.0)

    def caption(self, index: int, captions: Mapping[str, mx.array]) -> mx.array:
        """Return the caption (length, width) of one picture."""
        if self.request.embeddings:
            return mx.array(self.request.embeddings[index])
        return captions[self.request.prompts[index]]


@dataclass(frozen=True)
class Context:
    """The checkpoint that requests are resolved against."""

    checkpoint: Checkpoint
    scheduler: SchedulerConfig
    family: Family

    def shape(self, request: Request) -> tuple[int, int, int, int]:
        """Return the latents' (B, C, h, w) of a request whose sides are filled in."""
        assert request.width is not None and request.height is not None
        factor = self.checkpoint.vae.scale_factor
        channels = self.checkpoint.transformer.in_channels
        return request.count, channels, request.height // factor, request.width // factor


class Feature(Protocol):
    """A feature: the defaults of its fields, and the slots that it sets."""

    def fill(self, request: Request, context: Context) -> Mapping[str, Any]:
        """Return values for fields that are None. Raise a RequestError for what cannot be."""
        ...

    def plan(self, run: Run, context: Context) -> Run:
        """Return the run with this feature's slots set, or as it is if the feature is not used."""
        ...


Features = Sequence[Feature]
