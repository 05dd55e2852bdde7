"""nunchaku's 4-bit matrices (SVDQuant): packed numbers, a low-rank path beside them, smoothing.

`y = (x / smooth) Q^T * (wtscale * wcscales) + (x down^T) up^T`. Q is int4 in groups of 64, or fp4
in groups of 16 with float8 scales: MLX's affine and nvfp4 packings hold both to the bit. The
numbers are stored in the order in which tensor cores take them: in tiles of 128 rows, and within
each in an order that the reshapes below undo.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import mlx.core as mx

from ...errors import CheckpointError
from ..official import plain
from ..packing import Packing
from ..safetensors import FLOATS, SIZES, Entry
from ..tensor import Tensor, Tensors, packed_tensor

TILE = 128  # rows and columns
RANK_TILE = 16
INT4, FP4 = Packing("affine", 4, 64), Packing("nvfp4", 4, 16)
WEIGHT = ".qweight"
DESCRIBED = ("wscales", "wcscales", "wtscale", "proj_down", "proj_up", "smooth_factor")
OPTIONAL = (".wcscales", ".wtscale")
UNUSED = ("smooth_factor_orig",)
SCALE = "F8_E4M3"  # the type of fp4's scales
PARTS: dict[str, tuple[str, ...]] = {  # fused matrices, and what each is in official names
    ".attention.to_qkv": (".attention.to_q", ".attention.to_k", ".attention.to_v"),
    ".feed_forward.net.0.proj": (".feed_forward.w3", ".feed_forward.w1"),
    ".feed_forward.net.2": (".feed_forward.w2",),
}


def is_nunchaku(entries: Mapping[str, Entry]) -> bool:
    return any(key.endswith(WEIGHT) for key in entries)


def read_nunchaku(entries: Mapping[str, Entry]) -> Tensors:
    """Return the file's tensors, under the official names."""
    packed = {key.removesuffix(WEIGHT) for key in entries if key.endswith(WEIGHT)}
    tensors: Tensors = {}
    for key, entry in entries.items():
        path, _, name = key.rpartition(".")
        if path not in packed:
            tensors |= _official(path, name, plain(entry))
        elif name == WEIGHT[1:]:
            tensors |= _official(path, "weight", _Layer.check(path, entries).tensor())
        elif name not in (*DESCRIBED, *UNUSED):
            raise CheckpointError(
                f"{entry.where} belongs to no layer of SVDQuant's int4 or fp4; "
                "other layers cannot be read yet"
            )
    return tensors


def _official(path: str, name: str, tensor: Tensor) -> Tensors:
    """Return a tensor under its official name, or the parts of a fused one."""
    for fused, parts in PARTS.items():
        if path.endswith(fused):
            if not tensor.shape or tensor.shape[0] % len(parts):
                raise CheckpointError(
                    f"{tensor.where} must be {len(parts)} matrices in one, not {tensor.shape}"
                )
            rows, base = tensor.shape[0] // len(parts), path.removesuffix(fused)
            return {
                f"{base}{part}.{name}": tensor.slice(i * rows, (i + 1) * rows)
                for i, part in enumerate(parts)
            }
    return {f"{path}.{name}" if path else name: tensor}


@dataclass(frozen=True)
class _Layer:
    """One quantized matrix and the entries that describe it, whose shapes fit together."""

    weight: Entry
    entries: Mapping[str, Entry]  # the others, by name
    rows: int
    width: int

    @classmethod
    def check(cls, path: str, entries: Mapping[str, Entry]) -> "_Layer":
        """Take a layer's entries, and refuse any of another type or shape than it must have."""
        weight = entries[path + WEIGHT]
        if weight.dtype not in ("I8", "U8") or len(weight.shape) != 2:
            raise CheckpointError(
                f"{weight.where} must be a matrix of bytes, not {weight.shape} of {weight.dtype}"
            )
        rows, width = weight.shape[0], 2 * weight.shape[1]
        if not rows or not width or rows % TILE or width % TILE:
            raise CheckpointError(
                f"{weight.where} must be in tiles of {TILE} x {TILE}, not {rows} x {width}"
            )
        beside = {name: entries.get(f"{path}.{name}") for name in DESCRIBED}
        down, scales = beside["proj_down"], beside["wscales"]
        rank = down.shape[-1] if down is not None and down.shape else RANK_TILE
        base = FP4 if scales is not None and scales.dtype == SCALE else INT4
        shapes = {
            "wscales": (width // base.group_size, rows),
            "proj_down": (width, rank),
            "proj_up": (rows, rank),
            "smooth_factor": (width,),
            "wcscales": (rows,),
        }
        for name, shape in shapes.items():
            kinds = [SCALE] if name == "wscales" and base == FP4 else [*FLOATS]
            _check(weight, f"{path}.{name}", beside[name], shape, kinds)
        if down is not None and (rank % RANK_TILE or not rank):
            raise CheckpointError(
                f"{down.where} must have a rank that is a multiple of {RANK_TILE}, not {rank}"
            )
        one = beside["wtscale"]
        if one is not None and (one.count != 1 or one.dtype not in FLOATS):
            raise CheckpointError(f"{one.where} must be one float, not {one.shape} of {one.dtype}")
        found = {name: entry for name, entry in beside.items() if entry is not None}
        return cls(weight, found, rows, width)

    @property
    def is_fp4(self) -> bool:
        return self.entries["wscales"].dtype == SCALE

    def tensor(self) -> Tensor:
        """Return the matrix as MLX packs it, with what corrects it."""
        down, up = self.entries["proj_down"], self.entries["proj_up"]
        smooth = self.entries["smooth_factor"]
        rank, rows, width = down.shape[1], self.rows, self.width
        base = FP4 if self.is_fp4 else INT4
        has_output_scale = "wcscales" in self.entries or "wtscale" in self.entries
        packing = Packing(
            *(base.mode, base.bits, base.group_size),
            rank=rank,
            input_scale=True,
            output_scale=has_output_scale,
        )
        corrections = {
            "side_down": _small(down, (rank, width), lambda: _down(_all(down), width, rank)),
            "side_up": _small(up, (rows, rank), lambda: _up(_all(up), rows, rank)),
            "input_scale": _small(smooth, (width,), lambda: 1 / _vector(smooth)),
        }
        if has_output_scale:
            scale = self.entries.get("wcscales") or self.entries["wtscale"]
            corrections["output_scale"] = _small(scale, (rows,), self._output_scale)
        place = (str(self.weight.file.path), self.weight.start)
        return packed_tensor(
            self.weight.where, (rows, width), place, packing, self._packed_rows, corrections
        )

    def _output_scale(self) -> mx.array:
        per_row, one = self.entries.get("wcscales"), self.entries.get("wtscale")
        scale = mx.ones((self.rows,)) if per_row is None else _vector(per_row)
        return scale if one is None else scale * _all(one).astype(mx.float32)

    def _packed_rows(self, start: int, stop: int) -> list[mx.array]:
        """Read the tiles that hold some rows, in MLX's order."""
        first, last = start // TILE, -(-stop // TILE)
        words = _tiles(self.weight, self.rows, first, last).view(mx.uint32)
        # A tile holds columns by 64, rows by 16, l, m and, innermost, rows by 8 and words by 4.
        words = words.reshape(last - first, self.width // 64, 8, 8, 4, 2, 2)
        words = words.transpose(0, 2, 5, 3, 1, 6, 4).reshape(-1, self.width // 8)
        scales = _tiles(self.entries["wscales"], self.rows, first, last)
        if self.is_fp4:
            arrays = [words, _fp4_scales(scales, self.width)]
        else:
            numbers = _by_rows(scales.view(FLOATS[self.entries["wscales"].dtype]), self.width // 64)
            # From two's complement to 0..15: the level gains 8.
            arrays = [words ^ 0x88888888, numbers, -8 * numbers]
        at = first * TILE
        return [mx.contiguous(array[start - at : stop - at]) for array in arrays]


def _check(
    weight: Entry, name: str, entry: Entry | None, shape: tuple[int, ...], kinds: list[str]
) -> None:
    if entry is None and not name.endswith(OPTIONAL):
        raise CheckpointError(f"{weight.where} must come with '{name}' of shape {shape}")
    if entry is not None and (entry.shape != shape or entry.dtype not in kinds):
        raise CheckpointError(
            f"{entry.where} must have the shape {shape} and the type {' or '.join(kinds)}, not "
            f"{entry.shape} of {entry.dtype}"
        )


def _small(entry: Entry, shape: tuple[int, ...], read: Callable[[], mx.array]) -> Tensor:
    """Return a correction as a tensor; it is read at once, and then cut."""
    place = (str(entry.file.path), entry.start)
    return Tensor(entry.where, shape, entry.dtype, place, partial(_cut, read))


def _cut(read: Callable[[], mx.array], start: int, stop: int) -> mx.array:
    return read()[start:stop]


def _all(entry: Entry) -> mx.array:
    return entry.rows(0, entry.shape[0] if entry.shape else 1).reshape(-1)


def _tiles(entry: Entry, rows: int, first: int, last: int) -> mx.array:
    """Read the bytes of some tiles, which lie one after the other."""
    each = entry.count * SIZES[entry.dtype] * TILE // rows
    raw = entry.file.bytes(entry.start + first * each, (last - first) * each)
    return mx.array(raw)


def _by_rows(numbers: mx.array, groups: int) -> mx.array:
    """Return numbers of 16-bit scales (rows, groups)."""
    tiles = numbers.reshape(-1, groups, 8, 4, 2, 2)  # rows by 16, 2, 8 and 1
    return tiles.transpose(0, 2, 4, 3, 5, 1).reshape(-1, groups)


def _vector(entry: Entry) -> mx.array:
    """Return a stored vector, in float32."""
    return _by_rows(_all(entry), 1).reshape(-1).astype(mx.float32)


def _fp4_scales(codes: mx.array, width: int) -> mx.array:
    tiles = codes.reshape(-1, width // 64, 8, 4, 4, 4)  # groups by 4, rows by 1, 8, 32; groups
    return tiles.transpose(0, 4, 3, 2, 1, 5).reshape(-1, width // 16)


def _down(numbers: mx.array, width: int, rank: int) -> mx.array:
    tiles = numbers.reshape(width // 16, rank // 16, 8, 4, 2, 2, 2)
    return tiles.transpose(1, 4, 2, 0, 5, 3, 6).reshape(rank, width)


def _up(numbers: mx.array, rows: int, rank: int) -> mx.array:
    tiles = numbers.reshape(rows // 16, rank // 16, 8, 4, 2, 2, 2)
    return tiles.transpose(0, 4, 2, 1, 5, 3, 6).reshape(rows, rank)
