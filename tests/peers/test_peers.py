"""mlx-vlm and mflux, as published, load what we write and draw the same; and the other way.

Each runs in an environment of its own, whose Python MLX_VLM_PYTHON and MFLUX_PYTHON name. All
folders hold the demo in float32, so that what remains is the order of sums.
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_zimage import Conversion, Result, ZImage, convert_checkpoint
from mlx_zimage.hub.locate import DEMO

pytestmark = pytest.mark.peers
PROMPT, STEPS, SIDE = "a red circle on a blue background", 4, 64
LEVELS = [1, 0.9, 0.75, 0.5, 0]  # of these steps
LIMITS = {
    "mlx-vlm, mxfp4": 4e-3,  # MLX's embeddings in that mode are bfloat16, and so its captions
    # All layers have 4 bits, the first and last as well: 1.2e-6 to 3.2e-6 with six other noises.
    "mlx-vlm, its 4 bits": 6e-6,
    "mflux, its 4 bits": 6e-6,
}
Measure = Callable[[str, float, float], None]


def _run(side: str, variable: str, asked: dict[str, Any], folder: Path) -> None:
    """Run a program's side in its environment; one that is missing is a failure."""
    python = os.environ.get(variable)
    assert python, f"{variable} must name the Python of an environment that holds the program"
    file = folder / "asked.json"
    file.write_text(json.dumps(asked))
    script = Path(__file__).with_name(side)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [python, str(script), str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def _convert(out: Path, **options: Any) -> str:
    for _ in convert_checkpoint(Conversion.plan(DEMO, dtype="float32", **options), out):
        pass
    return str(out)


def _noise(file: Path) -> np.ndarray:
    noise = np.random.default_rng(7).standard_normal((1, 16, SIDE // 8, SIDE // 8), np.float32)
    np.save(file, noise)
    return noise


def _ours(folder: str, noise: np.ndarray) -> Result:
    model = ZImage.load(folder, dtype="float32")
    return model.generate(PROMPT, latents=noise, steps=STEPS, width=SIDE, height=SIDE)


def _hold(measure: Measure, name: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    distance = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    measure(name, distance, LIMITS.get(name, 3e-6))


def test_mlx_vlm(tmp_path: Path, measure: Measure) -> None:
    """Our own folders as they are, and those of its converter."""
    noise = _noise(tmp_path / "noise.npy")
    written = {
        "plain": _convert(tmp_path / "plain"),
        "4 bits": _convert(tmp_path / "q4", quantize=4),
        "8 bits": _convert(tmp_path / "q8", quantize=8, target="mlx-vlm"),
        "mxfp4": _convert(tmp_path / "mxfp4", quantize="mxfp4"),
    }
    affine = {"quantize": True, "q_bits": 4, "q_group_size": 64, "q_mode": "affine"}
    theirs = {
        str(tmp_path / "their plain"): {"dtype": "float32"},
        str(tmp_path / "their q4"): {"dtype": "float32", **affine},
    }
    names = {**written, **dict(zip(("its plain", "its 4 bits"), theirs, strict=True))}
    asked = {
        "source": str(DEMO),
        "noise": str(tmp_path / "noise.npy"),
        "prompt": PROMPT,
        "steps": STEPS,
        "convert": theirs,
        "draw": {folder: f"{folder}.npy" for folder in names.values()},
    }
    _run("mlx_vlm_side.py", "MLX_VLM_PYTHON", asked, tmp_path)
    for name, folder in names.items():
        ours = _ours(folder, noise).latents
        _hold(measure, f"mlx-vlm, {name}", ours, np.load(f"{folder}.npy"))


def test_mflux(tmp_path: Path, measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders written for it, and those that it saves; the VAE's pixels as well."""
    monkeypatch.setattr("mlx_zimage.checkpoint.checkpoint.BASE", "demo")  # its configs
    noise = _noise(tmp_path / "noise.npy")
    written = {
        "plain": _convert(tmp_path / "plain", target="mflux"),
        "4 bits": _convert(tmp_path / "q4", target="mflux", quantize=4),
        "6 bits": _convert(tmp_path / "q6", target="mflux", quantize=6),
    }
    theirs = {str(tmp_path / "their plain"): None, str(tmp_path / "their q4"): 4}
    names = {**written, **dict(zip(("its plain", "its 4 bits"), theirs, strict=True))}
    asked = {
        "source": str(DEMO),
        "noise": str(tmp_path / "noise.npy"),
        "prompt": PROMPT,
        "levels": LEVELS,
        "save": theirs,
        "draw": {folder: f"{folder}.npz" for folder in names.values()},
    }
    _run("mflux_side.py", "MFLUX_PYTHON", asked, tmp_path)
    for name, folder in names.items():
        ours, drawn = _ours(folder, noise), np.load(f"{folder}.npz")
        _hold(measure, f"mflux, {name}", ours.latents, drawn["latents"])
        pixels = np.abs(np.asarray(ours.image, np.float32) - drawn["picture"]).max()
        measure(f"mflux, {name}, levels of a pixel", float(pixels), 0.51)  # 0.5 is our rounding
