"""The bytes that a block of the transformer moves beside its matrix products and attention.

    python -m benchmarks.bytes [--size 1024] [--tokens 32] [--dtype bfloat16]

Nothing is computed: MLX's graph of a block is walked. Each kernel that a GPU would launch counts
its inputs and outputs once: operations on elements, norms and copies. A function under `mx.compile`
is one kernel. Views move nothing, and an array that a kernel sees through several views is read
once.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any
from unittest.mock import patch

import mlx.core as mx
from mlx import nn

from mlx_zimage.checkpoint.published import CONFIGS
from mlx_zimage.models.transformer import ZImageTransformer
from mlx_zimage.models.transformer_config import TransformerConfig

VIEWS = {
    *("Broadcast", "Transpose", "Reshape", "Flatten", "Unflatten"),
    *("Slice", "Split", "Squeeze", "ExpandDims"),
}
PRODUCTS = {"Matmul", "AddMM", "QuantizedMatmul", "scaled_dot_product_attention"}
FAST = ("rms_norm", "layer_norm", "scaled_dot_product_attention")  # MLX's own fused functions
CHIP = "applegpu_g16s"  # what layers do depends on the device
COMPILED = type(nn.silu)  # what `mx.compile` returns
STAND_IN = "Depends"  # the graph's node for a call of a fused function

Array = tuple[str, tuple[int, ...], mx.Dtype]  # as an exported graph tells of it


def count(
    function: Callable[[mx.array], mx.array], x: mx.array
) -> tuple[Counter[str], Counter[str]]:
    """Return how often each kernel is launched, and the bytes that it moves in all."""
    walk = _Walk()
    with walk.on_a_gpu():
        mx.export_function(walk.look, function, x)
    return walk.launches, walk.moved


class _Walk:
    def __init__(self) -> None:
        self.launches: Counter[str] = Counter()
        self.moved: Counter[str] = Counter()
        self._calls: list[str] = []  # of fused functions, by their number
        self._constants: dict[str, int] = {}
        self._sources: dict[str, tuple[str, int]] = {}  # what an array is a view of, its elements
        self._sizes: dict[str, int] = {}  # bytes of what may be viewed

    @contextmanager
    def on_a_gpu(self) -> Iterator[None]:
        """Make the device a GPU in name, and each call of a fused function one node."""
        modules = [module for name, module in sys.modules.items() if name.startswith("mlx")]
        with ExitStack() as stack:
            stack.enter_context(patch.object(mx, "default_device", lambda: mx.Device(mx.gpu)))
            stack.enter_context(patch.object(mx, "device_info", lambda: {"architecture": CHIP}))
            stack.enter_context(patch.object(mx.metal, "is_available", lambda: True))
            for name in FAST:
                fused = self._one_node(getattr(mx.fast, name), name)
                stack.enter_context(patch.object(mx.fast, name, fused))
            for module in modules:
                for name, value in list(vars(module).items()):
                    if type(value) is COMPILED:
                        fused = self._one_node(value, name.strip("_"))
                        stack.enter_context(patch.object(module, name, fused))
            yield

    def _one_node(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return a function that puts its call's number in place of its results' graph."""

        def call(*args: Any, **kwargs: Any) -> Any:
            results = function(*args, **kwargs)
            arrays = [results] if isinstance(results, mx.array) else results
            inputs = [a for a in (*args, *kwargs.values()) if isinstance(a, mx.array)]
            number = len(self._calls)
            self._calls.append(name)
            numbers = [mx.broadcast_to(mx.array(number, a.dtype), a.shape) for a in arrays]
            nodes = mx.depends(numbers, inputs)
            return nodes[0] if isinstance(results, mx.array) else tuple(nodes)

        return call

    def look(self, part: dict[str, Any]) -> None:
        for name, value in part.get("constants", []):
            if value.ndim == 0:
                self._constants[name] = int(value.item())
        if part["type"] == "primitive":
            self._kernel(part["name"], part["inputs"], part["outputs"])

    def _kernel(self, name: str, inputs: list[Array], outputs: list[Array]) -> None:
        if name in VIEWS:
            source, elements = self._source(inputs[0])
            for output, shape, _ in outputs:
                self._sources[output] = (source, min(elements, prod(shape)))
            return
        if name == STAND_IN:
            name = self._calls[self._constants[self._source(inputs[0])[0]]]
            inputs = inputs[len(outputs) :]
        read: Counter[str] = Counter()
        for array in inputs:
            source, elements = self._source(array)
            read[source] = min(read[source] + elements * array[2].size, self._sizes[source])
        if name not in PRODUCTS:
            self.launches[name] += 1
            written = sum(prod(shape) * dtype.size for _, shape, dtype in outputs)
            self.moved[name] += sum(read.values()) + written

    def _source(self, array: Array) -> tuple[str, int]:
        name, shape, dtype = array
        if name not in self._sources:
            self._sources[name] = (name, prod(shape))
            self._sizes[name] = prod(shape) * dtype.size
        return self._sources[name]


def block(
    config: TransformerConfig, side: int, tokens: int, dtype: mx.Dtype
) -> tuple[Callable[[mx.array], mx.array], mx.array]:
    """Return a modulated block for pictures of `side` pixels, and an input."""
    model = ZImageTransformer(config)
    model.set_dtype(dtype)
    caption = mx.zeros((tokens, config.cap_feat_dim), dtype)
    rope = model.prepare([caption], side // 8, side // 8).joint_rope
    modulation = model.modulate([0.5])[0].layers[0]
    weights = model.layers[0].parameters()  # type: ignore[no-untyped-call]  # nn has no types
    mx.eval(rope, modulation.arrays, weights)  # else their making is counted

    def run(x: mx.array) -> mx.array:
        return model.layers[0](x, rope, None, modulation)

    return run, mx.zeros((1, rope.cos.shape[1], config.dim), dtype)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bytes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="bfloat16")
    options = parser.parse_args()
    real = {**CONFIGS["transformer"], "n_layers": 1, "n_refiner_layers": 1}
    config, dtype = TransformerConfig.from_dict(real), getattr(mx, options.dtype)
    launches, moved = count(*block(config, options.size, options.tokens, dtype))
    print("| kernel | launches | MB |")
    print("|---|---|---|")
    for name, size in moved.most_common():
        print(f"| {name} | {launches[name]} | {size / 1e6:.1f} |")
    print(f"| all | {launches.total()} | {moved.total() / 1e6:.1f} |")


if __name__ == "__main__":
    main()
