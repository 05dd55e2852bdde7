"""AdamW, gradient clipping and the learning rate, as functions from one state to the next.

A run that is stopped between two steps holds the state of one of them, never something between.
"""

import math

import mlx.core as mx

Arrays = dict[str, mx.array]
BETAS, EPSILON = (0.9, 0.999), 1e-8


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Return the rate of a step, counted from 0: a rise, then half a cosine down to 0."""
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - warmup) / max(steps - warmup, 1)
    return peak * 0.5 * (1 + math.cos(math.pi * share))


def clipped(gradients: Arrays, most: float) -> tuple[Arrays, mx.array]:
    """Return gradients together no longer than `most`, and their length before."""
    squares = [mx.square(gradient).sum() for gradient in gradients.values()]
    length = mx.sqrt(mx.stack(squares).sum())
    scale = mx.minimum(most / (length + 1e-6), 1.0)
    return {name: g * scale for name, g in gradients.items()}, length


def adamw(
    parameters: Arrays,
    gradients: Arrays,
    first: Arrays,
    second: Arrays,
    rate: mx.array,
    number: mx.array,
    decay: float,
) -> tuple[Arrays, Arrays, Arrays]:
    """Return parameters and moments after step `number`, counted from 1, as torch's AdamW."""
    a, b = BETAS
    first = {n: a * m + (1 - a) * gradients[n] for n, m in first.items()}
    second = {n: b * v + (1 - b) * mx.square(gradients[n]) for n, v in second.items()}
    unbiased_first, unbiased_second = 1 - mx.power(a, number), 1 - mx.power(b, number)
    changed = {}
    for name, value in parameters.items():
        deviation = mx.sqrt(second[name] / unbiased_second) + EPSILON
        way = first[name] / unbiased_first / deviation
        changed[name] = value * (1 - rate * decay) - rate * way
    return changed, first, second
