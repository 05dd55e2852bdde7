"""TAEF1's decoder beside diffusers' AutoencoderTiny, on the same random weights."""

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage.generation.preview import TinyFile
from tests.make_checkpoint import random_tensor
from tests.measures import relative_error

from . import limits

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("layout", ["flat", "diffusers"])
def test_tiny_decoder(
    layout: str, tmp_path: Path, measure: Callable[[str, float, float], None]
) -> None:
    import torch
    from diffusers import AutoencoderTiny

    theirs = AutoencoderTiny(latent_channels=16).eval()
    shapes = {key: tuple(tensor.shape) for key, tensor in theirs.state_dict().items()}
    drawn = {key: random_tensor(key, shape) for key, shape in shapes.items()}
    theirs.load_state_dict({key: torch.from_numpy(array) for key, array in drawn.items()})
    weights = {key: mx.array(array) for key, array in drawn.items()}
    if layout == "flat":  # madebyollin's file of the decoder alone
        words = {k: k.split(".", 3) for k in weights if k.startswith("decoder.")}
        weights = {f"{int(n) + 1}.{rest}": weights[k] for k, (_, _, n, rest) in words.items()}
    mx.save_safetensors(str(tmp_path / "taef1.safetensors"), weights)
    ours = TinyFile.open(tmp_path / "taef1.safetensors").load(mx.float32)
    for h, w in ((2, 2), (8, 12), (40, 24)):
        latents = 2 * np.random.RandomState(h).standard_normal((2, 16, h, w)).astype(np.float32)
        with torch.no_grad():
            expected = theirs.decode(torch.from_numpy(latents)).sample.numpy()
        pixels = ours.decode(mx.array(latents)).transpose(0, 3, 1, 2)
        measure("TAEF1 decode", relative_error(pixels, expected), limits.VAE)
