"""The table of components: one row for each model that a checkpoint may hold.

Whoever opens, loads, streams, quantizes, estimates or converts a checkpoint iterates over this
table. A new model is one more row here and one module that it names.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn

from ..events import Phase
from ..models import activations
from ..models.activations import Workload
from ..models.autoencoder import Autoencoder, AutoencoderConfig
from ..models.text_encoder import TextEncoder, TextEncoderConfig, needed_for_encoding
from ..models.transformer import ZImageTransformer
from ..models.transformer_config import TransformerConfig
from ..weights.formats import names
from ..weights.formats.names import Names
from ..weights.tensor import Tensors

Config = Any
"""The frozen dataclass that a component's config.json is read into."""
Activations = Callable[[Config, Workload, mx.Dtype, bool], int]


@dataclass(frozen=True)
class Component:
    """One model that a checkpoint may hold, and all that the house must know about it."""

    name: str  # also its folder in the official layout
    phase: Phase  # of a generation, in which it runs
    read_config: Callable[[Mapping[str, Any], str], Config]
    build: Callable[[Config], nn.Module]
    activations: Activations  # bytes, at work
    image_activations: Activations | None = None  # where it encodes pictures before the first step
    names: Names | None = None  # in other programs' files
    stem: str = "diffusion_pytorch_model"  # of its weight files
    required: bool = True
    unquantized: tuple[str, ...] | None = None  # layers that stay at 16 bit; None: all of them
    blocks: tuple[str, ...] = ()  # lists of blocks that memory="low" reads one at a time
    embedding: str | None = None  # a table of which memory="low" reads the needed rows alone
    modulation: str | None = None  # in the keys of a block's weights that `modulate` alone needs
    computes_in_float16: bool = False  # else it takes bfloat16 where float16 is asked for
    needs: Callable[[str, Config], bool] = lambda key, config: True  # whether a key is used
    complete: Callable[[Config, Tensors], Config] = lambda config, tensors: config  # by its keys
    official: Callable[[Tensors], Tensors] = lambda tensors: tensors  # keys of older files

    def dtype(self, dtype: mx.Dtype) -> mx.Dtype:
        """Return the type it computes in when the model is asked for `dtype`."""
        return mx.bfloat16 if dtype == mx.float16 and not self.computes_in_float16 else dtype


def _with_prefix(tensors: Tensors) -> Tensors:
    """Add the prefix that text encoders lack when saved without their language-model shell."""
    if any(key.startswith("model.") for key in tensors):
        return tensors
    return {f"model.{key}": tensor for key, tensor in tensors.items()}


COMPONENTS: dict[str, Component] = {
    row.name: row
    for row in (
        Component(
            name="text_encoder",
            phase="encode",
            read_config=TextEncoderConfig.from_dict,
            build=TextEncoder,
            activations=activations.text_encoder,
            names=names.TEXT_ENCODER,
            stem="model",
            unquantized=(),
            blocks=("model.layers",),
            embedding="model.embed_tokens.weight",
            needs=needed_for_encoding,
            official=_with_prefix,
        ),
        Component(
            name="transformer",
            phase="denoise",
            read_config=TransformerConfig.from_dict,
            build=ZImageTransformer,
            activations=activations.transformer,
            names=names.TRANSFORMER,
            unquantized=(
                "all_x_embedder",
                "cap_embedder",
                "t_embedder",
                "t_embedder_2",
                "adaLN_modulation",
                "all_final_layer",
            ),
            blocks=("noise_refiner", "context_refiner", "layers"),
            modulation="adaLN_modulation",
            complete=lambda config, tensors: config.with_keys(tensors),
            computes_in_float16=True,
        ),
        Component(
            name="vae",
            phase="decode",
            read_config=AutoencoderConfig.from_dict,
            build=Autoencoder,
            activations=activations.decoder,
            image_activations=activations.encoder,
            names=names.VAE,
        ),
    )
}
