"""mlx_zimage. See serving.py."""

from importlib.metadata import version
from typing import Any

from serving import case, serve

asked: dict[str, Any] = case()

import mlx.core as mx

from mlx_zimage.bench.synthetic import synthetic
from mlx_zimage.dtypes import DTYPES

dtype = DTYPES[asked["dtype"]]
checkpoint = synthetic(asked["quantize"], asked["layers"])
side, batch = asked["side"], asked["batch"]
latents = mx.random.normal((batch, 16, side // 8, side // 8), key=mx.random.key(0))


def step() -> Any:
    transformer = checkpoint["transformer"].load(dtype, None)
    width = checkpoint.transformer.cap_feat_dim
    caption = mx.random.normal((asked["tokens"], width), key=mx.random.key(1)).astype(dtype)
    conditioning = transformer.prepare([caption] * batch, side // 8, side // 8)
    (modulation,) = transformer.modulate([0.5])
    mx.eval(conditioning.arrays, modulation.arrays)
    return lambda: transformer(latents, modulation, conditioning)


def text() -> Any:
    encoder = checkpoint["text_encoder"].load(dtype, None)
    ids = mx.arange(asked["tokens"])[None]
    return lambda: encoder(ids)


def decode() -> Any:
    vae = checkpoint["vae"].load(dtype)
    return lambda: vae.decode(latents)


def encode() -> Any:
    vae = checkpoint["vae"].load(dtype)
    pixels = mx.random.uniform(-1, 1, (batch, side, side, 3), key=mx.random.key(2))
    return lambda: vae.encode(pixels)


made = {"step": step, "text": text, "decode": decode, "encode": encode}[asked["stage"]]()
mx.reset_peak_memory()
serve(lambda: mx.eval(made()), mx.get_peak_memory, {"mlx": version("mlx")})
