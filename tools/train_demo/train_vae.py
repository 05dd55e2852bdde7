"""Train the demo's autoencoder with the reference class.

    python -m tools.train_demo.train_vae OUT [--minutes 60] [--device cuda]

Most of the time goes to windows of 64 pixels around the things, where the edges are: a background
teaches little. The rest goes to whole pictures, whose statistics the normalization meets in use.

Resumable: run it again with the same OUT and it goes on, with a fresh optimizer. It ends with the
round trip's PSNR on pictures of held-out scenes, and with latents of mean 0 and deviation 1 under
its scaling and shift.
"""

import argparse
import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional

from .architecture import VAE
from .scenes import Scene, paint, random_scene

SIZES = ((128, 128), (128, 128), (96, 128), (128, 96), (160, 112))
WINDOW, GRID = 64, 8  # pixels; windows begin where a latent does
WINDOWS = 0.7  # share of the time
KL = 1e-6  # just enough to keep the latents near each other
EDGES = 0.5  # weight of the differences between neighbours: sharp edges are what one looks at
CHECKPOINT_SECONDS = 180


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=32, help="windows, or half as many pictures")
    parser.add_argument("--rate", type=float, default=1e-3)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    train(options.out, options.minutes * 60, options.device, options.batch, options.rate)


def train(out: Path, seconds: float, device: str, batch: int, rate: float) -> AutoencoderKL:
    """The rate falls over the whole of `seconds`, those of earlier runs counted in."""
    vae = AutoencoderKL.from_config(VAE).to(device)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=rate, weight_decay=0.0, betas=(0.9, 0.99))
    spent, step = _resume(out, vae)
    close, whole = windows(batch, seed=step), pictures(batch // 2, seed=step)
    begun, saved = time.monotonic() - spent, time.monotonic()
    while (spent := time.monotonic() - begun) < seconds:
        done = spent / seconds
        for group in optimizer.param_groups:
            group["lr"] = rate * min(step / 100, 1.0) * max(1 - done, 0.02)
        with torch.autocast(device, torch.bfloat16):
            loss = _loss(vae, next(close if done < WINDOWS else whole).to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        step += 1
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            saved = time.monotonic()
            _save(out, vae, spent, step)
            print(f"{spent / 60:.1f} min, step {step}: {psnr(vae, device):.2f} dB", flush=True)
    _finish(out, vae, device, spent, step)
    return vae


def scenes(seed: int, *, held_out: bool = False) -> Iterator[Scene]:
    generator = random.Random(seed)
    while True:
        scene = random_scene(generator)
        if scene.held_out == held_out:
            yield scene


def pictures(size: int, seed: int, *, held_out: bool = False) -> Iterator[torch.Tensor]:
    """Whole pictures (B, 3, H, W) in -1..1, of scenes held out of training or of the others."""
    generator, source = random.Random(seed), scenes(seed, held_out=held_out)
    while True:
        width, height = generator.choice(SIZES)
        yield to_tensor([paint(next(source), width, height) for _ in range(size)])


def windows(size: int, seed: int) -> Iterator[torch.Tensor]:
    """Pieces (B, 3, 64, 64) of pictures to train on, each near the centre of a thing."""
    generator, source = random.Random(seed), scenes(seed)
    while True:
        cut = []
        for scene in islice(source, size):
            width, height = generator.choice(SIZES)
            x, y = generator.choice(scene.centres)
            left, top = (
                int(min(max(share * side - generator.uniform(0, 64), 0), side - WINDOW))
                // GRID
                * GRID
                for share, side in ((x, width), (y, height))
            )
            picture = paint(scene, width, height)
            cut.append(picture.crop((left, top, left + WINDOW, top + WINDOW)))
        yield to_tensor(cut)


def to_tensor(painted: list[Image.Image]) -> torch.Tensor:
    return torch.from_numpy(np.stack(painted)).permute(0, 3, 1, 2) / 127.5 - 1


@torch.no_grad()
def psnr(vae: AutoencoderKL, device: str, count: int = 4) -> float:
    """Of the round trip through the mean, on held-out scenes; of 8-bit levels cut to range."""
    errors = []
    held_out = pictures(16, seed=12345, held_out=True)
    for _ in range(count):
        x = next(held_out).to(device)
        again = vae.decode(vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
        errors += functional.mse_loss(again, x, reduction="none").mean(dim=(1, 2, 3)).tolist()
    return float(10 * np.log10(4 / np.mean(errors)))


def _loss(vae: AutoencoderKL, x: torch.Tensor) -> torch.Tensor:
    posterior = vae.encode(x).latent_dist
    again = vae.decode(posterior.sample()).sample.float()
    away = again - x
    edges = away.diff(dim=-1).abs().mean() + away.diff(dim=-2).abs().mean()
    return away.abs().mean() + 2 * away.square().mean() + EDGES * edges + KL * posterior.kl().mean()


def _finish(out: Path, vae: AutoencoderKL, device: str, spent: float, step: int) -> None:
    with torch.no_grad():
        latents = [
            vae.encode(next(pictures(32, seed=777 + i)).to(device)).latent_dist.mode().flatten()
            for i in range(4)
        ]
    every = torch.cat(latents)
    mean, deviation = every.mean().item(), every.std().item()
    vae.register_to_config(shift_factor=mean, scaling_factor=1 / deviation)
    _save(out, vae, spent, step)
    vae.save_pretrained(out / "vae")
    print(
        f"{step} steps in {spent / 60:.1f} min: {psnr(vae, device, 16):.2f} dB; "
        f"scaling {1 / deviation:.4f}, shift {mean:.4f}"
    )


def _resume(out: Path, vae: AutoencoderKL) -> tuple[float, int]:
    file = out / "vae-training.safetensors"
    if not file.is_file():
        return 0.0, 0
    state = load_file(file)
    spent, step = float(state.pop("seconds")), int(state.pop("step"))
    vae.load_state_dict(state)
    return spent, step


def _save(out: Path, vae: AutoencoderKL, spent: float, step: int) -> None:
    state = {key: value.contiguous() for key, value in vae.state_dict().items()}
    state |= {"seconds": torch.tensor(spent), "step": torch.tensor(step)}
    temporary = out / "vae-training.part"
    save_file(state, temporary)
    temporary.replace(out / "vae-training.safetensors")


if __name__ == "__main__":
    main()
