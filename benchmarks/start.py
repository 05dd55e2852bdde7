"""Seconds until a program can begin: the import of the package, and `--help`.

    python -m benchmarks.start [--runs 9]

The three take turns, each in a process of its own. The bare start is Python with NumPy and nothing
else; the package's own share is what comes on top of it.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
CONTENDERS = {
    "Python and NumPy": [sys.executable, "-c", "import numpy"],
    "import mlx_zimage": [sys.executable, "-c", "import mlx_zimage"],
    "generate.py --help": [sys.executable, str(ROOT / "generate.py"), "--help"],
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="start", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for number in range(runs + 1):
        for name, command in CONTENDERS.items():
            begun = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
            if number:  # the first round fills the disk's cache
                seconds[name].append(time.perf_counter() - begun)
    for name, samples in seconds.items():
        print(f"{name:20} {median(samples):.3f} s ({min(samples):.3f} to {max(samples):.3f})")
    share = median(seconds["import mlx_zimage"]) - median(seconds["Python and NumPy"])
    print(f"{'the import alone':20} {share:.3f} s")


if __name__ == "__main__":
    main()
