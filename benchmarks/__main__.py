"""One stage of the real model, timed side by side with peers.

    python -m benchmarks step --size 512 --layers 4 --dtype float32 [--q 4] [--batch 1]
        [--tokens 60] [--peer diffusers=PYTHON] [--peer mflux=PYTHON] [--runs 5]
        [--output FILE.json] [--plot FILE.svg]

Stages: step (of the transformer), text (encoder), decode, encode (of the VAE). Several sizes,
dtypes, bits and batches give every combination. PYTHON is the interpreter of an environment with
that peer; each contender runs in a process of its own, and they take turns, the first in one round
the last in the next. Weights are random, in the real shapes, from a seed; `--layers` makes the
transformer's joint stream and the text encoder shorter.

A step is one forward, as each has it: ours has made the caption's refiner and the modulations
beforehand, once for a run, which the peers do in each step.

Seconds are medians, with the least and the most. GFLOP/s are the least operations that the stage
can cost, over those seconds: where they stay the same, time grows as the work does. "peak" is what
the library counts of its arrays from the first run on, "RSS" the whole process's, which includes
making the weights. Whole pictures, loading and peak memory by stage: `mlx-zimage bench`.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import Any

from mlx_zimage.bench import work
from mlx_zimage.bench.machine import command, describe
from mlx_zimage.bench.synthetic import synthetic

from .plot import plot
from .race import race
from .tables import HEAD, lines

STAGES = ("step", "text", "decode", "encode")


def main() -> None:
    options = _options()
    contenders = {"ours": sys.executable, **dict(options.peer)}
    rows: list[dict[str, Any]] = []
    print(HEAD)
    grid = itertools.product(options.size, options.dtype, options.q or [None], options.batch)
    for side, dtype, quantize, batch in grid:
        case = {
            "stage": options.stage,
            "side": side,
            "dtype": dtype,
            "quantize": quantize,
            "batch": batch,
            "tokens": options.tokens,
            "layers": options.layers,
            "compile": options.compile,
        }
        found = race(case, contenders, options.runs)
        count = {"flops": _flops(case)}
        made = [{"contender": name, **case, **count, **result} for name, result in found.items()]
        print("\n".join(lines(made)), flush=True)
        rows += made
        asked = command("python", "-m", "benchmarks", *sys.argv[1:])
        report = {"machine": describe(), "command": asked}
        if options.output:  # after each case, so that a long run that is stopped leaves something
            text = json.dumps({**report, "results": rows}, indent=2)
            options.output.write_text(text + "\n", "utf-8")
    if options.plot:
        options.plot.write_text(plot(rows), "utf-8")


def _flops(case: dict[str, Any]) -> int | None:
    """Of matrix products and attention; convolutions are not counted."""
    checkpoint, tokens, side = synthetic(None, case["layers"]), case["tokens"], case["side"]
    batch: int = case["batch"]
    if case["stage"] == "step":
        return batch * work.forward(checkpoint, tokens, side, side)
    return work.encoding(checkpoint, tokens) if case["stage"] == "text" else None


def _options() -> argparse.Namespace:
    shown = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__, formatter_class=shown)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--size", type=int, nargs="+", default=[512])
    parser.add_argument("--dtype", nargs="+", default=["float32"])
    parser.add_argument("--q", type=_bits, nargs="+", help="quantize our weights and mflux's")
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="torch.compile, for diffusers")
    parser.add_argument("--peer", type=_peer, action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    _refuse_what_cannot_act(parser, options)
    return options


def _refuse_what_cannot_act(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    vae = options.stage in ("decode", "encode")
    if vae and (options.q or options.layers):
        parser.error("--q and --layers cannot act on the VAE")
    if options.compile and not (options.stage == "step" and "diffusers" in dict(options.peer)):
        parser.error("--compile is for diffusers' step")


def _bits(text: str) -> int | str | None:
    return None if text == "none" else int(text) if text.isdigit() else text


def _peer(text: str) -> tuple[str, str]:
    name, _, python = text.partition("=")
    if name not in ("diffusers", "mflux") or not python:
        raise argparse.ArgumentTypeError("diffusers=PYTHON or mflux=PYTHON")
    return name, python


if __name__ == "__main__":
    main()
