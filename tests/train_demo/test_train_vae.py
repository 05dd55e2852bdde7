"""A few steps of training: they go on where they stopped, and end in a VAE that our port loads."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

pytestmark = pytest.mark.parity


def test_training_goes_on_and_ends_in_an_official_folder(
    tmp_path: Path, signals: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from mlx_zimage.models.autoencoder import Autoencoder, AutoencoderConfig
    from mlx_zimage.weights.index import read_folder
    from tests.make_checkpoint import official_shapes
    from tools.train_demo import architecture, train_vae

    small = {**architecture.VAE, "block_out_channels": [8, 8, 8, 8]}
    monkeypatch.setattr(train_vae, "VAE", small)
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    assert train_vae.train(tmp_path / "whole", 6, batch=4)
    broken = train_vae.Training(tmp_path / "broken", "cpu", 4, 1e-3)
    for _ in range(3):
        broken.advance(6)
    broken.save()
    broken.advance(6)  # lost
    assert train_vae.train(tmp_path / "broken", 6, batch=4)
    whole, again = (torch.load(tmp_path / n / train_vae.FILE) for n in ("whole", "broken"))
    assert all(again["weights"][name].equal(x) for name, x in whole["weights"].items())
    with pytest.raises(SystemExit, match="was written with rate"):
        train_vae.train(tmp_path / "whole", 6, batch=4, rate=0.1)

    config = json.loads((tmp_path / "whole/vae/config.json").read_text())
    ours = Autoencoder(AutoencoderConfig.from_dict(config))
    found = {key: entry.shape for key, entry in read_folder(tmp_path / "whole/vae").items()}
    assert found == official_shapes(ours)

    # Its scaling and shift bring the latents to mean 0 and deviation 1.
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(tmp_path / "whole/vae")
    pictures = next(train_vae.pictures(32, seed=5))
    with torch.no_grad():
        latents = vae.encode(pictures).latent_dist.mode().numpy()
    scaled = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    assert abs(scaled.mean()) < 0.2
    assert abs(scaled.std() - 1) < 0.2
    assert mx.isfinite(mx.array(np.asarray(scaled))).all().item()
