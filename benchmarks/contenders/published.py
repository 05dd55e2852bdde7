"""diffusers and transformers with random weights, on a CUDA card where there is one.

See serving.py."""

from importlib.metadata import version
from typing import Any

from serving import case, serve

asked: dict[str, Any] = case()

import torch

torch.set_grad_enabled(False)
if asked["quantize"] is not None:
    raise SystemExit("the published pipeline is measured unquantized")
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.backends.cuda.matmul.allow_tf32 = False
dtype = getattr(torch, asked["dtype"])
torch.set_default_dtype(dtype)
torch.set_default_device(device)
side, batch, tokens = asked["side"], asked["batch"], asked["tokens"]
latents = torch.randn(batch, 16, side // 8, side // 8)


def step() -> Any:
    from diffusers import ZImageTransformer2DModel

    model = ZImageTransformer2DModel(n_layers=asked["layers"] or 30).eval()
    for parameter in model.parameters():  # some are left as they were in memory
        parameter.fill_(1.0) if parameter.ndim == 1 else parameter.normal_(std=0.02)
    if asked["compile"]:
        model.compile()
    noisy, caption = list(latents.unsqueeze(2)), [torch.randn(tokens, 2560)] * batch
    return lambda: model(noisy, torch.full((batch,), 0.5), caption, return_dict=False)


def text() -> Any:
    from transformers import Qwen3Config, Qwen3Model

    config = Qwen3Config(
        hidden_size=2560,
        num_hidden_layers=(asked["layers"] or 35) + 1,
        intermediate_size=9728,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151936,
        rope_theta=1000000.0,
    )
    model, ids = Qwen3Model(config).eval(), torch.arange(tokens)[None]
    return lambda: model(ids, output_hidden_states=True).hidden_states[-2]


def vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def decode() -> Any:
    model = vae()
    return lambda: model.decode(latents)


def encode() -> Any:
    model, pixels = vae(), torch.rand(batch, 3, side, side) * 2 - 1
    return lambda: model.encode(pixels)


made = {"step": step, "text": text, "decode": decode, "encode": encode}[asked["stage"]]()
if device == "cuda":
    torch.cuda.reset_peak_memory_stats()


def run() -> None:
    made()
    if device == "cuda":
        torch.cuda.synchronize()


def peak() -> int | None:
    return int(torch.cuda.max_memory_allocated()) if device == "cuda" else None


found = {name: version(name) for name in ("torch", "diffusers", "transformers")}
serve(run, peak, found)
