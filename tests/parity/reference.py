"""Run the published pipeline on checkpoints of random weights and keep what it made.

    python -m tests.parity.reference [--device cuda] [--dtype bfloat16] [--full-width] [--pictures]
                                     [--out DIR]

Each checkpoint's cases go to NAME.npz, with NAME.json beside it: versions, device, settings.
"""

import argparse
import json
import platform
import sys
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.make_checkpoint import KINDS, write_checkpoint

from . import published
from .cases import FULL_WIDTH, PICTURES, TINY, Case
from .reference_files import REFERENCES


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16")
    parser.add_argument("--full-width", action="store_true", help="also the real widths: 4 GB")
    parser.add_argument("--pictures", action="store_true", help="the cases with pictures alone")
    parser.add_argument("--out", type=Path, default=REFERENCES)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        every = PICTURES if options.pictures else (*TINY, *FULL_WIDTH)
        cases = [case for case in every if case.kind == kind]
        if not cases or (kind == "full-width" and not options.full_width):
            continue
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = write_checkpoint(Path(folder) / kind, KINDS[kind])
            pipe = published.load(checkpoint, options.device, getattr(torch, options.dtype))
            arrays = {
                key: value for case in cases for key, value in _arrays(pipe, case, options.device)
            }
        name = f"{'pictures-' * options.pictures}{kind}-{options.device}-{options.dtype}"
        np.savez_compressed(options.out / f"{name}.npz", **arrays)
        about = _about(options.device, options.dtype, cases)
        (options.out / f"{name}.json").write_text(json.dumps(about, indent=2, ensure_ascii=False))
        print(options.out / f"{name}.npz", file=sys.stderr)


def _arrays(pipe: Any, case: Case, device: str) -> list[tuple[str, np.ndarray]]:
    run = published.run(pipe, case, device)
    kept = [(f"{case.name}/latents", np.stack(run.steps))]
    kept += [(f"{case.name}/embeds/{i}", array) for i, array in enumerate(run.embeds)]
    kept += [(f"{case.name}/image/{i}", array) for i, array in enumerate(run.images)]
    if case.kind == "full-width":  # 2560 wide: a few rows are enough
        kept = [(key, a[:4] if "/embeds/" in key else a) for key, a in kept]
    return kept


def _about(device: str, dtype: str, cases: list[Case]) -> dict[str, Any]:
    return {
        "made_by": "python -m tests.parity.reference",
        "device": torch.cuda.get_device_name()
        if device == "cuda"
        else f"{platform.system()} {platform.machine()}",
        "noise": _noise_kind(device),
        "dtype": dtype,
        "tf32": False,
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers")},
        "python": platform.python_version(),
        "checkpoint_seed": 0,
        "cases": [asdict(case) | {"request": case.request} for case in cases],
    }


def _noise_kind(device: str) -> str:
    """In the words of our `Request.noise`."""
    if device == "cpu":
        return "torch-cpu"
    card = torch.cuda.get_device_properties(0)
    return f"torch-cuda:{card.multi_processor_count}x{card.max_threads_per_multi_processor}"


if __name__ == "__main__":
    main()
