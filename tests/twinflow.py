"""A random TwinFlow checkpoint: any other, with a second timestep embedder."""

import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tests.make_checkpoint import random_tensor


def write_twinflow(source: Path, out: Path, prefix: str = "t_embedder_2.") -> Path:
    """Copy a checkpoint whose transformer is one file, and add the embedder's tensors."""
    shutil.copytree(source, out)
    file = out / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors: Any = mx.load(str(file))
    for key in [key for key in tensors if key.startswith("t_embedder.")]:
        name = key.replace("t_embedder.", prefix)
        tensors[name] = mx.array(np.array(random_tensor(name, tensors[key].shape)))
    mx.save_safetensors(str(file), tensors, metadata={"format": "pt"})
    return out
