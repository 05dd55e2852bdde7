"""Conversions at full size, measured: time and peak memory of `convert.py`.

    python -m tools.full_size CONFIGS WORK [--dtype bfloat16] [--q 4 8 ...]

CONFIGS is a folder in the official layout, of which only the configs, tokenizer and scheduler are
used. WORK/DTYPE gets random weights in the shapes that they say, once (21 GB in bfloat16), and each
conversion of it is written to WORK/out, measured, loaded and removed. Beside them stands the time
to read the source once, to write as many bytes as the output has, and to read those.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx

from mlx_zimage.bench.synthetic import filled, random_tile
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.checkpoint.components import COMPONENTS
from mlx_zimage.convert.write import Files, write
from mlx_zimage.dtypes import DTYPES
from mlx_zimage.weights.sizes import outputs
from tools.recipes import of_configs

BLOCK = 1 << 24  # bytes that are read or written at once


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("configs", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--dtype", default="bfloat16", choices=list(DTYPES))
    parser.add_argument("--q", nargs="+", default=["4"])
    options = parser.parse_args()
    source, out = options.work / options.dtype, options.work / "out"
    if not source.is_dir():
        _write_source(options.configs, source, options.dtype)
    size, seconds = _read(source)
    print(f"source: {size / 1e9:.2f} GB of {options.dtype}, read once in {seconds:.0f} s")
    print("| | size | seconds | writing as much | peak RSS | loading it | reading it |")
    print("|---|---|---|---|---|---|---|")
    for choice in options.q:
        seconds, peak = _measured(source, out, choice)
        size, reading = _read(out)
        loading = _loaded(out)
        shutil.rmtree(out)
        writing = _write(options.work / "plain", size)
        cells = f"{size / 1e9:.2f} GB | {seconds:.0f} | {writing:.0f} | {peak / 1e9:.2f} GB"
        cells += f" | {loading:.1f} | {reading:.1f}"
        print(f"| `--q {choice}` | {cells} |", flush=True)


def _write_source(configs: Path, out: Path, dtype: str) -> None:
    """Normal numbers, the same tile over and over."""
    unfinished = out.with_name(f"{out.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    weights = ("*.safetensors", "*.safetensors.index.json")
    shutil.copytree(configs, unfinished, ignore=shutil.ignore_patterns(*weights))
    tile = random_tile().astype(DTYPES[dtype])
    for name in COMPONENTS:
        tensors = filled(of_configs(name, configs), tile)
        items = outputs(tensors, {}, DTYPES[dtype])
        for _ in write(unfinished / name, Files(COMPONENTS[name].stem), items):
            mx.clear_cache()
    unfinished.rename(out)


def _measured(source: Path, out: Path, choice: str) -> tuple[float, int]:
    """Seconds, and the peak of the process's resident memory."""
    script = Path(__file__).parents[1] / "convert.py"
    command = [sys.executable, str(script), str(source), str(out), "--q", choice, "--force"]
    begun = time.perf_counter()
    pid = subprocess.Popen(command).pid
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"convert.py ended with {os.waitstatus_to_exitcode(status)}")
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - begun, usage.ru_maxrss * unit


def _loaded(folder: Path) -> float:
    """Seconds to load every component, one after the other, in a process of its own."""
    call = f"from tools.full_size import load; load({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", call], stdout=subprocess.PIPE, check=True)
    return float(done.stdout)


def load(folder: str) -> None:
    checkpoint = Checkpoint.open(Path(folder))
    begun = time.perf_counter()
    for stored in checkpoint.components.values():
        mx.eval(stored.load(mx.bfloat16).parameters())
        mx.clear_cache()
    print(time.perf_counter() - begun)


def _read(folder: Path) -> tuple[int, float]:
    begun, size = time.perf_counter(), 0
    for file in sorted(folder.rglob("*.safetensors")):
        with file.open("rb", buffering=0) as handle:
            while piece := handle.read(BLOCK):
                size += len(piece)
    return size, time.perf_counter() - begun


def _write(file: Path, size: int) -> float:
    begun = time.perf_counter()
    with file.open("wb", buffering=0) as handle:
        for _ in range(0, size, BLOCK):
            handle.write(b"\0" * BLOCK)
        os.fsync(handle.fileno())
    seconds = time.perf_counter() - begun
    file.unlink()
    return seconds


if __name__ == "__main__":
    main()
