"""mflux's side: draw with folders that lie here, and save folders of its own.

    python mflux_side.py ASKED.json

It runs in an environment that holds mflux and not this project. mflux builds the real model's sizes
and no others, so that the modules are built here in the demo's; its loader, its layers and its
saver are its own. The loader takes what it gets and says nothing of missing keys: they are compared
here with those of the modules.
"""

import json
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mflux.models.common.config.model_config import ModelConfig

ModelConfig.precision = mx.float32  # before the definitions are imported that copy it

from mflux.models.z_image.model.z_image_text_encoder.prompt_encoder import PromptEncoder
from mflux.models.z_image.model.z_image_text_encoder.text_encoder import TextEncoder
from mflux.models.z_image.model.z_image_transformer.transformer import ZImageTransformer
from mflux.models.z_image.model.z_image_vae.common.unet_mid_block import UNetMidBlock
from mflux.models.z_image.model.z_image_vae.decoder.conv_in import ConvIn
from mflux.models.z_image.model.z_image_vae.decoder.conv_norm_out import ConvNormOut
from mflux.models.z_image.model.z_image_vae.decoder.conv_out import ConvOut
from mflux.models.z_image.model.z_image_vae.decoder.up_decoder_block import UpDecoderBlock
from mflux.models.z_image.model.z_image_vae.encoder.conv_in import ConvIn as EncoderConvIn
from mflux.models.z_image.model.z_image_vae.encoder.conv_norm_out import ConvNormOut as EncoderNorm
from mflux.models.z_image.model.z_image_vae.encoder.conv_out import ConvOut as EncoderConvOut
from mflux.models.z_image.model.z_image_vae.encoder.down_encoder_block import DownEncoderBlock
from mflux.models.z_image.model.z_image_vae.vae import VAE
from mflux.models.z_image.variants.z_image import ZImage
from mflux.models.z_image.weights.z_image_weight_definition import ZImageWeightDefinition
from mflux.models.z_image.z_image_initializer import ZImageInitializer
from mlx import nn
from mlx.utils import tree_flatten

COMPUTED = {"rotary_emb.inv_freq"}  # parameters that are no weights
asked: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
configs = {
    name: json.loads((Path(asked["source"]) / name / "config.json").read_text("utf-8"))
    for name in ("transformer", "text_encoder", "vae")
}


def transformer() -> ZImageTransformer:
    names = ("dim", "n_layers", "n_refiner_layers", "n_heads", "cap_feat_dim", "axes_dims")
    return ZImageTransformer(**{name: configs["transformer"][name] for name in names})


def text_encoder() -> TextEncoder:
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    names += ("num_key_value_heads", "intermediate_size", "head_dim")
    return TextEncoder(**{name: configs["text_encoder"][name] for name in names})


def vae() -> VAE:
    model, config = VAE(), configs["vae"]
    widths, layers = config["block_out_channels"], config["layers_per_block"]
    last, pairs = len(widths) - 1, list(zip([widths[0], *widths], widths, strict=False))
    model.encoder.conv_in = EncoderConvIn(out_channels=widths[0])
    model.encoder.down_blocks = [
        DownEncoderBlock(a, b, layers, add_downsample=i < last) for i, (a, b) in enumerate(pairs)
    ]
    model.encoder.mid_block = UNetMidBlock(widths[-1])
    model.encoder.conv_norm_out = EncoderNorm(widths[-1])
    model.encoder.conv_out = EncoderConvOut(in_channels=widths[-1])
    turned = widths[::-1]
    model.decoder.conv_in = ConvIn(out_channels=turned[0])
    model.decoder.mid_block = UNetMidBlock(turned[0])
    model.decoder.up_blocks = [
        UpDecoderBlock(a, b, layers + 1, add_upsample=i < last)
        for i, (a, b) in enumerate(zip([turned[0], *turned], turned, strict=False))
    ]
    model.decoder.conv_norm_out = ConvNormOut(channels=turned[-1])
    model.decoder.conv_out = ConvOut(in_channels=turned[-1])
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = config["norm_num_groups"]
    model.scaling_factor, model.shift_factor = config["scaling_factor"], config["shift_factor"]
    return model


def build(model: Any) -> None:
    model.vae, model.transformer, model.text_encoder = vae(), transformer(), text_encoder()


def check(model: ZImage, folder: Path) -> None:
    """Refuse a folder whose keys and shapes are not those of mflux's modules."""
    for component in ZImageWeightDefinition.get_components():
        module = getattr(model, component.name)
        parameters = {k: v.shape for k, v in tree_flatten(module.parameters())}
        stored: dict[str, Any] = {}
        for file in sorted((folder / component.hf_subdir).glob("*.safetensors")):
            stored |= {key: value.shape for key, value in mx.load(str(file)).items()}
        wanted = {k: v for k, v in parameters.items() if k not in COMPUTED}
        stored = {k: v for k, v in stored.items() if k not in COMPUTED}
        if stored != wanted:
            wrong = [k for k in {*stored, *wanted} if stored.get(k) != wanted.get(k)]
            raise SystemExit(f"{folder}: {component.name}: {sorted(wrong)[:9]}")


def load(folder: str, quantize: int | None = None) -> ZImage:
    return ZImage(model_path=folder, quantize=quantize, float32=True)


def draw(model: ZImage, noise: mx.array) -> tuple[np.ndarray, np.ndarray]:
    """The last latents (1, 16, h, w) and the picture (h, w, 3) in 0 to 255, from this noise."""
    tokenizer = model.tokenizers["z_image"]
    caption = PromptEncoder.encode_prompt(asked["prompt"], tokenizer, model.text_encoder)
    levels = mx.array(asked["levels"])
    latents = noise[0][:, None]  # (16, 1, h, w)
    for i in range(len(asked["levels"]) - 1):
        sigma = levels[i].reshape(1)
        velocity = model.transformer(
            timestep=1 - sigma, x=latents, cap_feats=caption, sigmas=levels
        )
        latents = latents + (levels[i + 1] - levels[i]) * velocity
        mx.eval(latents)
    last = latents[:, 0][None]
    pixels = model.vae.decode(last)[0, :, 0].transpose(1, 2, 0)
    picture = mx.clip(pixels / 2 + 0.5, 0, 1) * 255
    return np.array(last), np.array(picture)


def quantized(_: str, module: nn.Module) -> bool:
    """mflux's choice; the demo's VAE has matrices 96 wide, the real one none that do not fit."""
    return hasattr(module, "to_quantized") and module.weight.shape[-1] % 64 == 0


def main() -> None:
    ZImageWeightDefinition.quantization_predicate = staticmethod(quantized)
    ZImageInitializer._init_models = staticmethod(build)
    noise = mx.array(np.load(asked["noise"]))
    for out, bits in asked["save"].items():
        load(asked["source"], bits).save_model(out)
    for folder, out in asked["draw"].items():
        model = load(folder)
        check(model, Path(folder))
        latents, picture = draw(model, noise)
        np.savez(out, latents=latents, picture=picture)


main()
