"""The cost of a LoRA on every linear layer: operations, setting it, and the time of a forward.

    python -m benchmarks.lora [--rank 16] [--size 256] [--layers 2] [--rounds 7]
        [--dtype float32] [--output FILE.json]

Operations are those of the published transformer at 1024 x 1024. `set_loras` is timed on its full
tree of modules, whose weights are never computed. The forward is that of the real width with few
blocks and no refiners. Each round runs it without the LoRA, with it, and without it again, so that
a slow moment of the machine meets both; the two runs without it show the noise.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_zimage.bench.machine import command, describe
from mlx_zimage.bench.synthetic import synthetic
from mlx_zimage.dtypes import DTYPES
from mlx_zimage.lora.attach import Attached
from mlx_zimage.lora.forms import Change, LowRank
from mlx_zimage.lora.targets import official_targets
from mlx_zimage.models.layers.linear import Linear
from mlx_zimage.models.transformer import ZImageTransformer
from mlx_zimage.models.transformer_config import TransformerConfig

TOKENS = 4096 + 64  # of a picture of 1024 x 1024, and of a caption
CAPTION = 64
Changes = dict[str, Change]


def main() -> None:
    parser = argparse.ArgumentParser(prog="lora", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    config = synthetic().transformer
    few = replace(config, n_layers=options.layers, n_refiner_layers=0)
    transformer = random_transformer(few, DTYPES[options.dtype])
    figures = {
        "operations": operations(config, options.rank),
        "set_loras_seconds": set_seconds(config, options.rank),
        **forward_times(transformer, options.rank, options.size, options.rounds),
    }
    print(f"operations of a step   {figures['operations']:.4f} x")
    print(f"set_loras              {1000 * figures['set_loras_seconds']:.1f} ms")
    print(f"a forward with it      {figures['ratio']:.4f} x, median of {options.rounds} rounds")
    print(f"twice without it       {figures['noise']:.4f} x")
    if options.output:
        asked = {name: vars(options)[name] for name in ("rank", "size", "layers", "dtype")}
        ran = command("python", "-m", "benchmarks.lora", *sys.argv[1:])
        report = {"machine": describe(), "command": ran, **asked, **figures}
        options.output.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


def random_transformer(config: TransformerConfig, dtype: mx.Dtype) -> ZImageTransformer:
    """Return a transformer of random weights."""
    module = ZImageTransformer(config)
    parameters = cast(
        list[tuple[str, mx.array]],
        tree_flatten(module.parameters()),  # type: ignore[no-untyped-call]  # nn has no types
    )
    for number, (key, array) in enumerate(parameters):
        values = 0.02 * mx.random.normal(array.shape, dtype, key=mx.random.key(number))
        mx.eval(values)
        module.load_weights([(key, values)], strict=False)  # one of many
    return module


def lora(module: ZImageTransformer, rank: int) -> Changes:
    """Return a LoRA of random numbers for every linear layer."""
    changes = {}
    modules = module.named_modules()  # type: ignore[no-untyped-call]  # nn has no types
    for number, (path, layer) in enumerate(modules):
        if isinstance(layer, Linear):
            shape = layer.weight.shape
            keys = mx.random.split(mx.random.key(number))
            down = 0.02 * mx.random.normal((rank, shape[1]), mx.bfloat16, key=keys[0])
            up = 0.02 * mx.random.normal((shape[0], rank), mx.bfloat16, key=keys[1])
            changes[path] = Change(LowRank(down, up))
    mx.eval([array for change in changes.values() for array in change.arrays])
    return changes


def operations(config: TransformerConfig, rank: int) -> float:
    """Return the operations of a step with a LoRA, as a multiple of those without."""
    targets = official_targets().modules["transformer"].values()
    blocks = [t for t in targets if ".attention.to_" in t.path or ".feed_forward." in t.path]
    added = sum(2 * TOKENS * rank * sum(target.shape) for target in blocks)
    total: float = config.block_flops(TOKENS) * len(blocks) / 7
    return 1 + added / total


def set_seconds(config: TransformerConfig, rank: int) -> float:
    """Return the least time of five that it takes to attach a LoRA to the full transformer."""
    module = ZImageTransformer(config)
    changes = lora(module, rank)

    def attach() -> None:
        Attached([({"transformer": changes}, 1.0)]).attach("transformer", module)

    return min(_seconds(attach) for _ in range(5))


def forward_times(
    transformer: ZImageTransformer, rank: int, size: int, rounds: int
) -> dict[str, Any]:
    attached = Attached([({"transformer": lora(transformer, rank)}, 1.0)]).attach(
        "transformer", transformer
    )
    latents = mx.random.normal((1, 16, size // 8, size // 8), key=mx.random.key(0))
    caption = mx.random.normal((CAPTION, transformer.config.cap_feat_dim), key=mx.random.key(1))

    def forward(model: ZImageTransformer) -> Callable[[], None]:
        conditioning = model.prepare([caption], size // 8, size // 8)
        (modulation,) = model.modulate([0.5])
        mx.eval(conditioning.arrays, modulation.arrays)
        return lambda: mx.eval(model(latents, modulation, conditioning))

    base, changed = forward(transformer), forward(attached)
    base()
    changed()
    times = [(_seconds(base), _seconds(changed), _seconds(base)) for _ in range(rounds)]
    return {
        "ratio": statistics.median(2 * with_it / (a + b) for a, with_it, b in times),
        "noise": statistics.median(max(a, b) / min(a, b) for a, _, b in times),
        "seconds": times,
    }


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
