"""The facts about a loaded model that a program shows or limits its controls by."""

from dataclasses import dataclass
from typing import Any

from . import device
from .checkpoint.checkpoint import Checkpoint
from .generation.plan import Planner
from .memory.store import Store
from .version import __version__


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
