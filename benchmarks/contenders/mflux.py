"""mflux's own classes with random weights. See serving.py."""

import sys
from importlib.metadata import version
from typing import Any

from serving import case, serve

asked: dict[str, Any] = case()
sys.path.pop(0)  # this folder, where `mflux` is this file

if not isinstance(asked["quantize"], int | None):
    raise SystemExit("mflux is measured in bits alone")

import mlx.core as mx
from mflux.models.common.config import ModelConfig
from mlx import nn
from mlx.utils import tree_map

dtype = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}[asked["dtype"]]
ModelConfig.precision = dtype
side, batch = asked["side"], asked["batch"]
latents = mx.random.normal((16, 1, side // 8, side // 8)).astype(dtype)


def filled(model: nn.Module) -> nn.Module:
    def cast(a: mx.array) -> mx.array:
        return (a * 0.02 if a.ndim > 1 else a).astype(dtype)

    model.update(tree_map(cast, model.parameters()))
    if asked["quantize"] is not None:
        nn.quantize(model, bits=asked["quantize"], class_predicate=quantized)
    mx.eval(model.parameters())
    return model


def quantized(_: str, module: nn.Module) -> bool:
    """As mflux's z-image has it: each layer whose width allows it."""
    return hasattr(module, "to_quantized") and module.weight.shape[-1] % 64 == 0


def step() -> Any:
    from mflux.models.z_image.model.z_image_transformer.transformer import ZImageTransformer

    transformer = filled(ZImageTransformer(n_layers=asked["layers"] or 30))
    caption = mx.random.normal((asked["tokens"], 2560)).astype(dtype)
    sigmas = mx.array([0.5, 0.0])
    predict = mx.compile(  # as mflux does, but on an M1 or M2
        lambda x: transformer(x=x, timestep=0, sigmas=sigmas, cap_feats=caption)
    )
    return lambda: [predict(latents) for _ in range(batch)]


def text() -> Any:
    from mflux.models.z_image.model.z_image_text_encoder.text_encoder import TextEncoder

    encoder = filled(TextEncoder(num_hidden_layers=(asked["layers"] or 35) + 1))
    ids = mx.arange(asked["tokens"])[None]
    return lambda: encoder(ids, mx.ones_like(ids))


def vae() -> Any:
    from mflux.models.z_image.model.z_image_vae.vae import VAE

    model = VAE()
    model.update(tree_map(lambda a: a.astype(dtype), model.parameters()))
    mx.eval(model.parameters())
    return model


def decode() -> Any:
    model, some = vae(), mx.stack([latents[:, 0]] * batch)
    return lambda: model.decode(some)


def encode() -> Any:
    model, pixels = vae(), mx.random.uniform(-1, 1, (batch, 3, side, side)).astype(dtype)
    return lambda: model.encode(pixels)


made = {"step": step, "text": text, "decode": decode, "encode": encode}[asked["stage"]]()
mx.reset_peak_memory()
found = {"mlx": version("mlx"), "mflux": version("mflux")}
serve(lambda: mx.eval(made()), mx.get_peak_memory, found)
