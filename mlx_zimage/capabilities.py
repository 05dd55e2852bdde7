"""The facts about a loaded model that a program shows or limits its controls by."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import device
from .checkpoint.checkpoint import Checkpoint
from .errors import CheckpointError
from .files import read_json
from .generation.plan import Planner
from .generation.sampling import samplers_for
from .memory.store import Store
from .sampling.schedule import SCHEDULES
from .version import __version__

VOCABULARY = "vocabulary.json"
"""The file by which a small checkpoint says what it can draw; without one it draws anything."""


@dataclass(frozen=True)
class Vocabulary:
    """The things that a checkpoint can draw, and the words for them."""

    draws: str  # "shapes, letters and digits on a plain background"
    example: str  # a prompt
    words: tuple[str, ...]  # for the things; those for colours and places are not among them

    def knows(self, prompt: str) -> bool:
        """Return whether a prompt names one of the things, as a word or within Chinese text."""
        text = prompt.lower()
        english = set(re.findall("[a-z]+", text))
        return any(word in (english if word.isascii() else text) for word in self.words)

    @classmethod
    def read(cls, file: Path) -> "Vocabulary | None":
        """Return what the file holds; None where there is none."""
        if not file.exists():
            return None
        data = read_json(file)
        draws, example, words = (data.get(name) for name in ("draws", "example", "words"))
        texts = [draws, example, *words] if isinstance(words, list) else [None]
        if not all(isinstance(text, str) for text in texts):
            raise CheckpointError(
                f"{file} must hold texts as 'draws' and 'example', and a list of texts as 'words'"
            )
        return cls(str(draws), str(example), tuple(map(str, texts[2:])))


@dataclass(frozen=True)
class Capabilities:
    """The options and the defaults of a loaded model."""

    source: str
    model: str  # "turbo" or "base": the published model whose defaults it has
    width: int
    height: int
    steps: int
    guidance: float
    side_multiple: int
    max_prompt_tokens: int
    latent_channels: int
    pixels_per_latent: int
    dtype: str
    quantize: int | str | None
    memory: str
    device_memory: int  # bytes
    loras: tuple[str, ...] = ()  # those that act, as FILE:SCALE
    vocabulary: Vocabulary | None = None  # None: it draws anything
    samplers: tuple[str, ...] = ()  # that it can be drawn with, the default first
    schedules: tuple[str, ...] = ()  # by name, beside the checkpoint's own


def capabilities(
    checkpoint: Checkpoint, planner: Planner, store: Store, quantize: int | str | None
) -> Capabilities:
    family = planner.context.family
    return Capabilities(
        source=str(checkpoint.path),
        model=family.name,
        width=checkpoint.default_side,
        height=checkpoint.default_side,
        steps=family.steps,
        guidance=family.guidance,
        side_multiple=checkpoint.image_multiple,
        max_prompt_tokens=planner.max_tokens,
        latent_channels=checkpoint.transformer.in_channels,
        pixels_per_latent=checkpoint.vae.scale_factor,
        dtype=store.dtype,
        quantize=quantize,
        memory=store.memory,
        device_memory=device.memory(),
        loras=tuple(f"{lora.source}:{lora.scale:g}" for lora in store.loras.applied),
        vocabulary=Vocabulary.read(checkpoint.home / VOCABULARY),
        samplers=samplers_for(checkpoint),
        schedules=SCHEDULES,
    )


def describe(
    checkpoint: Checkpoint, store: Store, quantize: int | str | None, name: str
) -> dict[str, Any]:
    """Return what the metadata of a picture says about the model that made it."""
    from importlib.metadata import version  # slow to import

    about = {
        "model": name,
        "identity": checkpoint.identity,
        "dtype": store.dtype,
        "quantize": quantize,
        "mlx_zimage": __version__,
        "mlx": version("mlx"),
    }
    loras = [lora.to_dict() for lora in store.loras.applied]
    return {**about, "loras": loras} if loras else about
