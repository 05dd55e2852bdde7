"""All of it: autoencoder, tokenizer, text encoder, transformer, the checkpoint, its score.

    python -m tools.train_demo OUT [--start FOLDER] [--steps 100000] [--device cuda]

Run again with the same OUT it goes on where it stopped; it stops on SIGTERM, Ctrl-C or when a file
OUT/stop appears. The checkpoint goes to OUT/demo. With `--start` it begins with a whole checkpoint,
whose autoencoder and tokenizer stay. `--export` writes OUT/demo as far as the training has come.
"""

import argparse
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from .assemble import assemble
from .tokenizer import train_tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", type=Path, help="a checkpoint to begin with")
    parser.add_argument("--vae-steps", type=int, default=1600)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--export", action="store_true", help="write OUT/demo as it is now")
    options = parser.parse_args()
    out, device = options.out, ["--device", options.device]
    out.mkdir(parents=True, exist_ok=True)
    if options.export:
        _run("train_transformer", str(out), "--export", *device)
        assemble(out, out / "demo")
        return
    start = [] if options.start is None else ["--start", str(options.start)]
    if options.start is not None:
        for part in ("vae", "tokenizer"):
            shutil.copytree(options.start / part, out / part, dirs_exist_ok=True)
    else:
        _run("train_vae", str(out), "--steps", str(options.vae_steps), *device)
        if not (out / "tokenizer").is_dir():
            train_tokenizer(out / "tokenizer")
        _run("train_reader", str(out), *device)
    _run("train_transformer", str(out), "--steps", str(options.steps), *start, *device)
    assemble(out, out / "demo")
    _run("evaluate", "--model", str(out / "demo"), "--out", str(out / "scores.json"))


def _run(module: str, *arguments: str) -> None:
    """Run in a process of its own: torch and MLX would keep each other's memory and threads."""
    stage = subprocess.Popen([sys.executable, "-m", f"{__package__}.{module}", *arguments])
    signal.signal(signal.SIGTERM, lambda number, frame: stage.terminate())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the stage as well
    status = stage.wait()
    if status != 0:
        sys.exit(status)


if __name__ == "__main__":
    main()
