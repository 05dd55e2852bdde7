"""Teach the demo's text encoder to read, before it learns along with the transformer.

    python -m tools.train_demo.train_reader OUT [--steps 2000] [--device cuda]

From its last token it must tell what the caption says: the background, where, which things, their
colours and sizes. Learnt from pictures alone this takes hours; a transformer that finds it all said
in one place has only to draw it. OUT holds tokenizer/, and gets reader.safetensors. Run again, it
is left as it is.
"""

import argparse
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional
from transformers import Qwen3Config, Qwen3Model

from mlx_zimage.prompt.template import chat

from .architecture import TEXT_ENCODER
from .captions import caption
from .scenes import COLOURS, GLYPHS, PLACES, RADII, RELATIONS, SHAPES, Scene, Thing
from .train_device import narrow
from .train_muon import Muon
from .train_vae import scenes

CHINESE = 0.4  # share of the captions
RATE, MUON = 2e-3, 0.01
FILE = "reader.safetensors"
NAMES = (*SHAPES, *GLYPHS)
WHERE = (*PLACES, *RELATIONS)
THING = (len(NAMES), len(COLOURS), len(RADII))
QUESTIONS = (len(COLOURS), len(WHERE), *THING, *THING)
"""How many answers each question has."""
NONE = -100  # no second thing: not asked


def new_encoder() -> Qwen3Model:
    """Without the last layer, and nothing after the one before: what the transformer is given."""
    layers = TEXT_ENCODER["num_hidden_layers"] - 1
    encoder = Qwen3Model(Qwen3Config(**{**TEXT_ENCODER, "num_hidden_layers": layers}))
    encoder.norm = nn.Identity()
    return encoder


def encode(encoder: Qwen3Model, ids: list[list[int]], device: str) -> torch.Tensor:
    """(B, length, width). Causal: what is padded on the right changes nothing before it."""
    padded = nn.utils.rnn.pad_sequence([torch.tensor(i) for i in ids], batch_first=True)
    return encoder(padded.to(device)).last_hidden_state


def answers(scene: Scene) -> list[int]:
    def about(thing: Thing) -> list[int]:
        return [
            NAMES.index(thing.name),
            list(COLOURS).index(thing.colour),
            list(RADII).index(thing.size),
        ]

    where = WHERE.index(scene.relation or scene.place)
    things = [number for thing in scene.things for number in about(thing)]
    missing = [NONE] * (2 * len(THING) - len(things))
    return [list(COLOURS).index(scene.background), where, *things, *missing]


def muon_and_adam(
    named: Iterator[tuple[str, nn.Parameter]], muon: float, adam: float
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for what is not one: embeddings, norms, ends."""
    matrices, others = [], []
    for name, parameter in named:
        inner = any(part in name for part in ("layers.", "refiner."))
        (matrices if inner and parameter.ndim == 2 else others).append(parameter)
    return [
        Muon([{"params": matrices, "peak": muon}], lr=muon),
        torch.optim.AdamW(
            [{"params": others, "peak": adam}], lr=adam, weight_decay=0.0, betas=(0.9, 0.98)
        ),
    ]


def train(out: Path, steps: int, device: str, batch: int) -> float:
    """Return its share of right answers at the end."""
    torch.manual_seed(0)
    encoder, head = new_encoder().to(device), nn.Linear(TEXT_ENCODER["hidden_size"], sum(QUESTIONS))
    head.to(device)
    named = [*encoder.named_parameters(), *head.named_parameters()]
    optimizers = muon_and_adam(iter(named), MUON, RATE)
    source = _batches(out, batch)
    begun, right = time.monotonic(), 0.0
    for step in range(steps):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * min((step + 1) / 100, 1 - step / steps)
        ids, said = next(source)
        with narrow(device):
            hidden = encode(encoder, ids, device)
            last = hidden[torch.arange(len(ids)), [len(i) - 1 for i in ids]].float()
            told = head(functional.rms_norm(last, last.shape[-1:])).float().split(QUESTIONS, -1)
        said = said.to(device)
        loss = torch.stack([_loss(t, s) for t, s in zip(told, said.T, strict=True)]).mean()
        loss.backward()
        nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        found = torch.stack([t.argmax(-1) for t in told], -1)
        now = ((found == said) | (said == NONE)).all(-1).float().mean().item()
        right = 0.95 * right + 0.05 * now
        if step % 500 == 499:
            print(f"step {step + 1}: {right:.1%} read right", flush=True)
    minutes = (time.monotonic() - begun) / 60
    print(f"{steps} steps in {minutes:.1f} min: {right:.1%} of the captions read right")
    temporary = out / f"{FILE}.part"  # what has the name is complete
    save_file({key: value.contiguous() for key, value in encoder.state_dict().items()}, temporary)
    temporary.replace(out / FILE)
    return right


def _loss(told: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
    asked = (said != NONE).sum().clamp(min=1)  # a small batch may lack a second thing
    return functional.cross_entropy(told, said, ignore_index=NONE, reduction="sum") / asked


def _batches(out: Path, size: int) -> Iterator[tuple[list[list[int]], torch.Tensor]]:
    tokenizer = Tokenizer.from_file(str(out / "tokenizer/tokenizer.json"))
    generator, source = random.Random(0), scenes(seed=1000)
    while True:
        drawn = [next(source) for _ in range(size)]
        words = [
            caption(s, generator, "zh" if generator.random() < CHINESE else "en") for s in drawn
        ]
        encoded = tokenizer.encode_batch([chat(w) for w in words], add_special_tokens=False)
        yield [list(e.ids) for e in encoded], torch.tensor([answers(s) for s in drawn])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=128)
    options = parser.parse_args()
    if not (options.out / FILE).is_file():
        train(options.out, options.steps, options.device, options.batch)


if __name__ == "__main__":
    main()
