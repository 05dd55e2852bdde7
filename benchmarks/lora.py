"""The cost of a LoRA on every linear layer: operations, setting it, and the time of a forward.

    python -m benchmarks.lora [--rank 16] [--q 4] [--size 256] [--layers 2] [--rounds 7]
        [--dtype float32] [--output FILE.json]

Operations are those of the published transformer at 1024 x 1024. `set_loras` is timed on its full
tree of modules, whose weights are never computed. The forward is that of the real width with few
blocks: each round runs it without the LoRA, with it and without it again, so that a slower moment
of the machine meets both; the difference of the two runs without it is the noise.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_zimage.bench.machine import command, describe
from mlx_zimage.bench.synthetic import synthetic
from mlx_zimage.checkpoint.components import COMPONENTS
from mlx_zimage.dtypes import DTYPES
from mlx_zimage.lora.attach import Attached
from mlx_zimage.lora.forms import Change, LowRank
from mlx_zimage.lora.targets import official_targets
from mlx_zimage.models.transformer import ZImageTransformer

TOKENS = 4096 + 64  # of a picture of 1024 x 1024, and of a caption
CAPTION = 64
Changes = dict[str, Change]


def main() -> None:
    parser = argparse.ArgumentParser(prog="lora", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--q", type=int)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    checkpoint = synthetic(options.q, options.layers)["transformer"]
    shapes = {k.removesuffix(".weight"): t.shape for k, t in checkpoint.needed.items()}
    transformer = checkpoint.load(DTYPES[options.dtype])
    figures = {
        "operations": operations(checkpoint.config, options.rank),
        "set_loras_seconds": set_seconds(options.rank),
        **forward_times(transformer, lora(shapes, options.rank), options.size, options.rounds),
    }
    print(f"operations of a step   {figures['operations']:.4f} x")
    print(f"set_loras              {1000 * figures['set_loras_seconds']:.1f} ms")
    print(f"a forward with it      {figures['ratio']:.4f} x, median of {options.rounds} rounds")
    print(f"twice without it       {figures['noise']:.4f} x")
    if options.output:
        asked = {name: vars(options)[name] for name in ("rank", "q", "size", "layers", "dtype")}
        ran = command("python", "-m", "benchmarks.lora", *sys.argv[1:])
        report = {"machine": describe(), "command": ran, **asked, **figures}
        options.output.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


def lora(shapes: dict[str, tuple[int, ...]], rank: int) -> Changes:
    """Return a LoRA of random numbers for every linear layer."""
    changes = {}
    for number, (path, shape) in enumerate(shapes.items()):
        if len(shape) == 2 and not path.endswith("_token"):
            keys = mx.random.split(mx.random.key(number))
            down = 0.02 * mx.random.normal((rank, shape[1]), mx.bfloat16, key=keys[0])
            up = 0.02 * mx.random.normal((shape[0], rank), mx.bfloat16, key=keys[1])
            changes[path] = Change(LowRank(down, up))
    mx.eval([array for change in changes.values() for array in change.arrays])
    return changes


def operations(config: Any, rank: int) -> float:
    """Return the operations of a step with a LoRA, as a multiple of those without."""
    targets = official_targets().modules["transformer"].values()
    blocks = [t for t in targets if ".attention.to_" in t.path or ".feed_forward." in t.path]
    added = sum(2 * TOKENS * rank * sum(target.shape) for target in blocks)
    total: float = config.block_flops(TOKENS) * len(blocks) / 7
    return 1 + added / total


def set_seconds(rank: int) -> float:
    """Return the least time of five that it takes to attach a LoRA to the full transformer."""
    component = COMPONENTS["transformer"]
    shapes = {p: t.shape for p, t in official_targets().modules["transformer"].items()}
    changes = lora(shapes, rank)
    config = synthetic().transformer
    module = component.build(config)

    def attach() -> None:
        Attached([({"transformer": changes}, 1.0)]).attach("transformer", module)

    return min(_seconds(attach) for _ in range(5))


def forward_times(
    transformer: ZImageTransformer, changes: Changes, size: int, rounds: int
) -> dict[str, Any]:
    attached = Attached([({"transformer": changes}, 1.0)]).attach("transformer", transformer)
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
