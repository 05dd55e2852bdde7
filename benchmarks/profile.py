"""The share of a step's time that products, attention, activation and the rest take.

    python -m benchmarks.profile [--size 512] [--layers 4] [--dtype float32] [--q 4] [--runs 3]

Each of those operations is evaluated by itself, which costs a CPU nothing and a GPU some overlap.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any
from unittest.mock import patch

import mlx.core as mx
from mlx import nn

from mlx_zimage.bench.synthetic import synthetic
from mlx_zimage.dtypes import DTYPES
from mlx_zimage.models.layers.activation import swiglu
from mlx_zimage.models.layers.attention import attention
from mlx_zimage.models.layers.quantized import QuantizedLinear

TOKENS = 60


def main() -> None:
    parser = argparse.ArgumentParser(prog="profile", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32")
    parser.add_argument("--q", type=int)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    step = _step(options.size, options.layers, DTYPES[options.dtype], options.q)
    step()
    profiles = [_profile(step) for _ in range(options.runs)]
    print("| | seconds | share |")
    print("|---|---|---|")
    step_seconds = median(profile["all"] for profile in profiles)
    for name in ("matrix products", "attention", "activation", "the rest", "all"):
        seconds = median(profile[name] for profile in profiles)
        print(f"| {name} | {seconds:.3f} | {seconds / step_seconds:.1%} |")


def _step(side: int, count: int, dtype: mx.Dtype, quantize: int | None) -> Callable[[], None]:
    checkpoint = synthetic(quantize, count)
    transformer = checkpoint["transformer"].load(dtype, None)
    latents = mx.random.normal((1, 16, side // 8, side // 8), key=mx.random.key(0))
    width = checkpoint.transformer.cap_feat_dim
    caption = mx.random.normal((TOKENS, width), key=mx.random.key(1)).astype(dtype)
    conditioning = transformer.prepare([caption], side // 8, side // 8)
    (modulation,) = transformer.modulate([0.5])
    mx.eval(conditioning.arrays, modulation.arrays)
    return lambda: mx.eval(transformer(latents, modulation, conditioning))


def _profile(step: Callable[[], None]) -> dict[str, float]:
    spent: dict[str, float] = defaultdict(float)

    def timed(name: str, operation: Callable[..., mx.array]) -> Callable[..., mx.array]:
        def run(*args: Any, **kwargs: Any) -> mx.array:
            mx.eval([a for a in (*args, *kwargs.values()) if isinstance(a, mx.array)])
            begun = time.perf_counter()
            out = operation(*args, **kwargs)
            mx.eval(out)
            spent[name] += time.perf_counter() - begun
            return out

        return run

    product = "matrix products"
    with (
        patch.object(nn.Linear, "__call__", timed(product, nn.Linear.__call__)),
        patch.object(QuantizedLinear, "__call__", timed(product, QuantizedLinear.__call__)),
        patch("mlx_zimage.models.blocks.attention", timed("attention", attention)),
        patch("mlx_zimage.models.blocks.swiglu", timed("activation", swiglu)),
    ):
        begun = time.perf_counter()
        step()
        spent["all"] = time.perf_counter() - begun
    spent["the rest"] = spent["all"] - sum(spent[n] for n in (product, "attention", "activation"))
    return spent


if __name__ == "__main__":
    main()
