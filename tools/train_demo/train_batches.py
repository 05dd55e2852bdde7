"""What the transformer learns from: new pictures and new words for every batch.

A batch is a function of its number. Its pictures have one size, and its prompts as many blocks of
tokens each.
"""

import random
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from tokenizers import Tokenizer

from mlx_zimage.prompt.template import chat

from .captions import caption
from .scenes import Scene, paint, radius_of, random_scene
from .train_device import narrow
from .train_vae import to_tensor

MAIN = (128, 128)
SIDES = range(96, 193, 16)
OTHERS = tuple(size for size in product(SIDES, SIDES) if size != MAIN)
MAIN_SHARE = 0.15  # of the batches
SHAPES_KEPT = 0.5  # share of the scenes without a glyph: the glyphs are five times as many
CHINESE, DROPPED = 0.4, 0.07  # shares of the captions
LONG = 0.1  # share of the batches whose captions take two blocks of 32 tokens
BLOCK = 32
PIXELS = 8  # of a side for one of a latent's
FOCUS = 0.5  # share of the loss that lies on the things, however small they are
MARGIN = 6  # pixels around a thing that belong to it


@dataclass
class Batch:
    """Latents (B, 16, h, w), the weights of their places (B, 1, h, w), and tokens."""

    clean: torch.Tensor
    focus: torch.Tensor
    ids: list[list[int]]
    dropped: torch.Tensor  # (B,): without a caption, for guidance


class Batches:
    def __init__(self, out: Path, size: int, device: str):
        self._vae = AutoencoderKL.from_pretrained(out / "vae").to(device).eval()
        self._tokenizer = Tokenizer.from_file(str(out / "tokenizer/tokenizer.json"))
        self._size, self._device = size, device

    def __getitem__(self, number: int) -> Batch:
        generator = random.Random(f"batch {number}")
        size = MAIN if generator.random() < MAIN_SHARE else generator.choice(OTHERS)
        long = generator.random() < LONG
        scenes, ids, dropped = list[Scene](), list[list[int]](), list[bool]()
        while len(scenes) < self._size:
            scene = random_scene(generator)
            glyph = any(thing.is_glyph for thing in scene.things)
            if scene.held_out or (not glyph and generator.random() > SHAPES_KEPT):
                continue
            empty = generator.random() < DROPPED
            language = "zh" if generator.random() < CHINESE else "en"
            tokens = self.tokens("" if empty else caption(scene, generator, language))
            if (len(tokens) > BLOCK) == long and len(tokens) <= 2 * BLOCK:
                scenes.append(scene)
                ids.append(tokens)
                dropped.append(empty)
        weights = np.stack([focus(scene, *size) for scene in scenes])
        return Batch(
            self.latents(scenes, size),
            torch.from_numpy(weights)[:, None].to(self._device),
            ids,
            torch.tensor(dropped),
        )

    def tokens(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(chat(text), add_special_tokens=False).ids)

    @torch.no_grad()
    def latents(self, scenes: list[Scene], size: tuple[int, int]) -> torch.Tensor:
        pictures = to_tensor([paint(scene, *size) for scene in scenes]).to(self._device)
        with narrow(self._device):
            mean = self._vae.encode(pictures).latent_dist.mode().float()
        return (mean - self._vae.config.shift_factor) * self._vae.config.scaling_factor

    @torch.no_grad()
    def decoded(self, latents: torch.Tensor) -> np.ndarray:
        """Return pictures (B, H, W, 3) of bytes."""
        config = self._vae.config
        with narrow(self._device):
            again = self._vae.decode(latents / config.scaling_factor + config.shift_factor).sample
        levels = ((again.float() + 1) * 127.5).round().clamp(0, 255)
        return levels.permute(0, 2, 3, 1).byte().cpu().numpy()


def focus(scene: Scene, width: int, height: int) -> np.ndarray:
    """Return the weight of each place (h, w) in the loss; their mean is 1."""
    x = (np.arange(width // PIXELS) + 0.5) * PIXELS
    y = (np.arange(height // PIXELS) + 0.5)[:, None] * PIXELS
    inside = np.zeros((height // PIXELS, width // PIXELS), bool)
    for thing, (across, down) in zip(scene.things, scene.centres(width, height), strict=True):
        reach = radius_of(thing.size, width, height) + MARGIN
        inside |= (abs(x - across) < reach) & (abs(y - down) < reach)
    weights: np.ndarray = 1 - FOCUS + FOCUS * inside / inside.mean()
    return weights.astype(np.float32)
