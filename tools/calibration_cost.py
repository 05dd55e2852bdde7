"""What calibrating blocks of the real width costs: CPU seconds and peak memory, by task.

    python -m tools.calibration_cost [--blocks 2] [--prompts 4] [--side 256] [--bits 4]
                                     [--dtype float32]

The weights are random; so many joint blocks are calibrated. The seconds are the process's, of all
its threads, so that other programs on the machine change them little. Peak RSS by task is known on
Linux alone, where the kernel starts it anew; MLX counts its own arrays.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mlx.core as mx

from mlx_zimage import dtypes
from mlx_zimage.bench.synthetic import synthetic
from mlx_zimage.checkpoint.published import CONFIGS
from mlx_zimage.convert import calibrate, samples, walk
from mlx_zimage.convert.calibration import calibrated_plan
from mlx_zimage.convert.plan import Conversion
from mlx_zimage.quantization import affine, block, calibrated
from mlx_zimage.quantization.recipe import Quantization

SECONDS: dict[str, float] = defaultdict(float)
RSS: dict[str, int] = defaultdict(int)
MX: dict[str, int] = defaultdict(int)
RUNNING = ["else"]
STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--dtype", choices=dtypes.DTYPES, default=dtypes.default_dtype())
    options = parser.parse_args()
    samples.SIDE = options.side
    for module in (calibrate, samples):
        patch.object(module, "default_dtype", lambda: options.dtype).start()
    with patch.dict(CONFIGS["transformer"], n_refiner_layers=1):
        checkpoint = synthetic(layers=options.blocks)
    quantization = Quantization.parse(options.bits)
    stored = checkpoint["transformer"]
    packings = {"transformer": quantization.choose(stored.tensors, stored.component.unquantized)}
    planned, calibration = calibrated_plan(
        checkpoint, packings, "bfloat16", mixed=None, rotate=False, prompts=None
    )
    joint = {
        path: listed
        for path, listed in calibration.candidates["transformer"].items()
        if path.startswith("layers.")
    }
    prompts = calibration.prompts[: options.prompts]
    calibration = replace(calibration, prompts=prompts, candidates={"transformer": joint})
    conversion = Conversion(checkpoint, "bfloat16", planned, calibration)
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        _run(conversion, Path(folder) / "out", options.blocks)
    course = samples.Course(checkpoint, options.prompts)
    sizes = [course.size(i) for i in range(options.prompts)]
    tokens = sum(2 * (h * w // 4 + 32) for h, w in sizes)  # a caption takes 32 or 64
    print(f"{options.blocks} blocks, about {tokens} tokens, {options.bits} bits, {options.dtype}")
    for task, rss in RSS.items():
        seconds = f"{SECONDS[task] / options.blocks:6.1f} s a block, " if task in SECONDS else ""
        print(f"{task}: {seconds}RSS {rss / 1e9:.2f} GB, MLX {MX[task] / 1e9:.2f} GB")
    print(f"all: {time.process_time() - begun:.0f} s")
    predicted = calibrate.peak(conversion) / 1e9
    print(f"peak RSS: {max(RSS.values()) / 1e9:.2f} GB, predicted {predicted:.2f} GB")


def _run(conversion: Conversion, out: Path, blocks: int) -> None:
    begun = time.process_time()
    patches = [
        patch.object(block.Inputs, "add", _timed("H", block.Inputs.add)),
        patch.object(calibrated.Factor, "of", _timed("factorizing", calibrated.Factor.of)),
        patch.object(block, "calibrate", _timed("searching and rounding", calibrated.calibrate)),
        patch.object(calibrated, "search", _timed("of which searching", affine.search)),
        patch.object(calibrate, "pass_through", _timed("forward, with H", walk.pass_through)),
    ]
    for each in patches:
        each.start()
    for event in calibrate.calibrated(conversion, out):
        seconds = time.process_time() - begun
        tasks = ", ".join(f"{task} {spent:.1f}" for task, spent in SECONDS.items())
        _note("else")
        peak = f"peak RSS {max(RSS.values()) / 1e9:.2f} GB"
        print(f"{seconds:7.1f} s  {event.task} {event.done}: {tasks}; {peak}", flush=True)


def _timed(task: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def timed(*args: Any) -> Any:
        _note(RUNNING[-1])
        RUNNING.append(task)
        begun = time.process_time()
        try:
            return function(*args)
        finally:
            SECONDS[task] += time.process_time() - begun
            _note(RUNNING.pop())

    return timed


def _note(task: str) -> None:
    """Add the peaks since the last note to a task's, and start them anew."""
    MX[task] = max(MX[task], mx.get_peak_memory())
    mx.reset_peak_memory()
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if REFERENCES.exists():
        [line] = [line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM")]
        peak = int(line.split()[1]) * 1024
        REFERENCES.write_text("5")
    RSS[task] = max(RSS[task], peak)


if __name__ == "__main__":
    main()
