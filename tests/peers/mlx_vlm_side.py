"""mlx-vlm's side: draw with folders that lie here, and write folders of its own.

    python mlx_vlm_side.py ASKED.json

It runs in an environment that holds mlx-vlm and not this project.
"""

import json
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_vlm.models.mage_flow.scheduler import FlowMatchEulerDiscreteScheduler
from mlx_vlm.models.z_image.convert import convert_z_image
from mlx_vlm.models.z_image.model import ZImageGenerationModel
from mlx_vlm.models.z_image.pipeline import ZImagePipeline


def draw(folder: str, noise: mx.array, prompt: str, steps: int) -> np.ndarray:
    """The last latents (1, 16, h, w) of mlx-vlm's own pipeline from this noise."""
    if not ZImageGenerationModel.supports_model(folder):
        raise SystemExit(f"mlx-vlm does not take {folder} for a Z-Image folder")
    pipeline = ZImagePipeline(folder)
    caption, _ = pipeline._encode_conditioning(prompt, guidance=0.0, negative_prompt=None)
    shift = pipeline.config.scheduler_shift
    latents = pipeline._denoise(
        noise[:, :, None],
        scheduler=FlowMatchEulerDiscreteScheduler(num_inference_steps=steps, shift=shift),
        start_index=0,
        cap_feats=caption,
        negative_cap_feats=None,
        guidance=0.0,
        cfg_truncation=1.0,
    )
    return np.array(latents[:, :, 0].astype(mx.float32))


def main() -> None:
    asked: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    noise = mx.array(np.load(asked["noise"]))
    for out, options in asked["convert"].items():
        convert_z_image(asked["source"], out, **options)
    for folder, out in asked["draw"].items():
        np.save(out, draw(folder, noise, asked["prompt"], asked["steps"]))


main()
