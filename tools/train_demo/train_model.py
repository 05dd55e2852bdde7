"""The demo's transformer and text encoder as the reference classes, to be trained together."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import ZImageTransformer2DModel
from safetensors.torch import load_file
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

from .architecture import SCHEDULER, TEXT_ENCODER, TRANSFORMER
from .train_device import narrow
from .train_reader import encode, new_encoder

STEPS = 8


def shifted(u: torch.Tensor) -> torch.Tensor:
    """Return noise levels for even ones."""
    shift = SCHEDULER["shift"]
    return shift * u / (1 + (shift - 1) * u)


def levels() -> torch.Tensor:
    """Return the noise levels of the eight steps, falling, and 0."""
    return shifted(1 - torch.arange(STEPS + 1) / STEPS)


class Attention:
    """The published processor's attention for whole batches, in operations that compile well."""

    _attention_backend = None
    _parallel_config = None

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: torch.Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        freqs_cis: torch.Tensor | None = None,
    ) -> torch.Tensor:
        q, k, v = (
            project(hidden_states).unflatten(-1, (attn.heads, -1))
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        cos, sin = freqs_cis.real[:, :, None], freqs_cis.imag[:, :, None]  # (B, L, 1, pairs)

        def turned(x: torch.Tensor) -> torch.Tensor:
            a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
            pairs = torch.stack([a * cos - b * sin, a * sin + b * cos], -1)
            return pairs.flatten(-2).to(v.dtype)

        q, k = turned(attn.norm_q(q)), turned(attn.norm_k(k))
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, L, D)
        weights = ((q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5).softmax(-1)
        return attn.to_out[0]((weights.to(v.dtype) @ v).transpose(1, 2).flatten(2))


@dataclass
class Demo:
    transformer: ZImageTransformer2DModel
    text_encoder: Qwen3Model  # without the last layer, and nothing after the one before
    device: str

    @classmethod
    def new(cls, device: str, reader: Path | None = None) -> "Demo":
        """`reader`: what the text encoder has learned already."""
        torch.manual_seed(0)
        transformer = ZImageTransformer2DModel.from_config(TRANSFORMER)
        for block in [*transformer.layers, *transformer.noise_refiner]:
            # Gates open a little: closed ones let nothing through, and learn late.
            bias = block.adaLN_modulation[0].bias.data.view(4, -1)
            bias.zero_()
            bias[1::2] = 0.3
        nn.init.zeros_(transformer.all_final_layer["2-1"].linear.weight)
        nn.init.normal_(transformer.x_pad_token, std=0.02)
        nn.init.normal_(transformer.cap_pad_token, std=0.02)
        encoder = new_encoder()
        if reader is not None:
            encoder.load_state_dict(load_file(reader))
        return cls(transformer.to(device), encoder.to(device), device)

    @classmethod
    def read(cls, folder: Path, device: str) -> "Demo":
        """Return what a checkpoint in the official layout holds, in float32."""
        demo = cls.new(device)
        transformer = load_file(folder / "transformer/diffusion_pytorch_model.safetensors")
        demo.transformer.load_state_dict(transformer)
        words = load_file(folder / "text_encoder/model.safetensors")
        ours = demo.text_encoder.state_dict()
        demo.text_encoder.load_state_dict({key: words[f"model.{key}"] for key in ours})
        return demo

    def compile(self) -> None:
        """Twice as fast on a CPU, after a minute."""
        parts = self.transformer
        for block in [*parts.layers, *parts.noise_refiner, *parts.context_refiner]:
            block.attention.set_processor(Attention())
            block.compile(dynamic=True)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for part in ("transformer", "text_encoder"):
            for name, parameter in getattr(self, part).named_parameters():
                yield f"{part}.{name}", parameter

    def answer(self, x: torch.Tensor, sigma: torch.Tensor, ids: list[list[int]]) -> torch.Tensor:
        """Return clean - noise at points (B, 16, H, W), each with its noise level and prompt.

        All prompts take as many blocks of tokens: attention does not look at masks.
        """
        with narrow(self.device):
            hidden = encode(self.text_encoder, ids, self.device)
            words = [row[: len(i)] for row, i in zip(hidden, ids, strict=True)]
            out = self.transformer(list(x.unsqueeze(2)), 1 - sigma, words, return_dict=False)[0]
        return torch.stack(list(out)).squeeze(2).float()

    def write(self, out: Path, values: dict[str, torch.Tensor]) -> None:
        """Write transformer/ and text_encoder/ in the official layout, with these parameters."""
        for name, parameter in self.named_parameters():
            parameter.data.copy_(values[name])
        self.transformer.save_pretrained(out / "transformer")
        whole = Qwen3ForCausalLM(Qwen3Config(**TEXT_ENCODER))
        last = whole.model.layers[-1]
        for parameter in (last.self_attn.o_proj.weight, last.mlp.down_proj.weight):
            nn.init.zeros_(parameter)  # it is not used, and lets through what comes
        ours = self.text_encoder.state_dict()
        missing, unexpected = whole.model.load_state_dict(ours, strict=False)
        unused = f"layers.{len(whole.model.layers) - 1}."
        if unexpected or any(not key.startswith((unused, "norm.")) for key in missing):
            raise RuntimeError(f"the text encoder's keys do not fit: {missing}, {unexpected}")
        whole.save_pretrained(out / "text_encoder")
