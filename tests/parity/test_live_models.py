"""Each of the three models beside its reference class, in one process."""

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage.checkpoint.checkpoint import Checkpoint
from tests.measures import relative_error

from . import limits

pytestmark = pytest.mark.parity
Measure = Callable[[str, float, float], None]
CAPTIONS = (1, 31, 32, 33, 512)


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def _transformers(folder: Path) -> tuple[object, object]:
    import torch
    from diffusers import ZImageTransformer2DModel

    theirs, loading = ZImageTransformer2DModel.from_pretrained(
        folder / "transformer", dtype=torch.float32, output_loading_info=True
    )
    assert not any(loading.values()), loading
    return Checkpoint.open(folder)["transformer"].load(mx.float32, None), theirs.eval()


def forward_error(ours, theirs, captions: list[int], height: int, width: int, t: float) -> float:
    import torch

    config = ours.config
    feats = [_normal(n, config.cap_feat_dim, seed=n) for n in captions]
    latents = _normal(len(captions), config.in_channels, height, width)
    conditioning = ours.prepare([mx.array(f) for f in feats], height, width)
    mine = ours(mx.array(latents), ours.modulate([t])[0], conditioning)
    with torch.no_grad():
        out = theirs(
            list(torch.from_numpy(latents).unsqueeze(2).unbind(0)),
            torch.full((len(captions),), t, dtype=torch.float32),
            [torch.from_numpy(f) for f in feats],
            return_dict=False,
        )[0]
    return relative_error(mine, torch.stack(out).squeeze(2).numpy())


@pytest.mark.parametrize("kind", ["small", "diffusers", "wide"])
def test_transformer(kind: str, checkpoint: Callable[[str], Path], measure: Measure) -> None:
    ours, theirs = _transformers(checkpoint(kind))
    name = f"transformer, one forward, {kind}"
    for length in CAPTIONS:
        for size in ((2, 2), (8, 12), (6, 2)):
            measure(name, forward_error(ours, theirs, [length], *size, 0.3), limits.TRANSFORMER)
    for t in (0.0, 0.0454545, 0.5, 0.97):
        measure(name, forward_error(ours, theirs, [7], 8, 8, t), limits.TRANSFORMER)
    measure(name, forward_error(ours, theirs, [20], 64, 64, 0.5), limits.TRANSFORMER)


@pytest.mark.parametrize("kind", ["small", "diffusers", "wide"])
@pytest.mark.parametrize("captions", [[5, 6], [1, 40], [33, 64, 31]])
def test_transformer_batch(
    kind: str, captions: list[int], checkpoint: Callable[[str], Path], measure: Measure
) -> None:
    ours, theirs = _transformers(checkpoint(kind))
    error = forward_error(ours, theirs, captions, 6, 10, 0.6)
    measure(f"transformer, unequal captions, {kind}", error, limits.TRANSFORMER)


@pytest.mark.large
def test_transformer_full_width(full_width: Path, measure: Measure) -> None:
    ours, theirs = _transformers(full_width)
    for captions, height, width in (
        *(([n], 8, 12) for n in CAPTIONS),
        ([33, 20], 4, 4),
        ([60], 64, 64),  # 512 x 512 pixels
    ):
        error = forward_error(ours, theirs, captions, height, width, 0.4)
        measure("transformer, one forward, full-width", error, limits.TRANSFORMER)


def _check_text_encoder(folder: Path, name: str, measure: Measure) -> None:
    import torch
    from transformers import AutoModel

    checkpoint = Checkpoint.open(folder)
    ours = checkpoint["text_encoder"].load(mx.float32, None)
    theirs = AutoModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()
    for length in CAPTIONS:
        ids = np.random.RandomState(length).randint(0, 300, (1, length))
        with torch.no_grad():
            states = theirs(torch.from_numpy(ids), output_hidden_states=True).hidden_states
        assert len(states) == checkpoint.text_encoder.num_hidden_layers + 1
        error = relative_error(ours(mx.array(ids)), states[-2].numpy())
        measure(f"text encoder hidden state, {name}", error, limits.TEXT_ENCODER)


@pytest.mark.parametrize("kind", ["small", "diffusers", "wide"])
def test_text_encoder(kind: str, checkpoint: Callable[[str], Path], measure: Measure) -> None:
    _check_text_encoder(checkpoint(kind), kind, measure)


@pytest.mark.large
def test_text_encoder_full_width(full_width: Path, measure: Measure) -> None:
    _check_text_encoder(full_width, "full-width", measure)


@pytest.mark.parametrize("kind", ["small", "wide"])
def test_whole_language_model(
    kind: str, checkpoint: Callable[[str], Path], measure: Measure
) -> None:
    """All layers, the norm and the head, tied and not: what will serve to write prompts."""
    import torch
    from transformers import AutoModelForCausalLM

    from mlx_zimage.models.text_encoder import TextEncoder
    from mlx_zimage.weights.index import read_folder

    folder = checkpoint(kind)
    ours = TextEncoder(Checkpoint.open(folder).text_encoder, with_head=True)
    found = read_folder(folder / "text_encoder").items()
    arrays = [(key, entry.rows(0, entry.shape[0]).astype(mx.float32)) for key, entry in found]
    ours.load_weights(arrays, strict=True)
    theirs = AutoModelForCausalLM.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    ids = np.random.RandomState(1).randint(0, 300, (2, 40))
    with torch.no_grad():
        logits = theirs.eval()(torch.from_numpy(ids)).logits.numpy()
    error = relative_error(ours.logits(mx.array(ids)), logits)
    measure("language model, logits", error, limits.TEXT_ENCODER)


def _check_vae(folder: Path, name: str, sizes: list[tuple[int, int]], measure: Measure) -> None:
    import torch
    from diffusers import AutoencoderKL

    ours = Checkpoint.open(folder)["vae"].load(mx.float32)
    theirs = AutoencoderKL.from_pretrained(folder / "vae", dtype=torch.float32).eval()
    scale, shift = theirs.config.scaling_factor, theirs.config.shift_factor
    factor = ours.config.scale_factor
    for h, w in sizes:
        latents = _normal(1, 16, h, w)
        pixels = np.clip(_normal(1, 3, h * factor, w * factor, seed=1), -1, 1)
        noise = _normal(1, 16, h, w, seed=2)
        channels_last = mx.array(pixels.transpose(0, 2, 3, 1))
        with torch.no_grad():
            decoded = theirs.decode(torch.from_numpy(latents) / scale + shift).sample.numpy()
            posterior = theirs.encode(torch.from_numpy(pixels)).latent_dist
            mean = ((posterior.mean - shift) * scale).numpy()
            sample = posterior.mean + posterior.std * torch.from_numpy(noise)
            sample = ((sample - shift) * scale).numpy()
        made = {
            "decode": (ours.decode(mx.array(latents)).transpose(0, 3, 1, 2), decoded),
            "encode, mean": (ours.encode(channels_last), mean),
            "encode, sample": (ours.encode(channels_last, mx.array(noise)), sample),
        }
        for what, (mine, reference) in made.items():
            measure(f"VAE {what}, {name}", relative_error(mine, reference), limits.VAE)


@pytest.mark.parametrize("kind", ["small", "diffusers", "wide"])
def test_vae(kind: str, checkpoint: Callable[[str], Path], measure: Measure) -> None:
    _check_vae(checkpoint(kind), kind, [(2, 2), (8, 12), (10, 4), (64, 64)], measure)


@pytest.mark.large
def test_vae_full_width(full_width: Path, measure: Measure) -> None:
    _check_vae(full_width, "full-width", [(4, 4), (8, 12), (64, 64)], measure)
