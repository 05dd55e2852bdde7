"""Tensors as a checkpoint stores or loads them: alone, or packed in several arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import mlx.core as mx

from .packing import Packing
from .safetensors import SIZES
from .tensor import Packings, Tensor, expanded

KINDS = {mx.float32: "F32", mx.bfloat16: "BF16", mx.float16: "F16"}


@dataclass(frozen=True)
class Output:
    """One tensor, and the form it takes in a file that is written or in memory."""

    key: str
    tensor: Tensor
    packing: Packing | None
    dtype: mx.Dtype

    @property
    def arrays(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """The type and shape of each array, by key."""
        kind = KINDS[self.dtype]
        if self.packing is None:
            return {self.key: (kind, self.tensor.shape)}
        path, (rows, width) = self.key.removesuffix(".weight"), self.tensor.shape
        scale_kind = kind if self.packing.mode == "affine" else "U8"
        columns = zip(self.packing.names, self.packing.columns(width), strict=True)
        return {
            f"{path}.{name}": ("U32" if name == "weight" else scale_kind, (rows, count))
            for name, count in columns
        }

    @property
    def size(self) -> int:
        """The bytes of all its arrays."""
        return sum(SIZES[kind] * prod(shape) for kind, shape in self.arrays.values())


def outputs(tensors: Mapping[str, Tensor], packings: Packings, dtype: mx.Dtype) -> list[Output]:
    """Return tensors in the form that packings and dtype give them, in the order of their files."""
    ordered = sorted(expanded(tensors, packings).items(), key=lambda item: item[1].place)
    return [
        Output(key, tensor, packings.get(key.removesuffix(".weight")), dtype)
        for key, tensor in ordered
    ]
