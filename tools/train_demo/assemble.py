"""From what the training wrote to the checkpoint that is shipped: bfloat16, the official layout."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx

from .architecture import SCHEDULER

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


def _write(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
