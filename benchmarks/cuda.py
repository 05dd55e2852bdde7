"""All that needs a CUDA card, in one command:

    python -m benchmarks.cuda OUT

In an environment with the parity, test and cuda extras. It makes the published pipeline's reference
latents on the card (into tests/parity/references), runs the parity tests on it, races a step of the
whole real model at 1024x1024 against diffusers, eager and compiled, in bfloat16 and with 4 and 8
bits, and draws whole pictures. OUT gets a report and a log of each; what fails stops no other.
"""

import subprocess
import sys
from pathlib import Path

import mlx.core as mx

STEP = ["-m", "benchmarks", "step", "--size", "1024", "--dtype", "bfloat16"]
REFERENCES = ["-m", "tests.parity.reference", "--device", "cuda", "--full-width"]
BENCH = ["-c", "from mlx_zimage.cli import main; main()", "bench", "--size", "1024", "--runs", "3"]
MINUTES = 30  # for each


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    if mx.default_device().type != mx.DeviceType.gpu:
        print(
            "MLX has no GPU here; install the cuda extra on a machine with a card", file=sys.stderr
        )
        return 1
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name, arguments in _commands(out).items():
        print(f"{name} ...", flush=True)
        log = out / f"{name}.log"
        with log.open("w") as file:
            try:
                done = subprocess.run(
                    [sys.executable, *arguments],
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    timeout=60 * MINUTES,
                    check=False,
                )
                status = done.returncode
            except subprocess.TimeoutExpired:
                status = 124
        print(f"{name}: {status}, see {log}", flush=True)
        failed += [name] if status else []
    return 1 if failed else 0


def _commands(out: Path) -> dict[str, list[str]]:
    peer = ["--peer", f"diffusers={sys.executable}"]
    found = {
        "references": REFERENCES,
        "references-16": [*REFERENCES, "--dtype", "bfloat16"],
        "parity": ["-m", "pytest", "-m", "parity or large"],
        "step": [*STEP, "--q", "none", "4", "8", *peer, "--output", str(out / "step.json")],
        "compiled": [*STEP, *peer, "--compile", "--output", str(out / "compiled.json")],
    }
    for bits in ("none", "4", "8"):
        quantized = [] if bits == "none" else ["--q", bits]
        file = str(out / f"picture-{bits}.json")
        found[f"picture-{bits}"] = [*BENCH, *quantized, "--dtype", "bfloat16", "--output", file]
    return found


if __name__ == "__main__":
    sys.exit(main())
