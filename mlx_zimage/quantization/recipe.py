"""Which layers are quantized, and how.

The recipe: every matrix of the transformer's blocks and of the text encoder is; what is small and
sensitive stays at 16 bit (embedders, timestep MLP, modulation, final layer, norms, pad tokens), and
so does the VAE.

At 3 to 6 bits the scale and the bias of each group are searched for; at 8 they are MLX's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn

from ..errors import RequestError
from ..weights.tensor import GROUP_SIZES, Packing, Part, Tensor
from .affine import search

KEPT = {
    "transformer": (
        "all_x_embedder",
        "cap_embedder",
        "t_embedder",
        "adaLN_modulation",
        "all_final_layer",
    ),
    "text_encoder": (),
}
"""By part: what stays at 16 bit. Of the other parts, all does."""
WIDTH_MULTIPLE = 64  # MLX's kernels want no less, whatever the group
MODES = {"mxfp4": 4, "mxfp8": 8, "nvfp4": 4}
BITS = (3, 4, 5, 6, 8)
CHOICES: tuple[int | str, ...] = (*BITS, *MODES)

Packings = Mapping[str, Packing]
"""The layers of a part that are quantized, by their path."""


@dataclass(frozen=True)
class Quantization:
    """What a user asks for: one packing for every layer that the recipe lets have it."""

    packing: Packing

    @classmethod
    def parse(cls, value: int | str, group_size: int | None = None) -> "Quantization":
        if value in BITS and not isinstance(value, bool):
            mode, bits = "affine", int(value)
        elif isinstance(value, str) and value in MODES:
            mode, bits = value, MODES[value]
        else:
            known = ", ".join(map(str, CHOICES))
            raise RequestError(f"quantize must be one of {known}, not {value!r}")
        sizes = GROUP_SIZES[mode, bits]
        if group_size is not None and group_size not in sizes:
            known = ", ".join(map(str, sorted(sizes)))
            raise RequestError(f"the group size of {value} must be {known}, not {group_size}")
        return cls(Packing(mode, bits, group_size or sizes[0]))

    def choose(self, part: Part, tensors: Mapping[str, Tensor]) -> Packings:
        """The recipe, for one part."""
        chosen = {}
        for key, tensor in tensors.items():
            path, _, name = key.rpartition(".")
            if part not in KEPT or name != "weight" or len(tensor.shape) != 2:
                continue
            if not {*path.split(".")} & {*KEPT[part]}:
                self._check_width(path, tensor.shape[1])
                chosen[path] = self.packing
        return chosen

    def _check_width(self, path: str, width: int) -> None:
        multiple = max(WIDTH_MULTIPLE, self.packing.group_size)
        if width % multiple:
            raise RequestError(
                f"quantizing needs layers whose width is a multiple of {multiple}, and '{path}' "
                f"is {width} wide; load this checkpoint unquantized"
            )


def stored(tensors: Mapping[str, Tensor]) -> Packings:
    """As a checkpoint has them."""
    return {
        key.removesuffix(".weight"): tensor.packing
        for key, tensor in tensors.items()
        if tensor.packing is not None
    }


def prepare(model: nn.Module, packings: Packings) -> None:
    """Swap these layers for quantized ones; their weights are still to come."""

    def chosen(path: str, _: nn.Module) -> bool | dict[str, Any]:
        return vars(packings[path]) if path in packings else False

    if packings:
        nn.quantize(model, class_predicate=chosen)


def pack(
    tensor: Tensor, packing: Packing, dtype: mx.Dtype, start: int, stop: int
) -> list[mx.array]:
    """Some rows, quantized, with scales of `dtype`; or as they are stored, where they are so."""
    if tensor.packing == packing and tensor.packed_rows is not None:
        return tensor.packed_rows(start, stop)
    array = tensor.rows(start, stop).astype(dtype)
    if packing.mode == "affine" and packing.bits <= 6:
        return search(array, packing)
    return list(mx.quantize(array, packing.group_size, packing.bits, mode=packing.mode))
