"""The training forward: a batch of noisy latents to the velocity, as one differentiable graph.

Notable:
- everything that depends on lengths and sizes alone (positions, rotary tables, masks) and the
  sinusoid of the time are made on the host, and come in as arrays: the graph can be compiled once
  for each shape;
- captions come padded to a multiple of the sequence's, with a flag for each token that is one; as
  in a generation, the model's own padding token takes the place of the others;
- pictures of a batch may have different times, and captions of different lengths.
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn

from ..models.blocks import TIMESTEP_WIDTH, Block, Modulation
from ..models.layers.nag import Negative
from ..models.layers.positions import Rope, caption_positions, sinusoid
from ..models.transformer import Conditioning, ZImageTransformer, padding_mask
from ..models.transformer_config import SEQUENCE_MULTIPLE

Inputs = dict[str, mx.array]
"""The arrays of one pass, by name."""


def inputs(
    model: ZImageTransformer,
    latents: np.ndarray,
    noise: np.ndarray,
    sigmas: np.ndarray,
    captions: Sequence[mx.array],
) -> Inputs:
    """Return what a pass takes: clean latents and noise (B, C, h, w), and a level for each.

    A point on the way is `(1 - sigma) * clean + sigma * noise`; the model answers at the time
    `1 - sigma` with the way from noise to clean.
    """
    level = sigmas[:, None, None, None]
    clean = latents.astype(np.float32)
    times = (1 - sigmas).astype(np.float32) * np.float32(model.config.t_scale)
    arrays = {
        "latents": mx.array((1 - level) * clean + level * noise),
        "target": mx.array(clean - noise),
        "sinusoid": mx.array(sinusoid(times, TIMESTEP_WIDTH)).astype(model.dtype)[None],
    }
    return arrays | _conditions(model, latents.shape[2:], captions)


def _conditions(
    model: ZImageTransformer, size: tuple[int, ...], captions: Sequence[mx.array]
) -> Inputs:
    lengths = [-(-len(c) // SEQUENCE_MULTIPLE) * SEQUENCE_MULTIPLE for c in captions]
    longest = max(lengths)
    rows = [mx.pad(c, [(0, longest - len(c)), (0, 0)]) for c in captions]
    is_token = np.arange(longest) < np.array([len(c) for c in captions])[:, None]
    grid = (size[0] // model.config.patch_size, size[1] // model.config.patch_size)
    image = np.stack([model.image_positions(n, grid) for n in lengths])
    joint = np.stack(
        [
            np.concatenate([i, caption_positions(n), np.zeros((longest - n, 3), int)])
            for i, n in zip(image, lengths, strict=True)
        ]
    )
    arrays = {
        "captions": mx.stack(rows).astype(model.dtype),
        "is_token": mx.array(is_token)[..., None],
    }
    positions = {"caption": caption_positions(longest)[None], "image": image, "joint": joint}
    for name, values in positions.items():
        rope = model.rope(values)
        arrays |= {f"{name}_cos": rope.cos, f"{name}_sin": rope.sin}
    if len(set(lengths)) > 1:
        keys = image.shape[1]
        arrays["caption_mask"] = padding_mask(lengths, longest, model.dtype)
        arrays["joint_mask"] = padding_mask(
            [keys + n for n in lengths], keys + longest, model.dtype
        )
    return arrays


def velocity(model: ZImageTransformer, x: Inputs) -> mx.array:
    """Return what the model answers, (B, C, h, w) in float32."""
    norm, linear = model.cap_embedder
    captions = mx.where(x["is_token"], linear(norm(x["captions"])), model.cap_pad_token)
    rope = Rope(x["caption_cos"], x["caption_sin"])
    for block in model.context_refiner:
        captions = block(captions, rope, x.get("caption_mask"))
    size = model.config.patch_size
    conditioning = Conditioning(
        captions=captions,
        image_rope=Rope(x["image_cos"], x["image_sin"]),
        joint_rope=Rope(x["joint_cos"], x["joint_sin"]),
        mask=x.get("joint_mask"),
        grid=(x["latents"].shape[2] // size, x["latents"].shape[3] // size),
    )
    (modulation,) = model.modulations(model.t_embedder.embed(x["sinusoid"]))
    return model(x["latents"], modulation, conditioning).astype(mx.float32)


def loss(model: ZImageTransformer, x: Inputs) -> mx.array:
    """Return the mean squared error of the velocity."""
    return mx.square(velocity(model, x) - x["target"]).mean()


class RecomputedBlock(Block):
    """A block that keeps its input alone for the backward pass, and computes the rest again."""

    @classmethod
    def of(cls, block: Block) -> "RecomputedBlock":
        """Return one with the modules of a block."""
        recomputed = cls.__new__(cls)
        nn.Module.__init__(recomputed)
        dict.update(recomputed, block)
        return recomputed

    def __call__(
        self,
        x: mx.array,
        rope: Rope,
        mask: mx.array | None = None,
        modulation: Modulation | None = None,
        negative: Negative | None = None,
    ) -> mx.array:
        weights = [] if modulation is None else modulation.arrays

        def run(parameters: Any, x: mx.array, *arrays: mx.array) -> mx.array:
            self.update(parameters)
            modulation = Modulation(*arrays) if arrays else None
            return Block.__call__(self, x, rope, mask, modulation)

        checkpointed: Any = mx.checkpoint(run)  # of its arguments, all get gradients
        result: mx.array = checkpointed(self.trainable_parameters(), x, *weights)
        return result
