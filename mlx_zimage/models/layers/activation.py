"""SwiGLU in one pass over its inputs."""

from functools import partial

import mlx.core as mx


def swiglu(gate: mx.array, up: mx.array, factor: float = 1.0) -> mx.array:
    """Return `silu(gate) * up * factor`."""
    return _swiglu(gate, up) if factor == 1 else _scaled_swiglu(gate, up, factor)


@partial(mx.compile, shapeless=True)
def _swiglu(gate: mx.array, up: mx.array) -> mx.array:
    return gate * mx.sigmoid(gate) * up


@partial(mx.compile, shapeless=True)
def _scaled_swiglu(gate: mx.array, up: mx.array, factor: float) -> mx.array:
    # `up` first: the product of both may already be past what float16 holds.
    return gate * mx.sigmoid(gate) * (up * factor)
