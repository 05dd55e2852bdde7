"""Peak memory of a picture, where a machine is too slow to run every block.

    python -m benchmarks.peak [--q 4] [--size 1024] [--dtype bfloat16] [--memory staged]
        [--blocks 1] [--output FILE.json]

Every weight is held as in a whole run, and the shapes are the real ones; but there is one step, and
of the noise refiner and of the joint stream it runs only the first blocks. As a block gives back
what it takes, the peaks are those of a whole run. The seconds are not, and are not shown.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mlx.core as mx

from mlx_zimage.bench.machine import command, describe
from mlx_zimage.bench.measure import measure
from mlx_zimage.bench.synthetic import synthetic
from mlx_zimage.cli.bench import PROMPT
from mlx_zimage.dtypes import DTYPES
from mlx_zimage.memory.store import MODES, Store
from mlx_zimage.models.transformer import Conditioning, StepModulation, ZImageTransformer
from mlx_zimage.request import Request
from mlx_zimage.zimage import ZImage

Forward = Callable[[ZImageTransformer, mx.array, StepModulation, Conditioning], mx.array]


def main() -> None:
    parser = argparse.ArgumentParser(prog="peak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--q", type=int)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--dtype", choices=list(DTYPES), default="bfloat16")
    parser.add_argument("--memory", choices=MODES, default="staged")
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    checkpoint = synthetic(options.q)
    store = Store(checkpoint, None, options.dtype, options.memory)
    model = ZImage(checkpoint, store, options.q)
    side = options.size
    request = Request(PROMPT, width=side, height=side, steps=1, seed=0, guidance=0)
    forward = _first(options.blocks, ZImageTransformer.__call__)
    with patch.object(ZImageTransformer, "__call__", forward):
        picture = measure(model, checkpoint, request, runs=1).to_dict()
    for stage in picture["stages"]:
        del stage["seconds"]
        print(f"{stage['name']:18} {stage['peak'] / 1e9:6.2f} GB")
    print(f"the process {picture['peak_rss'] / 1e9:.2f} GB")
    if options.output:
        report: dict[str, Any] = {
            "machine": describe(),
            "command": command("python", "-m", "benchmarks.peak", *sys.argv[1:]),
            **{name: vars(options)[name] for name in ("dtype", "memory", "blocks")},
            "quantize": options.q,
            "peaks": picture,
        }
        options.output.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


def _first(count: int, forward: Forward) -> Forward:
    """The forward, with the first blocks of each stack; the others stay where they are."""

    def run(
        model: ZImageTransformer,
        latents: mx.array,
        modulation: StepModulation,
        conditioning: Conditioning,
    ) -> mx.array:
        whole = model.noise_refiner, model.layers
        model.noise_refiner, model.layers = (blocks[:count] for blocks in whole)
        refiner, layers = modulation.noise_refiner[:count], modulation.layers[:count]
        try:
            few = replace(modulation, noise_refiner=refiner, layers=layers)
            return forward(model, latents, few, conditioning)
        finally:
            model.noise_refiner, model.layers = whole

    return run


if __name__ == "__main__":
    main()
