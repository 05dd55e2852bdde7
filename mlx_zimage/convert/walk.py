"""Forwards over several samples at once, block by block: each block is read once for all of them.

A `Visit` is what happens at a block: it takes the block, the inputs of all samples and their
further arguments, and returns the outputs.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import mlx.core as mx

from ..checkpoint.checkpoint import StoredComponent
from ..checkpoint.streaming import Streamed
from ..device import give_back
from ..models.transformer import Conditioning, StepModulation, ZImageTransformer

Event = TypeVar("Event")
Visit = Callable[
    [str, Any, list[mx.array], Sequence[tuple[Any, ...]]],
    Generator[Event, None, list[mx.array]],
]


@dataclass(frozen=True)
class Forward:
    """One forward of the transformer."""

    latents: mx.array  # (1, C, h, w) float32
    time: float
    conditioning: Conditioning


def run(
    name: str, block: Streamed, inputs: list[mx.array], arguments: Sequence[tuple[Any, ...]]
) -> Generator[Any, None, list[mx.array]]:
    """Pass all inputs through a block, and do nothing else."""
    with block.loaded() as module:
        outputs = pass_through(module, inputs, arguments)
    give_back()
    yield from ()
    return outputs


def pass_through(
    module: Callable[..., mx.array], inputs: list[mx.array], arguments: Sequence[tuple[Any, ...]]
) -> list[mx.array]:
    """Replace each input by its output, so that no more than one of both is there."""
    for i, further in enumerate(arguments):
        inputs[i] = module(inputs[i], *further)
        mx.eval(inputs[i])
    return inputs


class TransformerWalk:
    """The transformer of a checkpoint, its blocks on disk."""

    def __init__(self, stored: StoredComponent, dtype: mx.Dtype, times: Sequence[float]):
        self._model: ZImageTransformer = stored.load(dtype, streamed=True)
        distinct = list(dict.fromkeys(times))
        modulations = self._model.modulate(distinct)
        mx.eval([m.arrays for m in modulations])
        self._modulations: dict[float, StepModulation] = dict(
            zip(distinct, modulations, strict=True)
        )
        self._refiner = self._model.context_refiner
        self._model.context_refiner = []  # `condition` runs it for all captions

    @property
    def blocks(self) -> dict[str, Any]:
        """The blocks by name, those of captions too."""
        lists = {
            "context_refiner": self._refiner,
            "noise_refiner": self._model.noise_refiner,
            "layers": self._model.layers,
        }
        return {f"{n}.{i}": block for n, blocks in lists.items() for i, block in enumerate(blocks)}

    def condition(
        self,
        captions: Sequence[mx.array],
        sizes: Sequence[tuple[int, int]],
        visit: "Visit[Event]",
    ) -> Generator[Event, None, list[Conditioning]]:
        """Refine captions, each (length, width), for latents of these heights and widths."""
        starts = [self._model.embed_caption(caption) for caption in captions]
        refined = [x for x, _ in starts]
        mx.eval(refined)
        arguments = [(rope,) for _, rope in starts]
        for number, block in enumerate(self._refiner):
            refined = yield from visit(f"context_refiner.{number}", block, refined, arguments)
        conditionings = [
            replace(self._model.prepare([caption], *size), captions=x)
            for caption, size, x in zip(captions, sizes, refined, strict=True)
        ]
        mx.eval([conditioning.arrays for conditioning in conditionings])
        return conditionings

    def velocities(
        self, forwards: Sequence[Forward], visit: "Visit[Event]"
    ) -> Generator[Event, None, list[mx.array]]:
        """Return the velocity that each forward predicts, (1, C, h, w) float32."""
        model = self._model
        modulations = [self._modulations[forward.time] for forward in forwards]
        xs = [model.embed_image(forward.latents) for forward in forwards]
        mx.eval(xs)
        for number, block in enumerate(model.noise_refiner):
            arguments: list[tuple[Any, ...]] = [
                (forward.conditioning.image_rope, None, modulation.noise_refiner[number])
                for forward, modulation in zip(forwards, modulations, strict=True)
            ]
            xs = yield from visit(f"noise_refiner.{number}", block, xs, arguments)
        xs = [
            mx.concatenate([x, forward.conditioning.captions], axis=1)
            for x, forward in zip(xs, forwards, strict=True)
        ]
        mx.eval(xs)
        for number, block in enumerate(model.layers):
            arguments = [
                (forward.conditioning.joint_rope, None, modulation.layers[number])
                for forward, modulation in zip(forwards, modulations, strict=True)
            ]
            xs = yield from visit(f"layers.{number}", block, xs, arguments)
        results = []
        for x, forward, modulation in zip(xs, forwards, modulations, strict=True):
            velocity = -model.finish(x, modulation, forward.conditioning).astype(mx.float32)
            mx.eval(velocity)
            results.append(velocity)
        return results


def encode(
    stored: StoredComponent,
    dtype: mx.Dtype,
    prompts: Sequence[Sequence[int]],
    visit: "Visit[Event]",
) -> Generator[Event, None, list[mx.array]]:
    """Return the caption (length, width) of each prompt's token ids."""
    model = stored.load(dtype, streamed=True)
    starts = [model.embed(mx.array([list(ids)])) for ids in prompts]
    xs = [x for x, _ in starts]
    mx.eval(xs)
    arguments = [(rope,) for _, rope in starts]
    for number, block in enumerate(model.model.layers):
        xs = yield from visit(f"model.layers.{number}", block, xs, arguments)
    return [x[0] for x in xs]
