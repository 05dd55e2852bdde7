"""A few seconds of training: it goes on where it stopped, and ends in a VAE that our port loads."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

pytestmark = pytest.mark.parity


def test_training_goes_on_and_ends_in_an_official_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file

    from mlx_zimage.models.autoencoder import Autoencoder, AutoencoderConfig
    from mlx_zimage.weights.index import read_folder
    from tests.make_checkpoint import official_shapes
    from tools.train_demo import architecture, train_vae

    small = {**architecture.VAE, "block_out_channels": [8, 8, 8, 8]}
    monkeypatch.setattr(train_vae, "VAE", small)
    train_vae.train(tmp_path, 2.0, "cpu", batch=2, rate=1e-3)
    state = load_file(tmp_path / "vae-training.safetensors")
    first, spent = int(state["step"]), float(state["seconds"])
    train_vae.train(tmp_path, spent + 2.0, "cpu", batch=2, rate=1e-3)
    assert 0 < first < int(load_file(tmp_path / "vae-training.safetensors")["step"])

    config = json.loads((tmp_path / "vae/config.json").read_text())
    ours = Autoencoder(AutoencoderConfig.from_dict(config))
    found = {key: entry.shape for key, entry in read_folder(tmp_path / "vae").items()}
    assert found == official_shapes(ours)

    # Its scaling and shift bring the latents to mean 0 and deviation 1.
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(tmp_path / "vae")
    pictures = next(train_vae.pictures(32, seed=5))
    with torch.no_grad():
        latents = vae.encode(pictures).latent_dist.mode().numpy()
    scaled = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    assert abs(scaled.mean()) < 0.2
    assert abs(scaled.std() - 1) < 0.2
    assert mx.isfinite(mx.array(np.asarray(scaled))).all().item()
