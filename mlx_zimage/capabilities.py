"""The facts about a loaded model that a program shows or limits its controls by."""

from dataclasses import dataclass

from . import device
from .checkpoint.checkpoint import Checkpoint
from .generation.plan import Planner
from .memory.store import Store


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
    )
