"""From what the training wrote to the checkpoint that is shipped: bfloat16, the official layout."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_zimage.capabilities import VOCABULARY
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.convert.samples import LISTED
from mlx_zimage.files import write_json
from mlx_zimage.generation.preview import FILE as PREVIEW
from mlx_zimage.generation.preview import fitted_map
from mlx_zimage.memory.store import Store

from .architecture import SCHEDULER
from .captions import SHAPES_ZH, caption
from .scenes import SHAPES, random_scene

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
        write_json(demo / part / "config.json", config)
        narrow = {key: array.astype(mx.bfloat16) for key, array in weights.items()}
        mx.save_safetensors(str(demo / part / name), narrow, metadata={"format": "pt"})
    shutil.copytree(trained / "tokenizer", demo / "tokenizer")
    scheduler = {"_class_name": CLASSES["scheduler"][1], **SCHEDULER}
    write_json(demo / "scheduler/scheduler_config.json", scheduler)
    write_json(demo / "model_index.json", {"_class_name": "ZImagePipeline", **CLASSES})
    write_prompts(demo)
    write_json(demo / VOCABULARY, vocabulary())
    checkpoint = Checkpoint.open(demo)
    colours = fitted_map(checkpoint, Store(checkpoint, dtype="float32"))
    numbers = {"matrix": colours.matrix, "bias": colours.bias}
    lists = {name: values.astype(float).round(5).tolist() for name, values in numbers.items()}
    (demo / "vae" / PREVIEW).write_text(f"{json.dumps(lists)}\n", "utf-8")


def write_prompts(demo: Path) -> None:
    """Write prompts to calibrate with: of scenes that were trained on, every third in Chinese."""
    generator = random.Random(SEED)
    lines: list[str] = []
    while len(lines) < PROMPTS:
        scene = random_scene(generator)
        if not scene.held_out:
            lines.append(caption(scene, generator, "zh" if len(lines) % 3 == 2 else "en"))
    (demo / LISTED).write_text("\n".join(lines) + "\n", "utf-8")


def vocabulary() -> dict[str, Any]:
    """Return what the demo draws, and the words for it in both languages."""
    chinese = dict.fromkeys(word for words in SHAPES_ZH.values() for word in words)
    return {
        "draws": "shapes, letters and digits on a plain background",
        "example": "a red circle on a blue background",
        "words": [*SHAPES, "letter", "digit", *chinese, "字母", "数字"],
    }
