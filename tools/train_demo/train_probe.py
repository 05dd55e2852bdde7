"""A look at what the transformer draws, while it trains.

The prompts are held out of training, and are not those of `evaluate`.
"""

import random
from collections import defaultdict
from itertools import pairwise

import torch
from PIL import Image

from .captions import caption
from .reading import Score, read, score
from .scenes import Scene, random_scene
from .train_batches import BLOCK, Batches
from .train_model import Demo, levels

SEED = 99
SIZES = (((128, 128), 96), ((96, 96), 32), ((160, 112), 32), ((192, 192), 32))


@torch.no_grad()
def probe(demo: Demo, weights: dict[str, torch.Tensor], batches: Batches) -> str:
    """Return one line: the shares of pictures and of glyphs that are right, by size."""
    live = {name: parameter.detach().clone() for name, parameter in demo.named_parameters()}
    _put(demo, weights)
    try:
        with torch.compiler.set_stance("force_eager"):
            parts = [_of_size(demo, batches, size, count) for size, count in SIZES]
    finally:
        _put(demo, live)
    return "; ".join(parts)


def _put(demo: Demo, values: dict[str, torch.Tensor]) -> None:
    for name, parameter in demo.named_parameters():
        parameter.data.copy_(values[name])


def _of_size(demo: Demo, batches: Batches, size: tuple[int, int], count: int) -> str:
    generator = random.Random(SEED)
    groups: dict[int, list[tuple[Scene, list[int]]]] = defaultdict(list)
    for scene in _held_out(count, generator):
        language = "zh" if generator.random() < 0.5 else "en"
        tokens = batches.tokens(caption(scene, generator, language))
        groups[-(-len(tokens) // BLOCK)].append((scene, tokens))
    scores: list[tuple[Scene, Score]] = []
    for group in groups.values():
        shape = (len(group), 16, size[1] // 8, size[0] // 8)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(SEED))
        latents = _drawn(demo, noise.to(demo.device), [tokens for _, tokens in group])
        pictures = map(Image.fromarray, batches.decoded(latents))
        scores += [(s, score(s, read(p))) for (s, _), p in zip(group, pictures, strict=True)]
    right = sum(found.everything for _, found in scores) / len(scores)
    glyphs = [
        match.name
        for scene, found in scores
        for thing, match in zip(scene.things, found.things, strict=True)
        if thing.is_glyph
    ]
    return f"{size[0]}x{size[1]} {right:.0%}, glyphs {sum(glyphs) / max(len(glyphs), 1):.0%}"


def _held_out(count: int, generator: random.Random) -> list[Scene]:
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = random_scene(generator)
        if scene.held_out:
            scenes.append(scene)
    return scenes


def _drawn(demo: Demo, x: torch.Tensor, ids: list[list[int]]) -> torch.Tensor:
    steps = levels().tolist()
    for now, following in pairwise(steps):
        sigma = torch.full((len(x),), now, device=x.device)
        x = x + (now - following) * demo.answer(x, sigma, ids)
    return x
