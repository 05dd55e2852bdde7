"""The velocity that the transformer predicts, with or without guidance."""

from collections.abc import Callable, Mapping, Sequence

import mlx.core as mx

from ..models.transformer import Conditioning, StepModulation, ZImageTransformer
from ..sampling import guidance
from ..sampling.samplers import SamplerStep
from .run import Run
from .tiles import tiled

Moment = tuple[float, float | None]
"""The time of a step, and the time that it aims at where the sampler says so."""
Modulations = Mapping[Moment, StepModulation]
"""The scales and gates of each moment that a run visits."""
Predict = Callable[[mx.array, SamplerStep], mx.array]


def modulate(transformer: ZImageTransformer, runs: Sequence[Run]) -> list[Modulations]:
    """Make the scales and gates of all steps of each run; runs with the same times share them."""
    by_moments: dict[tuple[Moment, ...], Modulations] = {}
    for moments in [_moments(run) for run in runs]:
        if moments not in by_moments:
            times, targets = zip(*moments, strict=True)
            modulations = transformer.modulate(times, None if None in targets else targets)
            mx.eval([array for modulation in modulations for array in modulation.arrays])
            by_moments[moments] = dict(zip(moments, modulations, strict=True))
    return [by_moments[_moments(run)] for run in runs]


def _moments(run: Run) -> tuple[Moment, ...]:
    steps = run.sampler().steps(run.schedule)
    return tuple(dict.fromkeys((step.time, step.target) for step in steps))


def predictor(
    run: Run,
    transformer: ZImageTransformer,
    modulations: Modulations,
    captions: Mapping[str, mx.array],
) -> Predict:
    """Return the run's velocity: the opposite of what the model predicts, in float32."""
    request, size = run.request, run.tile or run.shape[2:]
    positive = [run.caption(index, captions) for index in range(request.count)]
    negative = [captions[text] for text in run.negative_prompts]
    within = (negative, run.attention_guidance) if run.attention_guidance else ()
    with_prompt = transformer.prepare(positive, *size, *within)
    varied = with_prompt
    if run.vary is not None:
        moved = [run.vary(c, i) for i, c in enumerate(positive)]
        varied = transformer.prepare(moved, *size, *within)
    without = transformer.prepare(negative, *size) if negative and not within else None
    mx.eval(with_prompt.arrays, varied.arrays, without.arrays if without else [])

    def forward(latents: mx.array, step: SamplerStep, conditioning: Conditioning) -> mx.array:
        modulation = modulations[step.time, step.target]

        def one(part: mx.array) -> mx.array:
            return transformer(part, modulation, conditioning).astype(mx.float32)

        if run.tile is None:
            return one(latents)
        return tiled(one, latents, run.tile, transformer.config.patch_size)

    def plain(latents: mx.array, step: SamplerStep) -> mx.array:
        return forward(latents, step, varied if step.index < run.varied_steps else with_prompt)

    def guided(latents: mx.array, step: SamplerStep) -> mx.array:
        strength, truncation = request.guidance or 0.0, request.cfg_truncation or 0.0
        prediction = plain(latents, step)
        if without is None or not guidance.applies(strength, truncation, step.time):
            return -prediction
        mx.eval(prediction)  # so that only one forward's arrays exist at a time
        other = forward(latents, step, without)
        return -guidance.guide(prediction, other, strength, request.cfg_normalization or 0.0)

    return guided
