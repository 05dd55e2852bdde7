"""From what the training wrote to the checkpoint that is shipped: bfloat16, the official layout."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_zimage.convert.samples import LISTED

from .architecture import SCHEDULER
from .captions import caption
from .scenes import random_scene

PROMPTS, SEED = 96, 3

CLASSES = {
    "transformer": ("diffusers", "ZImageTransformer2DModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler"),
    "text_encoder": ("transformers", "Qwen3ForCausalLM"),
    "tokenizer": ("transformers", "Qwen2Tokenizer"),
}
MODELS = {
    "transformer": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}


def assemble(trained: Path, demo: Path) -> None:
    """`demo` is written anew."""
    if demo.exists():
        shutil.rmtree(demo)
    for part, name in MODELS.items():
        weights: Any = mx.load(str(trained / part / name))
        config = json.loads((trained / part / "config.json").read_text("utf-8"))
        config.pop("_name_or_path", None)
        if "dtype" in config:
            config["dtype"] = "bfloat16"
        _write(demo / part / "config.json", config)
        narrow = {key: array.astype(mx.bfloat16) for key, array in weights.items()}
        mx.save_safetensors(str(demo / part / name), narrow, metadata={"format": "pt"})
    shutil.copytree(trained / "tokenizer", demo / "tokenizer")
    scheduler = {"_class_name": CLASSES["scheduler"][1], **SCHEDULER}
    _write(demo / "scheduler/scheduler_config.json", scheduler)
    _write(demo / "model_index.json", {"_class_name": "ZImagePipeline", **CLASSES})
    write_prompts(demo)


def write_prompts(demo: Path) -> None:
    """Write prompts to calibrate with: of scenes that were trained on, every third in Chinese."""
    generator = random.Random(SEED)
    lines: list[str] = []
    while len(lines) < PROMPTS:
        scene = random_scene(generator)
        if not scene.held_out:
            lines.append(caption(scene, generator, "zh" if len(lines) % 3 == 2 else "en"))
    (demo / LISTED).write_text("\n".join(lines) + "\n", "utf-8")


def _write(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
