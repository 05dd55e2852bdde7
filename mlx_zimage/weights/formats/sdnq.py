"""SDNQ's folders: the official layout, whose config says how the matrices are quantized.

`W = rotated(level * scale + zero_point + svd_up @ svd_down)`, with one scale for a row or for
groups of it. Levels of 2, 4 and 8 bits lie in bytes as MLX has them, the first number lowest.
"""

import fnmatch
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ...checks import excerpt
from ...errors import CheckpointError
from ...files import read_json
from ...models.layers.corrected import corrected
from ...models.layers.rotation import rotate
from ..official import plain
from ..packing import Packing, split_scale
from ..safetensors import FLOATS, Entry
from ..tensor import Tensor, Tensors, packed_tensor

CONFIG = "quantization_config"  # a block of config.json, and a file beside it
METHOD = "sdnq"
KINDS = {"uint2": 2, "int2": 2, "uint4": 4, "int4": 4, "uint8": 8, "int8": 8}
DESCRIBED = ("weight", "scale", "zero_point", "svd_up", "svd_down")
WIDTH_MULTIPLE = 64  # of what MLX's kernels take


def sdnq_block(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what a component's folder says of SDNQ, or None where it says nothing."""
    block, file = config.get(CONFIG), folder / f"{CONFIG}.json"
    if block is None and "quantization" not in config and file.is_file():
        block = read_json(file)
    return block if isinstance(block, Mapping) and block.get("quant_method") == METHOD else None


def read_sdnq(entries: Mapping[str, Entry], block: Mapping[str, Any]) -> Tensors:
    """Return a folder's tensors, quantized matrices as MLX packs them."""
    tensors: Tensors = {}
    for key, entry in entries.items():
        path, _, name = key.rpartition(".")
        if f"{path}.scale" not in entries:
            tensors[key] = plain(entry)
        elif name == "weight":
            tensors[key] = _Layer.check(path, entries, _settings(block, key)).tensor()
        elif name == "bias":
            tensors[key] = plain(entry)
        elif name not in DESCRIBED:
            raise CheckpointError(
                f"{entry.where} is of SDNQ's scales that are quantized themselves, "
                "which cannot be read yet"
            )
    return tensors


def _settings(block: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the settings of one matrix: those for all, with its own where it has some."""
    settings = dict(block)
    own = block.get("modules_quant_config")
    for names, more in own.items() if isinstance(own, Mapping) else ():
        if _is_named(key, [names]) and isinstance(more, Mapping):
            settings |= more
            break
    kinds = block.get("modules_dtype_dict")
    for kind, names in kinds.items() if isinstance(kinds, Mapping) else ():
        if _is_named(key, names):
            settings["weights_dtype"] = _at_least(settings.get("weights_dtype"), kind)
            break
    return settings


def _is_named(key: str, names: Any) -> bool:
    for name in names if isinstance(names, list) else ():
        if not isinstance(name, str):
            continue
        if name.startswith(".") and key.startswith(name[1:]):
            return True
        if (
            name == key
            or name in key.split(".")
            or ("*" in name and fnmatch.fnmatchcase(key, f"{name}*"))
        ):
            return True
    return False


def _at_least(usual: Any, kind: str) -> Any:
    """Return a type as it is named, or from "minimum_6bit": that one, where the usual is less."""
    text = kind.lower().removeprefix("minimum").strip("-_")
    text = text.removesuffix("bits").removesuffix("bit").strip("-_")
    bits = text.removeprefix("u").removeprefix("int")
    if text == kind or not bits.isdecimal():
        return kind
    if KINDS.get(usual, 0) >= int(bits):
        return usual
    return f"{'u' if text.startswith('u') or int(bits) <= 4 else ''}int{bits}"


@dataclass(frozen=True)
class _Layer:
    """One quantized matrix, whose entries fit together."""

    weight: Entry
    scale: Entry
    zero: Entry | None
    side: tuple[Entry, Entry] | None  # up, down
    bits: int
    rows: int
    width: int
    groups: int  # of a row
    is_turned: bool  # stored (width, rows)
    rotation: str

    @classmethod
    def check(
        cls, path: str, entries: Mapping[str, Entry], settings: Mapping[str, Any]
    ) -> "_Layer":
        """Take a layer's entries, and refuse what does not fit together."""
        weight, scale = entries[f"{path}.weight"], entries[f"{path}.scale"]
        bits = _bits(weight, settings)
        is_signed = settings["weights_dtype"].startswith("i")
        zero = entries.get(f"{path}.zero_point")
        kind = "I8" if is_signed and bits == 8 else "U8"
        if weight.dtype != kind or scale.dtype not in FLOATS or len(scale.shape) not in (2, 3):
            raise CheckpointError(
                f"{weight.where} must be of {kind}, and its scale of two or three dimensions of "
                f"floats, not {weight.dtype}, {scale.shape} of {scale.dtype}"
            )
        is_turned = _is_turned(weight, scale)
        rows = scale.shape[1] if is_turned else scale.shape[0]
        rows = weight.shape[0] if scale.count == 1 and len(weight.shape) > 1 else rows
        groups = scale.shape[1] if len(scale.shape) == 3 else 1
        width = weight.count * 8 // bits // max(rows, 1)
        fits = rows * width * bits == weight.count * 8 and scale.count in (1, rows * groups)
        if not weight.count or not fits or width % max(groups, 1) or width % (32 // bits):
            raise CheckpointError(
                f"{weight.where}: {weight.count} bytes of {bits} bits are no matrix that scales of "
                f"{scale.shape} fit"
            )
        if (zero is None) != is_signed or (
            zero and (zero.shape, zero.dtype) != (scale.shape, scale.dtype)
        ):
            raise CheckpointError(
                f"{weight.where} must come {'without' if is_signed else 'with'} "
                f"'{path}.zero_point' of its scale's shape, {scale.shape}"
            )
        side, rotation = _side(weight, path, entries, rows, width), _rotation(width, settings)
        return cls(weight, scale, zero, side, bits, rows, width, groups, is_turned, rotation)

    def tensor(self) -> Tensor:
        """Return the matrix as MLX packs it, or as numbers where its groups are none of MLX's."""
        size = self.width // self.groups
        group = next((g for g in (128, 64, 32) if size % g == 0), 0)
        splits = self.groups == 1 and self.zero is None
        packing = Packing(
            "affine",
            self.bits,
            group,
            self.rotation,
            rank=0 if self.side is None else min(self.side[0].shape),
            output_scale=splits,
        )
        shape, place = (self.rows, self.width), (str(self.weight.file.path), self.weight.start)
        if not group or self.width % WIDTH_MULTIPLE:
            where, kind = self.weight.where, self.weight.dtype
            return Tensor(where, shape, kind, place, self._numbers)
        shapes = packing.corrections(*shape)
        reads: dict[str, Callable[[], mx.array]] = {}
        if self.side is not None:
            reads |= {"side_down": self._down, "side_up": self._up}
        if splits:
            reads["output_scale"] = lambda: mx.array(split_scale(self._scales(self.scale))[1][:, 0])
        corrections = {
            name: Tensor(f"{self.weight.where}, its {name}", shapes[name], "F32", place, _cut(read))
            for name, read in reads.items()
        }
        return packed_tensor(
            self.weight.where, shape, place, packing, self._packed_rows, corrections
        )

    def _numbers(self, start: int, stop: int) -> mx.array:
        shifts = np.arange(0, 8, self.bits, dtype=np.uint8)
        raw = self._bytes(start, stop)[..., None] >> shifts & np.uint8((1 << self.bits) - 1)
        levels = raw.reshape(stop - start, self.groups, -1).astype(np.float32)
        if self.zero is None:
            levels -= 1 << (self.bits - 1)
        zero = 0 if self.zero is None else self._scales(self.zero)[start:stop, :, None]
        with np.errstate(all="ignore"):  # broken scales: what is not finite is found later
            numbers = levels * self._scales(self.scale)[start:stop, :, None] + zero
        matrix = rotate(mx.array(numbers.reshape(stop - start, -1)), self.rotation)
        if self.side is None:
            return matrix
        beside = {"side_up": self._up()[start:stop], "side_down": self._down()}
        return corrected(matrix, beside)

    def _packed_rows(self, start: int, stop: int) -> list[mx.array]:
        words = mx.array(np.ascontiguousarray(self._bytes(start, stop)).view(np.uint32))
        scale = self._scales(self.scale)[start:stop]
        if self.zero is not None:
            return [
                words,
                self._repeated(scale),
                self._repeated(self._scales(self.zero)[start:stop]),
            ]
        if self.groups == 1:
            scale = split_scale(scale)[0]
        scales = self._repeated(scale)
        return [words, scales, -(1 << (self.bits - 1)) * scales]

    def _bytes(self, start: int, stop: int) -> np.ndarray:
        """Read some rows of levels from 0 on, in bytes."""
        file, each = self.weight.file, self.width * self.bits // 8
        if self.is_turned:
            columns = file.bytes(self.weight.start, self.weight.count)
            raw = columns.reshape(self.width, self.rows)[:, start:stop].T
        else:
            at = self.weight.start + start * each
            raw = file.bytes(at, (stop - start) * each).reshape(stop - start, each)
        return raw ^ np.uint8(128) if self.weight.dtype == "I8" else raw

    def _scales(self, entry: Entry) -> np.ndarray:
        """Return (rows, groups) of scales or zero points."""
        numbers = np.array(entry.rows(0, entry.shape[0]).astype(mx.float32)).reshape(-1)
        if len(numbers) == 1:
            return np.broadcast_to(numbers, (self.rows, self.groups))
        return numbers.reshape(self.rows, self.groups)

    def _repeated(self, numbers: np.ndarray) -> mx.array:
        """Return one number for each of MLX's groups, of which some share one here."""
        size = self.width // self.groups
        group = next(g for g in (128, 64, 32) if size % g == 0)
        return mx.array(np.repeat(numbers, size // group, axis=1))

    def _up(self) -> mx.array:
        assert self.side is not None
        up = self.side[0].rows(0, self.side[0].shape[0])
        return up if up.shape[0] == self.rows else up.T

    def _down(self) -> mx.array:
        assert self.side is not None
        down = self.side[1].rows(0, self.side[1].shape[0])
        down = down if down.shape[1] == self.width else down.T
        return rotate(down.astype(mx.float32), self.rotation) if self.rotation else down


def _cut(read: Callable[[], mx.array]) -> Callable[[int, int], mx.array]:
    return lambda start, stop: read()[start:stop]


def _bits(weight: Entry, settings: Mapping[str, Any]) -> int:
    kind = settings.get("weights_dtype")
    if kind not in KINDS:
        raise CheckpointError(
            f"{weight.where} is quantized to {excerpt(kind)}, which cannot be read; known are "
            f"{', '.join(KINDS)}"
        )
    for name in ("use_codebook", "scale_dtype", "zero_point_dtype"):
        if settings.get(name) not in (None, False, "none"):
            raise CheckpointError(
                f"{weight.where} is quantized with {name} {excerpt(settings[name])}, which cannot "
                "be read yet"
            )
    return KINDS[kind]


def _is_turned(weight: Entry, scale: Entry) -> bool:
    """Tell whether a matrix is stored (width, rows), for the products that SDNQ runs in 8 bits."""
    if len(scale.shape) != 2 or len(weight.shape) != 2 or scale.count == 1:
        return False
    return scale.shape == (1, weight.shape[1])


def _side(
    weight: Entry, path: str, entries: Mapping[str, Entry], rows: int, width: int
) -> tuple[Entry, Entry] | None:
    up, down = entries.get(f"{path}.svd_up"), entries.get(f"{path}.svd_down")
    if up is None and down is None:
        return None
    if up is None or down is None:
        raise CheckpointError(f"{weight.where} must come with both svd_up and svd_down")
    rank = min(up.shape, default=0)
    for entry, shape in ((up, (rows, rank)), (down, (rank, width))):
        if entry.shape not in (shape, shape[::-1]) or entry.dtype not in FLOATS or not rank:
            raise CheckpointError(
                f"{entry.where} must have the shape {shape} and floats, not {entry.shape} of "
                f"{entry.dtype}"
            )
    return up, down


def _rotation(width: int, settings: Mapping[str, Any]) -> str:
    """Return the rotation of a matrix, in blocks that divide its width."""
    most = settings.get("hadamard_group_size", 256)
    if not settings.get("use_hadamard") or type(most) is not int or most < 1:
        return ""
    size: int = 1 << (min(width, most) - 1).bit_length()
    size = math.gcd(size, width)
    if size < 4:
        return ""
    is_power_of_4 = size.bit_length() % 2 == 1
    return f"{'regular' if is_power_of_4 else 'hadamard'}-{size}"
