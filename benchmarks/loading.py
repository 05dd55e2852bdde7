"""Seconds to load a checkpoint of the real size, beside MLX's own reader over the same files.

    python -m benchmarks.loading WORK [--q 4] [--runs 3] [--output FILE.json]

WORK gets random weights in the real model's shapes, once (6 GB with `--q 4`). Then both take turns,
each in a process of its own: ours loads every component into its module, MLX's reader evaluates all
arrays of the same files. Both hold one component at a time, and both are warm: the files have been
read once before.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import mlx.core as mx

from mlx_zimage.bench.machine import command, describe
from mlx_zimage.bench.synthetic import synthetic
from mlx_zimage.checkpoint.published import CONFIGS
from mlx_zimage.convert.publish import describe as describe_packings
from mlx_zimage.convert.write import Files, write
from mlx_zimage.files import write_json
from mlx_zimage.weights.sizes import outputs

DTYPE = mx.bfloat16


def main() -> None:
    parser = argparse.ArgumentParser(prog="loading", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--q", type=int)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    folder = options.work / ("bfloat16" if options.q is None else f"q{options.q}")
    if not folder.is_dir():
        _write(folder, options.q)
    seconds: dict[str, list[float]] = {"load": [], "read": []}
    for number in range(options.runs + 1):
        for name in list(seconds):
            taken = _seconds(name, folder)
            if number:  # the first round warms the disk's cache
                seconds[name].append(taken)
    ratio = median(seconds["load"]) / median(seconds["read"])
    for name, label in (("load", "loading into modules"), ("read", "MLX's own reader")):
        print(f"{label}: {median(seconds[name]):.2f} s ({_range(seconds[name])})")
    print(f"ratio: {ratio:.2f}")
    if options.output:
        report: dict[str, Any] = {
            "machine": describe(),
            "command": command("python", "-m", "benchmarks.loading", *sys.argv[1:]),
            "quantize": options.q,
            "bytes": sum(file.stat().st_size for file in folder.rglob("*.safetensors")),
            "loading": {**seconds, "ratio": ratio},
        }
        options.output.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


def _range(samples: list[float]) -> str:
    return f"{min(samples):.2f} to {max(samples):.2f}"


def _write(folder: Path, quantize: int | None) -> None:
    unfinished = folder.with_name(f"{folder.name}.part")
    for name, stored in synthetic(quantize).components.items():
        packings = stored.packings(None)
        config: dict[str, Any] = dict(CONFIGS[name])
        if packings:
            config["quantization"] = describe_packings(packings)
        write_json(unfinished / name / "config.json", config)
        for _ in write(
            unfinished / name,
            Files(stored.component.stem),
            outputs(stored.tensors, packings, DTYPE),
        ):
            mx.clear_cache()
    unfinished.rename(folder)


def _seconds(name: str, folder: Path) -> float:
    code = f"from benchmarks.loading import {name}; {name}({str(folder)!r})"
    return float(subprocess.check_output([sys.executable, "-c", code], text=True))


def load(folder: str) -> None:
    """Load each component into its module, and print the seconds."""
    from mlx_zimage.checkpoint.checkpoint import StoredComponent
    from mlx_zimage.checkpoint.components import COMPONENTS
    from mlx_zimage.files import read_json
    from mlx_zimage.weights.formats import read_component

    begun = time.perf_counter()
    for name in CONFIGS:
        row, file = COMPONENTS[name], Path(folder, name, "config.json")
        data = read_json(file)
        tensors = read_component(file.parent, data)
        stored = StoredComponent(row, row.read_config(data, str(file)), tensors, file.parent, file)
        mx.eval(stored.load(DTYPE).parameters())
        mx.clear_cache()
    print(time.perf_counter() - begun)


def read(folder: str) -> None:
    """Evaluate all arrays of the same files, and print the seconds."""
    begun = time.perf_counter()
    for name in CONFIGS:
        files = sorted(Path(folder, name).glob("*.safetensors"))
        arrays = [mx.load(str(file)) for file in files]
        mx.eval(arrays)
        del arrays
        mx.clear_cache()
    print(time.perf_counter() - begun)


if __name__ == "__main__":
    main()
