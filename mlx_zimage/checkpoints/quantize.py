"""Which layers are quantized, and how.

The recipe: every matrix of the blocks and the text encoder is; what is small and sensitive stays at
16 bit (embedders, timestep MLP, modulation, final layer, norms, pad tokens), and so does the VAE.
"""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn

from ..errors import RequestError

KEPT = ("all_x_embedder", "cap_embedder", "t_embedder", "adaLN_modulation", "all_final_layer")
GROUPS = {"affine": 64, "mxfp4": 32, "mxfp8": 32, "nvfp4": 16}
WIDTH_MULTIPLE = 64  # of the largest group; MLX's kernels want no less of the smaller ones
BITS = {"mxfp4": 4, "mxfp8": 8, "nvfp4": 4}
AFFINE_BITS = (3, 4, 5, 6, 8)
CHOICES = (*AFFINE_BITS, *BITS)


@dataclass(frozen=True)
class Quantization:
    mode: str
    bits: int

    @classmethod
    def parse(cls, value: int | str) -> "Quantization":
        if value in AFFINE_BITS and not isinstance(value, bool):
            return cls("affine", int(value))
        if isinstance(value, str) and value in BITS:
            return cls(value, BITS[value])
        raise RequestError(f"quantize must be one of {', '.join(map(str, CHOICES))}, not {value!r}")

    @property
    def group_size(self) -> int:
        return GROUPS[self.mode]

    @property
    def bits_per_weight(self) -> float:
        """With the scales: 16 bits of scale and of bias a group, or 8 of scale alone."""
        return self.bits + (32 if self.mode == "affine" else 8) / self.group_size

    def prepare(self, model: nn.Module) -> None:
        """Swap the chosen layers for quantized ones; their weights are still to come."""
        nn.quantize(
            model,
            group_size=self.group_size,
            bits=self.bits,
            mode=self.mode,
            class_predicate=self._chosen,
        )

    def pack(self, model: nn.Module, key: str, array: mx.array) -> list[tuple[str, mx.array]]:
        """One tensor of the checkpoint to those of the prepared model."""
        path, _, name = key.rpartition(".")
        if name != "weight" or not isinstance(
            _child(model, path), nn.QuantizedLinear | nn.QuantizedEmbedding
        ):
            return [(key, array)]
        packed = mx.quantize(array, self.group_size, self.bits, mode=self.mode)
        names = ("weight", "scales", "biases")[: len(packed)]
        return [(f"{path}.{name}", value) for name, value in zip(names, packed, strict=True)]

    def _chosen(self, path: str, module: nn.Module) -> bool:
        if not hasattr(module, "to_quantized") or any(name in path.split(".") for name in KEPT):
            return False
        width = module.weight.shape[-1]
        if width % WIDTH_MULTIPLE:
            raise RequestError(
                f"quantizing needs layers whose width is a multiple of {WIDTH_MULTIPLE}, and "
                f"'{path}' is {width} wide; load this checkpoint unquantized"
            )
        return True


def _child(model: nn.Module, path: str) -> Any:
    found: Any = model
    for name in path.split("."):
        found = found[int(name)] if isinstance(found, list) else found.get(name)
        if found is None:
            break
    return found
