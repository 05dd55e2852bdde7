"""Train the demo's transformer and text encoder together, with the reference classes.

    python -m tools.train_demo.train_transformer OUT [--minutes 90] [--device cuda]

OUT holds the trained vae/, tokenizer/ and reader.safetensors. First the latents of a pool of
pictures are written there, once. Then the transformer learns to turn noise into them: at a point
x = sigma * noise + (1 - sigma) * clean it answers clean - noise. Most of the points lie where
Turbo's eight steps are, the others anywhere under the same shift. Each picture gets new words
whenever it comes up.

Resumable: run it again with the same OUT and it goes on, with a fresh optimizer. It ends with
transformer/ and text_encoder/ in the official layout, in float32.
"""

import argparse
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, ZImageTransformer2DModel
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

from mlx_zimage.prompt.template import chat

from .architecture import SCHEDULER, TEXT_ENCODER, TRANSFORMER
from .captions import caption
from .scenes import Scene, paint
from .train_reader import FILE as READER
from .train_reader import encode, muon_and_adam, new_encoder
from .train_vae import scenes, to_tensor

MAIN = (128, 128)
SIDES = range(96, 193, 16)
OTHERS = tuple(size for size in product(SIDES, SIDES) if size != MAIN)
POOL, POOL_OTHER = 48000, 1408  # pictures of the main size, and of each other one
MAIN_SHARE = 0.35  # of the batches
SHAPES_KEPT = 0.5  # share of the scenes without a glyph: the glyphs are five times as many
CHINESE, DROPPED = 0.4, 0.1  # shares of the captions
LONG = 0.08  # share of the batches whose captions take two blocks of 32 tokens
BLOCK = 32
STEPS = 8
AT_STEPS = 0.7  # share of the samples at the noise levels of the eight steps
MUON, ADAM = 0.008, 1.5e-3  # learning rates: of the blocks' matrices, of all else
DECAY = 0.8  # share of the time over which the rates fall to zero, at the end
CHECKPOINT_SECONDS = 120


class Attention:
    """The published processor's attention for whole batches, in operations that compile well."""

    _attention_backend = None
    _parallel_config = None

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: torch.Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        freqs_cis: torch.Tensor | None = None,
    ) -> torch.Tensor:
        q, k, v = (
            project(hidden_states).unflatten(-1, (attn.heads, -1))
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        cos, sin = freqs_cis.real[:, :, None], freqs_cis.imag[:, :, None]  # (B, L, 1, pairs)

        def turned(x: torch.Tensor) -> torch.Tensor:
            a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
            pairs = torch.stack([a * cos - b * sin, a * sin + b * cos], -1)
            return pairs.flatten(-2).to(v.dtype)

        q, k = turned(attn.norm_q(q)), turned(attn.norm_k(k))
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, L, D)
        weights = ((q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5).softmax(-1)
        return attn.to_out[0]((weights.to(v.dtype) @ v).transpose(1, 2).flatten(2))


@dataclass
class Demo:
    transformer: ZImageTransformer2DModel
    text_encoder: Qwen3Model  # without the last layer, and nothing after the one before
    device: str

    @classmethod
    def new(cls, device: str, reader: Path | None = None) -> "Demo":
        """`reader`: what the text encoder has learned already."""
        torch.manual_seed(0)
        transformer = ZImageTransformer2DModel.from_config(TRANSFORMER)
        for block in [*transformer.layers, *transformer.noise_refiner]:
            # Gates open a little: closed ones let nothing through, and learn late.
            bias = block.adaLN_modulation[0].bias.data.view(4, -1)
            bias.zero_()
            bias[1::2] = 0.3
        nn.init.zeros_(transformer.all_final_layer["2-1"].linear.weight)
        nn.init.normal_(transformer.x_pad_token, std=0.02)
        nn.init.normal_(transformer.cap_pad_token, std=0.02)
        encoder = new_encoder()
        if reader is not None:
            encoder.load_state_dict(load_file(reader))
        return cls(transformer.to(device), encoder.to(device), device)

    def compile(self) -> None:
        """Twice as fast on a CPU, after a minute."""
        parts = self.transformer
        for block in [*parts.layers, *parts.noise_refiner, *parts.context_refiner]:
            block.attention.set_processor(Attention())
            block.compile(dynamic=True)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for part in ("transformer", "text_encoder"):
            for name, parameter in getattr(self, part).named_parameters():
                yield f"{part}.{name}", parameter

    def loss(self, clean: torch.Tensor, sigma: torch.Tensor, ids: list[list[int]]) -> torch.Tensor:
        """Of latents (B, 16, H, W), with one prompt each."""
        noise = torch.randn_like(clean)
        level = sigma[:, None, None, None]
        x = level * noise + (1 - level) * clean
        with torch.autocast(self.device, torch.bfloat16):
            hidden = encode(self.text_encoder, ids, self.device)
            words = [row[: len(i)] for row, i in zip(hidden, ids, strict=True)]
            out = self.transformer(list(x.unsqueeze(2)), 1 - sigma, words, return_dict=False)[0]
        answer = torch.stack(list(out)).squeeze(2).float()
        return (answer - (clean - noise)).square().mean()


class Pool:
    """Scenes to train on and their latents, by size of picture."""

    def __init__(self, out: Path):
        self._out = out
        self._sizes = (MAIN, *OTHERS)
        self._latents = [self._load(size) for size in self._sizes]
        self._scenes = [
            list(islice(scenes(seed=i), len(latents))) for i, latents in enumerate(self._latents)
        ]
        self._tokenizer = Tokenizer.from_file(str(out / "tokenizer/tokenizer.json"))

    def batches(self, size: int, seed: int) -> Iterator[tuple[torch.Tensor, list[list[int]]]]:
        """Latents (B, 16, h, w) of one size, and prompts of as many blocks of tokens each."""
        generator = random.Random(seed)
        while True:
            main = generator.random() < MAIN_SHARE
            which = 0 if main else generator.randrange(1, len(self._sizes))
            long = generator.random() < LONG
            rows: list[int] = []
            prompts: list[list[int]] = []
            while len(rows) < size:
                row = generator.randrange(len(self._scenes[which]))
                scene = self._scenes[which][row]
                if not any(t.is_glyph for t in scene.things) and generator.random() > SHAPES_KEPT:
                    continue
                ids = self._prompt(scene, generator)
                if (len(ids) > BLOCK) == long and len(ids) <= 2 * BLOCK:
                    rows.append(row)
                    prompts.append(ids)
            yield self._latents[which][rows].float(), prompts

    def _prompt(self, scene: Scene, generator: random.Random) -> list[int]:
        language = "zh" if generator.random() < CHINESE else "en"
        text = "" if generator.random() < DROPPED else caption(scene, generator, language)
        return list(self._tokenizer.encode(chat(text), add_special_tokens=False).ids)

    def _load(self, size: tuple[int, int]) -> torch.Tensor:
        file = self._out / "pool" / f"{size[0]}x{size[1]}.safetensors"
        if not file.is_file():
            self._write(file, size)
        return load_file(file)["latents"]

    @torch.no_grad()
    def _write(self, file: Path, size: tuple[int, int]) -> None:
        vae = AutoencoderKL.from_pretrained(self._out / "vae")
        count = POOL if size == MAIN else POOL_OTHER
        source = scenes(seed=self._sizes.index(size))
        latents = []
        for _ in range(0, count, 32):
            pictures = to_tensor([paint(scene, *size) for scene in islice(source, 32)])
            with torch.autocast("cpu", torch.bfloat16):
                mean = vae.encode(pictures).latent_dist.mode().float()
            scaled = (mean - vae.config.shift_factor) * vae.config.scaling_factor
            latents.append(scaled.half())
        file.parent.mkdir(exist_ok=True)
        save_file({"latents": torch.cat(latents)[:count].contiguous()}, file)
        print(f"pool: {count} pictures of {size[0]}x{size[1]}", flush=True)


def sigmas(count: int, generator: torch.Generator) -> torch.Tensor:
    """Most of them those of the eight steps, the others spread under the same shift."""
    shift = SCHEDULER["shift"]
    even = torch.rand(count, generator=generator)
    steps = 1 - torch.randint(STEPS, (count,), generator=generator) / STEPS
    u = torch.where(torch.arange(count) < AT_STEPS * count, steps, even)
    return shift * u / (1 + (shift - 1) * u)


def train(out: Path, seconds: float, device: str, batch: int, compiled: bool) -> None:
    """The rates fall over the last part of `seconds`, those of earlier runs counted in."""
    demo, pool = Demo.new(device, out / READER), Pool(out)
    if compiled:
        demo.compile()
    optimizers = muon_and_adam(demo.named_parameters(), MUON, ADAM)
    spent, step = _resume(out, demo)
    source, generator = pool.batches(batch, seed=step), torch.Generator().manual_seed(step)
    torch.manual_seed(step)
    begun, saved, recent = time.monotonic() - spent, time.monotonic(), []
    while (spent := time.monotonic() - begun) < seconds:
        left = max(1 - spent / seconds, 0.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * min((step + 1) / 100, left / DECAY, 1.0)
        clean, ids = next(source)
        loss = demo.loss(clean.to(device), sigmas(batch, generator).to(device), ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in demo.named_parameters()], 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        recent.append(loss.item())
        step += 1
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            saved = time.monotonic()
            _save(out, demo, spent, step)
            print(f"{spent / 60:.1f} min, step {step}: loss {np.mean(recent):.4f}", flush=True)
            recent.clear()
    _save(out, demo, spent, step)
    _finish(out, demo)
    print(f"{step} steps in {spent / 60:.1f} min")


def _finish(out: Path, demo: Demo) -> None:
    demo.transformer.save_pretrained(out / "transformer")
    whole = Qwen3ForCausalLM(Qwen3Config(**TEXT_ENCODER))
    last = whole.model.layers[-1]
    for parameter in (last.self_attn.o_proj.weight, last.mlp.down_proj.weight):
        nn.init.zeros_(parameter)  # it is not used, and lets through what comes
    missing, unexpected = whole.model.load_state_dict(demo.text_encoder.state_dict(), strict=False)
    unused = f"layers.{len(whole.model.layers) - 1}."
    if unexpected or any(not key.startswith((unused, "norm.")) for key in missing):
        raise RuntimeError(f"the text encoder's keys do not fit: {missing}, {unexpected}")
    whole.save_pretrained(out / "text_encoder")


def _resume(out: Path, demo: Demo) -> tuple[float, int]:
    file = out / "transformer-training.safetensors"
    if not file.is_file():
        return 0.0, 0
    state = load_file(file)
    for name, parameter in demo.named_parameters():
        parameter.data.copy_(state[name])
    return float(state["seconds"]), int(state["step"])


def _save(out: Path, demo: Demo, spent: float, step: int) -> None:
    state = {name: parameter.detach().contiguous() for name, parameter in demo.named_parameters()}
    state |= {"seconds": torch.tensor(spent), "step": torch.tensor(step)}
    temporary = out / "transformer-training.part"
    save_file(state, temporary)
    temporary.replace(out / "transformer-training.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--eager", action="store_true", help="do not compile")
    options = parser.parse_args()
    seconds, compiled = options.minutes * 60, not options.eager
    train(options.out, seconds, options.device, options.batch, compiled)


if __name__ == "__main__":
    main()
