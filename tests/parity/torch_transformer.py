"""The transformer written anew in torch, in float64, for what the published class cannot do.

It takes one picture at a time: NAG as Wan2GP computes it, and TwinFlow's second time as its
authors do. Without either it must equal the published class, which a test holds.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn import functional as F


@dataclass(frozen=True)
class TorchNag:
    negative: torch.Tensor  # (length, width), as the text encoder made it
    scale: float
    tau: float
    alpha: float


class TorchTransformer:
    def __init__(self, folder: Path):
        self.config = json.loads((folder / "transformer/config.json").read_text())
        self.w = {
            key: tensor.double()
            for file in sorted((folder / "transformer").glob("*.safetensors"))
            for key, tensor in load_file(file).items()
        }

    def time(self, t: float) -> torch.Tensor:
        """Return the embedding of a time from 0 to 1."""
        return self._embedded("t_embedder", t)

    def twinflow_time(self, t: float, target: float) -> torch.Tensor:
        away = abs(t - target)
        return self._embedded("t_embedder", abs(t)) + away * self._embedded(
            "t_embedder_2", target - t
        )

    def __call__(
        self,
        latents: torch.Tensor,  # (C, H, W)
        caption: torch.Tensor,  # (length, width)
        time: torch.Tensor,
        nag: TorchNag | None = None,
    ) -> torch.Tensor:
        channels, height, width = latents.shape
        rows, columns = height // 2, width // 2
        patches = latents.double().reshape(channels, rows, 2, columns, 2)
        x = self._linear(
            "all_x_embedder.2-1", patches.permute(1, 3, 2, 4, 0).reshape(-1, 4 * channels)
        )
        count = len(x)
        x = self._padded(x, "x_pad_token")
        text = self._caption(caption, caption)
        grid = [(len(text) + 1, r, c) for r in range(rows) for c in range(columns)]
        image_rope = self._rope(grid + [(0, 0, 0)] * (len(x) - count))
        text_rope = self._rope([(i + 1, 0, 0) for i in range(len(text))])
        for n in range(self.config["n_refiner_layers"]):
            x = self._block(f"noise_refiner.{n}", x, image_rope, time)
        pieces, ropes = [x, text], [image_rope, text_rope]
        if nag is not None:
            short = nag.negative[: len(caption)]
            last = nag.negative[-1:].expand(len(caption) - len(short), -1)
            pieces.append(self._caption(torch.cat([short, last]), caption))
            ropes.append(text_rope)
        x, rope = torch.cat(pieces), torch.cat(ropes)
        for n in range(self.config["n_layers"]):
            x = self._block(f"layers.{n}", x, rope, time, nag, len(text))
        scale = 1 + self._linear("all_final_layer.2-1.adaLN_modulation.1", F.silu(time))
        x = F.layer_norm(x[:count], x.shape[1:], eps=1e-6) * scale
        out = self._linear("all_final_layer.2-1.linear", x).reshape(rows, columns, 2, 2, channels)
        return out.permute(4, 0, 2, 1, 3).reshape(channels, height, width)

    def _embedded(self, name: str, t: float) -> torch.Tensor:
        frequencies = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float32) / 128)
        angles = torch.tensor(t * self.config["t_scale"], dtype=torch.float32) * frequencies
        x = torch.cat([angles.cos(), angles.sin()]).double()
        return self._linear(f"{name}.mlp.2", F.silu(self._linear(f"{name}.mlp.0", x)))

    def _caption(self, caption: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
        assert len(caption) == len(positive)
        x = self._linear("cap_embedder.1", self._norm("cap_embedder.0", caption.double()))
        x = self._padded(x, "cap_pad_token")
        rope = self._rope([(i + 1, 0, 0) for i in range(len(x))])
        for n in range(self.config["n_refiner_layers"]):
            x = self._block(f"context_refiner.{n}", x, rope, None)
        return x

    def _block(
        self,
        name: str,
        x: torch.Tensor,
        rope: torch.Tensor,
        time: torch.Tensor | None,
        nag: TorchNag | None = None,
        text: int = 0,
    ) -> torch.Tensor:
        one = torch.ones(1, dtype=torch.float64)
        scales = [one] * 4
        if time is not None:
            a, b, c, d = self._linear(f"{name}.adaLN_modulation.0", time).chunk(4)
            scales = [1 + a, b.tanh(), 1 + c, d.tanh()]
        inner = self._norm(f"{name}.attention_norm1", x) * scales[0]
        out = self._attention(f"{name}.attention", inner, rope, nag, text)
        x = x + scales[1] * self._norm(f"{name}.attention_norm2", out)
        inner = self._norm(f"{name}.ffn_norm1", x) * scales[2]
        first, second, third = (f"{name}.feed_forward.w{i}" for i in (1, 2, 3))
        out = self._linear(second, F.silu(self._linear(first, inner)) * self._linear(third, inner))
        return x + scales[3] * self._norm(f"{name}.ffn_norm2", out)

    def _attention(
        self, name: str, x: torch.Tensor, rope: torch.Tensor, nag: TorchNag | None, text: int
    ) -> torch.Tensor:
        heads = self.config["n_heads"]
        q, k, v = (
            self._linear(f"{name}.to_{which}", x).reshape(len(x), heads, -1) for which in "qkv"
        )
        if self.config["qk_norm"]:
            q, k = self._norm(f"{name}.norm_q", q, 1e-5), self._norm(f"{name}.norm_k", k, 1e-5)
        q, k = _rotated(q, rope), _rotated(k, rope)
        if nag is None:
            return self._linear(f"{name}.to_out.0", _attend(q, k, v))
        end = len(x) - text  # of the image and the positive caption
        plain = _attend(q[:end], k[:end], v[:end])
        swapped = [a[:end].clone() for a in (q, k, v)]
        for copy, source in zip(swapped, (q, k, v), strict=True):
            copy[end - text :] = source[end:]
        negative = _attend(*swapped)
        guided = plain * nag.scale - negative * (nag.scale - 1)
        before = plain.norm(p=1, dim=-1, keepdim=True)
        after = guided.norm(p=1, dim=-1, keepdim=True)
        ratio = torch.nan_to_num(after / before, nan=10.0)
        limited = guided * before * nag.tau / (after + 1e-7)
        guided = torch.where(ratio > nag.tau, limited, guided)
        out = guided * nag.alpha + plain * (1 - nag.alpha)
        return self._linear(f"{name}.to_out.0", torch.cat([out, negative[end - text :]]))

    def _linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"))

    def _norm(self, name: str, x: torch.Tensor, eps: float | None = None) -> torch.Tensor:
        return F.rms_norm(x, x.shape[-1:], self.w[f"{name}.weight"], eps or self.config["norm_eps"])

    def _padded(self, x: torch.Tensor, token: str) -> torch.Tensor:
        return torch.cat([x, self.w[token].expand(-len(x) % 32, -1)])

    def _rope(self, positions: list[tuple[int, int, int]]) -> torch.Tensor:
        """Return complex rotations (L, 1, D / 2); angles cut to float32, as published."""
        place = torch.tensor(positions, dtype=torch.float64)
        angles = []
        for axis, size in enumerate(self.config["axes_dims"]):
            exponents = torch.arange(0, size, 2, dtype=torch.float64) / size
            frequencies = 1 / self.config["rope_theta"] ** exponents
            angles.append((place[:, axis, None] * frequencies).float().double())
        table = torch.cat(angles, dim=1)
        return torch.polar(torch.ones_like(table), table)[:, None]


def _rotated(x: torch.Tensor, rope: torch.Tensor) -> torch.Tensor:
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2).contiguous())
    return torch.view_as_real(pairs * rope).flatten(-2)


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).flatten(1)
