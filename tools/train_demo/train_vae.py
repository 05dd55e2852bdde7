"""Train the demo's autoencoder with the reference class.

    python -m tools.train_demo.train_vae OUT [--steps 1600] [--device cuda]

Most of the steps go to windows of 64 pixels around the things, where the edges are: a background
teaches little. The rest goes to whole pictures, whose statistics the normalization meets in use.

Run again with the same OUT it goes on where it stopped. It ends with the round trip's PSNR on
pictures of held-out scenes, and with latents of mean 0 and deviation 1 under its scaling and shift.
"""

import argparse
import random
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch.nn import functional

from . import train_state
from .architecture import VAE
from .scenes import Scene, paint, random_scene
from .train_device import narrow

SIZES = ((128, 128), (128, 128), (96, 128), (128, 96), (160, 112))
WINDOW, GRID = 64, 8  # pixels; windows begin where a latent does
WINDOWS = 0.7  # share of the steps
KL = 1e-6  # just enough to keep the latents near each other
EDGES = 0.5  # weight of the differences between neighbours: sharp edges are what one looks at
FILE = "vae-training.pt"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=32, help="windows, or half as many pictures")
    parser.add_argument("--rate", type=float, default=1e-3)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if not train(options.out, options.steps, options.device, options.batch, options.rate):
        sys.exit(train_state.STOPPED)


def train(out: Path, steps: int, device: str = "cpu", batch: int = 32, rate: float = 1e-3) -> bool:
    """Train as `train_state.run` does; at the end, measure the latents and write vae/."""
    training = Training(out, device, batch, rate)
    if not train_state.run(training, steps, out):
        return False
    _finish(out, training.vae, device)
    return True


class Training:
    """The autoencoder and its optimizer. The rate falls over all steps."""

    def __init__(self, out: Path, device: str, batch: int, rate: float):
        self._file, self._device, self._batch, self._rate = out / FILE, device, batch, rate
        torch.manual_seed(0)
        self.vae = AutoencoderKL.from_config(VAE).to(device)
        self._optimizer = torch.optim.AdamW(
            self.vae.parameters(), lr=rate, weight_decay=0.0, betas=(0.9, 0.99)
        )
        self.step, self.seconds = 0, 0.0
        state = train_state.load(self._file, self._configuration())
        if state is not None:
            self.step, self.seconds = state["step"], state["seconds"]
            self.vae.load_state_dict(state["weights"])
            self._optimizer.load_state_dict(state["optimizer"])

    def advance(self, steps: int) -> float:
        done, seed = self.step / steps, self.step
        torch.manual_seed(seed)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * min(self.step / 100, 1.0) * max(1 - done, 0.02)
        close = done < WINDOWS
        x = next(windows(self._batch, seed) if close else pictures(self._batch // 2, seed))
        with narrow(self._device):
            loss = _loss(self.vae, x.to(self._device))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.vae.parameters(), 1.0)
        self._optimizer.step()
        self.step += 1
        return loss.item()

    def save(self) -> None:
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "weights": self.vae.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        train_state.save(self._file, state, self._configuration())

    def look(self) -> str:
        return f"{psnr(self.vae, self._device):.2f} dB"

    def _configuration(self) -> dict[str, Any]:
        names = ("SIZES", "WINDOW", "GRID", "WINDOWS", "KL", "EDGES")
        ours = {name: globals()[name] for name in names}
        return {**ours, "vae": VAE, "batch": self._batch, "rate": self._rate}


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
            x, y = generator.choice(scene.centres(width, height))
            left, top = (
                int(min(max(middle - generator.uniform(0, 64), 0), side - WINDOW)) // GRID * GRID
                for middle, side in ((x, width), (y, height))
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


def _finish(out: Path, vae: AutoencoderKL, device: str) -> None:
    with torch.no_grad():
        latents = [
            vae.encode(next(pictures(32, seed=777 + i)).to(device)).latent_dist.mode().flatten()
            for i in range(4)
        ]
    every = torch.cat(latents)
    mean, deviation = every.mean().item(), every.std().item()
    vae.register_to_config(shift_factor=mean, scaling_factor=1 / deviation)
    vae.save_pretrained(out / "vae")
    print(f"{psnr(vae, device, 16):.2f} dB; scaling {1 / deviation:.4f}, shift {mean:.4f}")


if __name__ == "__main__":
    main()
