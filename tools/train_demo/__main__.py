"""All of it: autoencoder, tokenizer, text encoder, transformer, the checkpoint, its score.

    python -m tools.train_demo OUT [--vae-minutes 26] [--minutes 160] [--device cuda]

Run again with the same OUT it goes on where it stopped. The checkpoint goes to OUT/demo.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from .assemble import assemble
from .tokenizer import train_tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--vae-minutes", type=float, default=26)
    parser.add_argument("--minutes", type=float, default=160)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    out = options.out
    device = ["--device", options.device]
    _run("train_vae", str(out), "--minutes", str(options.vae_minutes), *device)
    if not (out / "tokenizer").is_dir():
        train_tokenizer(out / "tokenizer")
    _run("train_reader", str(out), *device)
    _run("train_transformer", str(out), "--minutes", str(options.minutes), *device)
    assemble(out, out / "demo")
    _run("evaluate", "--model", str(out / "demo"), "--out", str(out / "scores.json"))


def _run(module: str, *arguments: str) -> None:
    """In a process of its own: torch and MLX would keep each other's memory and threads."""
    subprocess.run([sys.executable, "-m", f"{__package__}.{module}", *arguments], check=True)


if __name__ == "__main__":
    main()
