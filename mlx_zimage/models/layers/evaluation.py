"""Evaluation of the arrays inside a model.

MLX builds a graph, and computes it where it is told to. On a CPU layers evaluate as they go, which
bounds memory. On a GPU they never do, so that a block can be compiled and differentiated as one
graph; there blocks are evaluated in groups: the graph of all of them would hold memory that could
be free, and nothing could interrupt it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import mlx.core as mx

from ... import device

GROUP_FLOPS = 4e12
"""Operations between two evaluations on a GPU: 2 s of an M1, 0.1 s of the fastest of today."""


_DIFFERENTIATES: ContextVar[bool] = ContextVar("differentiates", default=False)


@contextmanager
def differentiating() -> Iterator[None]:
    """Let layers evaluate nothing: a gradient would keep all that was evaluated on its way."""
    token = _DIFFERENTIATES.set(True)
    try:
        yield
    finally:
        _DIFFERENTIATES.reset(token)


def evaluate(*arrays: mx.array) -> None:
    """Evaluate arrays, unless `mx.compile` or another transformation is tracing them."""
    if _DIFFERENTIATES.get():
        return
    try:
        mx.eval(*arrays)
    except ValueError as error:
        if "transformation" not in str(error):
            raise


def evaluate_on_cpu(*arrays: mx.array) -> None:
    if device.kind() == "cpu":
        evaluate(*arrays)


def run_blocks(
    blocks: Sequence[Callable[..., mx.array]],
    x: mx.array,
    arguments: Iterable[tuple[Any, ...]],
    flops: float,
) -> mx.array:
    """Pass `x` through `blocks`, each called with its own further arguments.

    `flops`: what one block computes, which decides how many make a group on a GPU.
    """
    group = len(blocks) + 1 if device.kind() == "cpu" else max(round(GROUP_FLOPS / flops), 1)
    for number, (block, further) in enumerate(zip(blocks, arguments, strict=True), 1):
        x = block(x, *further)
        if number % group == 0:
            evaluate(x)
    return x
