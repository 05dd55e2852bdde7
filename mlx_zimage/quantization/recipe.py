"""The recipe: which layers are quantized, and how.

Every matrix of a component's blocks is quantized. Matrices that are small and sensitive stay at 16
bit; each component's row in the table of components names them. At 3 to 6 bits the scale and the
bias of each group are searched for; at 8 they are MLX's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import mlx.core as mx
from mlx import nn

from ..errors import RequestError
from ..models.layers.rotation import rotate
from ..weights.packing import GROUP_SIZES, Packing
from ..weights.tensor import Packings, Tensor
from .affine import search

Quantize = Literal[3, 4, 5, 6, 8, "mxfp4", "mxfp8", "nvfp4"]
WIDTH_MULTIPLE = 64  # MLX's kernels take no narrower multiple, whatever the group
MODES = {"mxfp4": 4, "mxfp8": 8, "nvfp4": 4}
BITS = (3, 4, 5, 6, 8)
CALIBRATED_BITS = 2
CHOICES: tuple[int | str, ...] = (*BITS, *MODES)
SEARCHED_BITS = 6  # and below; at 8 bits a search gains nothing


@dataclass(frozen=True)
class Quantization:
    """A request to quantize: one packing for every layer that the recipe selects."""

    packing: Packing

    @classmethod
    def parse(
        cls, value: int | str, group_size: int | None = None, *, calibrated: bool = False
    ) -> "Quantization":
        """Read a number of bits or a mode. 2 bits are for weights that are `calibrated`."""
        if value == CALIBRATED_BITS and type(value) is int and not calibrated:
            raise RequestError("2 bits leave no picture unless calibrated; see convert --calibrate")
        if type(value) is int and (value in BITS or value == CALIBRATED_BITS):
            mode, bits = "affine", value
        elif isinstance(value, str) and value in MODES:
            mode, bits = value, MODES[value]
        else:
            known = ", ".join(map(str, CHOICES))
            raise RequestError(f"quantize must be one of {known}, not {str(value)[:40]!r}")
        sizes = GROUP_SIZES[mode, bits]
        if group_size is not None and group_size not in sizes:
            known = " or ".join(map(str, sorted(sizes)))
            name = f"{bits}-bit" if mode == "affine" else mode
            raise RequestError(
                f"the group size of {name} weights must be {known}, not {group_size}"
            )
        return cls(Packing(mode, bits, group_size or sizes[0]))

    def choose(self, tensors: Mapping[str, Tensor], unquantized: Sequence[str] | None) -> Packings:
        """Apply the recipe; `unquantized` names the layers that it leaves, None leaves all."""
        packings: dict[str, Packing] = {}
        for key, tensor in tensors.items():
            path, _, name = key.rpartition(".")
            if unquantized is None or name != "weight" or len(tensor.shape) != 2:
                continue
            if not {*path.split(".")} & {*unquantized}:
                self._check_width(path, tensor.shape[1])
                packings[path] = self.packing
        return packings

    def _check_width(self, path: str, width: int) -> None:
        multiple = max(WIDTH_MULTIPLE, self.packing.group_size)
        if not width % multiple:
            return
        smaller = [
            size
            for size in GROUP_SIZES[self.packing.mode, self.packing.bits]
            if not width % max(WIDTH_MULTIPLE, size)
        ]
        advice = "load this checkpoint unquantized"
        if smaller:
            advice = f"ask for a group size of {' or '.join(map(str, sorted(smaller)))}"
        raise RequestError(
            f"quantizing in groups of {self.packing.group_size} needs layers whose width is a "
            f"multiple of {multiple}, and '{path}' is {width} wide; {advice}"
        )


def prepare(model: nn.Module, packings: Packings) -> None:
    """Replace these layers by quantized ones, whose weights are loaded afterwards."""

    def packing_of(path: str, _: nn.Module) -> bool | dict[str, Any]:
        return packings[path].block if path in packings else False

    if packings:
        nn.quantize(model, class_predicate=packing_of)


def pack(
    tensor: Tensor, packing: Packing, dtype: mx.Dtype, start: int, stop: int
) -> list[mx.array]:
    """Return some rows packed, with scales of `dtype`; or as stored, if they are packed so."""
    if tensor.packing == packing and tensor.packed_rows is not None:
        return tensor.packed_rows(start, stop)
    array = tensor.rows(start, stop).astype(dtype)
    if packing.mode == "affine" and packing.bits <= SEARCHED_BITS:
        return search(rotate(array, packing.rotation), replace(packing, rotation=""))
    return packing.pack(array)
