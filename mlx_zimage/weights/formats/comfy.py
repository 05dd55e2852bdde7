"""ComfyUI's quantized layers: one function for each kind that its marks name.

Where a kind has one scale for a row or for all, its levels are packed with a power of two as their
scale, which every type holds, and the rest of the scale becomes one of the output: so no level is
rounded. ConvRot's weights are rotated, and stay so: their layers rotate each input.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np

from ...errors import CheckpointError
from ...models.layers.rotation import check_rotation
from ..packing import Packing, split_scale
from ..safetensors import FLOATS, Entry
from ..tensor import Tensor, packed_tensor
from .eight_bits import table
from .marks import Mark

WIDTH_MULTIPLE = 64  # of what MLX's kernels take
E4M3, E8M0 = ("F8_E4M3", "U8"), ("F8_E8M0", "U8")  # written as bytes by some programs
BYTES = ("I8", "U8")


@dataclass(frozen=True)
class Layer:
    """A quantized layer: its weight, its mark and the file's entries."""

    path: str
    weight: Entry
    mark: Mark
    entries: Mapping[str, Entry]

    def entry(self, name: str, kinds: Any, *shapes: tuple[int, ...]) -> Entry:
        """Return the entry beside the weight, which must have one of these types and shapes."""
        entry = self.entries.get(f"{self.path}.{name}")
        if entry is None:
            raise CheckpointError(f"{self.weight.where} must come with '{self.path}.{name}'")
        if entry.dtype not in kinds or entry.shape not in shapes:
            raise CheckpointError(
                f"{entry.where} must have the type {' or '.join(kinds)} and the shape "
                f"{' or '.join(map(str, shapes))}, not {entry.shape} of {entry.dtype}"
            )
        return entry

    def has(self, name: str) -> bool:
        return f"{self.path}.{name}" in self.entries

    def rows(self, kinds: tuple[str, ...]) -> int:
        """Return the rows of the weight, which must be a matrix of one of these types."""
        if self.weight.dtype not in kinds or len(self.weight.shape) != 2:
            raise CheckpointError(
                f"{self.weight.where} must be a matrix of {' or '.join(kinds)} to be "
                f"{self.mark.kind}, not {self.weight.shape} of {self.weight.dtype}"
            )
        return self.weight.shape[0]

    def rotation(self, width: int) -> str:
        """Return the rotation that ConvRot's mark names."""
        rotation = f"regular-{self.mark.number('convrot_groupsize', 256)}"
        try:
            check_rotation(rotation, width)
        except ValueError as error:
            raise CheckpointError(f"{self.mark.where} cannot be read: {error}") from error
        return rotation

    def vector(self, name: str, kinds: Any, count: int) -> np.ndarray:
        """Read numbers for all rows or columns, or one for each."""
        entry = self.entry(name, kinds, (), (1,), (1, 1), (count,), (count, 1))
        numbers = np.array(entry.rows(0, entry.shape[0] if entry.shape else 1).astype(mx.float32))
        return np.broadcast_to(numbers.reshape(-1), (count,))

    def tensor(
        self,
        shape: tuple[int, int],
        packing: Packing,
        packed_rows: Callable[[int, int], list[mx.array]],
        corrections: Mapping[str, Callable[[], np.ndarray]],
    ) -> Tensor:
        """Return the matrix, packed if MLX's kernels take its width."""
        if not all(shape) or shape[1] % 32:
            raise CheckpointError(
                f"{self.weight.where} must have rows, and columns in groups of 32, not {shape}"
            )
        place = (str(self.weight.file.path), self.weight.start)
        shapes = packing.corrections(*shape)
        beside = {
            name: Tensor(
                f"{self.weight.where}, its {name}",
                shapes[name],
                "F32",
                place,
                partial(_cut, read),
            )
            for name, read in corrections.items()
        }
        tensor = packed_tensor(self.weight.where, shape, place, packing, packed_rows, beside)
        is_packed = not shape[1] % WIDTH_MULTIPLE and not shape[1] % packing.group_size
        return tensor if is_packed else tensor.unpacked()


def _cut(read: Callable[[], np.ndarray], start: int, stop: int) -> mx.array:
    return mx.array(np.ascontiguousarray(read()[start:stop]))


def read_marked(path: str, mark: Mark, entries: Mapping[str, Entry]) -> Tensor:
    """Return the weight of a layer with a mark of one of KINDS."""
    return KINDS[mark.kind](Layer(path, entries[f"{path}.weight"], mark, entries))


def _nvfp4(layer: Layer) -> Tensor:
    rows, width = layer.rows(BYTES), 2 * layer.weight.shape[1]
    scales = _block_scales(layer, E4M3, rows, width, 16)

    def packed_rows(start: int, stop: int) -> list[mx.array]:
        raw = layer.weight.raw(start, stop).reshape(stop - start, -1)
        words = (raw << np.uint8(4) | raw >> np.uint8(4)).view(np.uint32)  # the first number low
        return [mx.array(words), mx.array(_in_order(scales, start, stop, width // 16))]

    corrections = {"output_scale": partial(layer.vector, "weight_scale_2", FLOATS, rows)}
    if layer.has("pre_quant_scale"):
        corrections["input_scale"] = partial(layer.vector, "pre_quant_scale", FLOATS, width)
    layer.vector("weight_scale_2", FLOATS, rows)
    packing = Packing("nvfp4", 4, 16, input_scale="input_scale" in corrections, output_scale=True)
    return layer.tensor((rows, width), packing, packed_rows, corrections)


def _mxfp8(layer: Layer) -> Tensor:
    rows, width = layer.rows(("F8_E4M3",)), layer.weight.shape[1]
    scales = _block_scales(layer, E8M0, rows, width, 32)

    def packed_rows(start: int, stop: int) -> list[mx.array]:
        raw = layer.weight.raw(start, stop).reshape(stop - start, -1)
        words = mx.array(raw.view(np.uint32))
        return [words, mx.array(_in_order(scales, start, stop, width // 32))]

    return layer.tensor((rows, width), Packing("mxfp8", 8, 32), packed_rows, {})


def _block_scales(layer: Layer, kinds: Any, rows: int, width: int, group: int) -> Entry:
    if not rows or not width or width % group:
        raise CheckpointError(
            f"{layer.weight.where} must be in groups of {group} to be {layer.mark.kind}, not "
            f"{rows} x {width}"
        )
    shape = (-(-rows // 128) * 128, -(-width // group // 4) * 4)
    return layer.entry("weight_scale", kinds, shape)


def _in_order(scales: Entry, start: int, stop: int, columns: int) -> np.ndarray:
    """Read the scales of some rows, which lie in the tiles of 128 x 4 that tensor cores take."""
    first, last, width = start // 128, -(-stop // 128), scales.shape[1]
    raw = scales.raw(first * 128, last * 128)
    tiles = raw.reshape(last - first, width // 4, 32, 4, 4)  # rows by 128; columns by 4; rows
    in_rows = tiles.transpose(0, 3, 2, 1, 4).reshape(-1, width)
    return np.ascontiguousarray(in_rows[start - first * 128 : stop - first * 128, :columns])


def _int8(layer: Layer) -> Tensor:
    layer.rows(("I8",))
    width = layer.weight.shape[1]
    rotation = layer.rotation(width) if layer.mark.field("convrot", False) else ""

    def levels(start: int, stop: int) -> np.ndarray:
        return layer.weight.raw(start, stop).reshape(stop - start, -1)

    return _by_rows(layer, width, 8, rotation, levels, "weight_scale")


def _convrot_w4a4(layer: Layer) -> Tensor:
    layer.rows(BYTES)
    width = 2 * layer.weight.shape[1]

    def levels(start: int, stop: int) -> np.ndarray:
        return layer.weight.raw(start, stop).reshape(stop - start, -1)

    return _by_rows(layer, width, 4, layer.rotation(width), levels, "weight_scale")


def _w4a8(layer: Layer) -> Tensor:
    """Return the int8 levels that 4 or 6 bits stand for, as ComfyUI computes with them."""
    rows = layer.rows(BYTES)
    group = layer.mark.number("group_size", 16)
    stored = layer.entries.get(f"{layer.path}.weight_s_rel")
    width = stored.shape[-1] * group if stored is not None and stored.shape else 0
    relative = layer.entry("weight_s_rel", (*E4M3, "F32"), (rows, width // group))
    bits = 8 * layer.weight.shape[1] // max(width, 1)
    if bits not in (4, 6) or 8 * layer.weight.shape[1] != width * bits or width % 16:
        raise CheckpointError(
            f"{layer.weight.where} must have 4 or 6 bits for each of {width} columns, not "
            f"{layer.weight.shape[1]} bytes"
        )
    zero = 1 << (bits - 1)
    numbers = np.arange(-zero, zero, dtype=np.float32)
    if layer.has("weight_codebook"):
        book = layer.entry("weight_codebook", FLOATS, (2 * zero,))
        numbers = np.array(book.rows(0, 2 * zero).astype(mx.float32))

    def levels(start: int, stop: int) -> np.ndarray:
        codes = _codes(layer.weight.raw(start, stop).reshape(stop - start, -1), width, bits)
        scales = _floats(relative, start, stop)
        with np.errstate(all="ignore"):
            grouped = numbers[codes].reshape(stop - start, -1, group) * scales[..., None]
        if not np.isfinite(grouped).all():
            raise CheckpointError(
                f"{relative.where} holds scales that are not finite, or too large"
            )
        signed: np.ndarray = np.clip(np.round(grouped), -127, 127).astype(np.int8)
        return signed.reshape(stop - start, width).view(np.uint8)

    return _by_rows(layer, width, 8, layer.rotation(width), levels, "weight_s_channel")


def _codes(raw: np.ndarray, width: int, bits: int) -> np.ndarray:
    """Return codes from a plane of their lowest four bits, and one of the two above."""
    low = raw[:, : width // 2]
    codes = np.stack([low & np.uint8(15), low >> np.uint8(4)], -1).reshape(len(raw), width)
    if bits == 6:
        shifts = np.arange(0, 8, 2, dtype=np.uint8)
        high = (raw[:, width // 2 :, None] >> shifts & np.uint8(3)).reshape(len(raw), width)
        codes |= high << np.uint8(4)
    return codes


def _floats(entry: Entry, start: int, stop: int) -> np.ndarray:
    if entry.dtype in FLOATS:
        return np.array(entry.rows(start, stop).astype(mx.float32))
    numbers: np.ndarray = table("F8_E4M3")[entry.raw(start, stop)].reshape(stop - start, -1)
    return numbers


def _by_rows(
    layer: Layer,
    width: int,
    bits: int,
    rotation: str,
    levels: Callable[[int, int], np.ndarray],
    scale: str,
) -> Tensor:
    """Return signed levels, in bytes, with one scale for each row or for all."""
    rows = layer.weight.shape[0]
    layer.vector(scale, FLOATS, rows)
    group = 128 if width % 128 == 0 else 64 if width % 64 == 0 else 32
    packing = Packing("affine", bits, group, rotation, output_scale=True)
    zero = 1 << (bits - 1)

    def split() -> tuple[np.ndarray, np.ndarray]:
        return split_scale(layer.vector(scale, FLOATS, rows))

    def packed_rows(start: int, stop: int) -> list[mx.array]:
        signed = levels(start, stop)
        words = (signed ^ np.uint8(0x88 if bits == 4 else 0x80)).view(np.uint32)
        power = mx.array(split()[0][start:stop, None])
        scales = mx.repeat(power, max(width // group, 1), axis=1)
        return [mx.array(words), scales, -zero * scales]

    return layer.tensor((rows, width), packing, packed_rows, {"output_scale": lambda: split()[1]})


def _awq(layer: Layer) -> Tensor:
    rows, width = layer.rows(BYTES), 2 * layer.weight.shape[1]
    group = layer.mark.number("group_size", 64)
    if group not in (32, 64, 128) or width % group:
        raise CheckpointError(
            f"{layer.mark.where}: 'group_size' must be 32, 64 or 128 and divide {width}, "
            f"not {group}"
        )
    shape = (width // group, rows)
    scale = layer.entry("weight_scale", FLOATS, shape)
    zeros = layer.entry("weight_zeros", FLOATS, shape)

    def packed_rows(start: int, stop: int) -> list[mx.array]:
        raw = layer.weight.raw(start, stop).reshape(stop - start, -1)
        floats = (e.rows(0, shape[0]).astype(mx.float32) for e in (scale, zeros))
        scales, biases = (numbers[:, start:stop].T for numbers in floats)
        return [mx.array(raw.view(np.uint32)), scales, biases - 8 * scales]

    return layer.tensor((rows, width), Packing("affine", 4, group), packed_rows, {})


KINDS: dict[str, Callable[[Layer], Tensor]] = {
    "nvfp4": _nvfp4,
    "mxfp8": _mxfp8,
    "int8_tensorwise": _int8,
    "convrot_w4a4": _convrot_w4a4,
    "asym_w4a8_int8": _w4a8,
    "awq_w4a16": _awq,
}
