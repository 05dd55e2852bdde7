"""Writes a transformer as nunchaku's files hold it: SVDQuant in the order of MMA tiles.

Every number is put where the published index formulas say, one index array for each kind of tensor.
"""

from dataclasses import dataclass

import numpy as np

from .raw import E2M1, E4M3, Raw, bf16, e2m1, f32, nearest, rounded

FUSED = {  # nunchaku's names, and the official matrices in each
    "attention.to_qkv": ("attention.to_q", "attention.to_k", "attention.to_v"),
    "attention.to_out.0": ("attention.to_out.0",),
    "feed_forward.net.0.proj": ("feed_forward.w3", "feed_forward.w1"),
    "feed_forward.net.2": ("feed_forward.w2",),
}


@dataclass(frozen=True)
class Form:
    kind: str  # int4 or fp4
    rank: int = 32
    per_row: bool = True  # fp4: whether `wcscales` lies there
    per_tensor: bool = True  # fp4: whether `wtscale` does


def words_at(rows: int, width: int) -> np.ndarray:
    """Where each word of 8 numbers lies: (rows, width / 8)."""
    n, j = np.ogrid[:rows, : width // 8]
    big, p, a, small = n // 128, n // 16 % 8, n // 8 % 2, n % 8
    t, b, m = j // 8, j // 4 % 2, j % 4
    return ((((big * (width // 64) + t) * 8 + p) * 8 + small) * 4 + m) * 4 + 2 * a + b


def scales_at(rows: int, groups: int) -> np.ndarray:
    """Where each 16-bit scale lies: (groups, rows)."""
    g, n = np.ogrid[:groups, :rows]
    big, r, s, c, d = n // 128, n // 16 % 8, n // 8 % 2, n // 2 % 4, n % 2
    return (((big * groups + g) * 8 + r) * 4 + c) * 4 + 2 * s + d


def fp4_scales_at(rows: int, groups: int) -> np.ndarray:
    g, n = np.ogrid[:groups, :rows]
    big, s, c, e = n // 128, n // 32 % 4, n // 8 % 4, n % 8
    return ((((big * (groups // 4) + g // 4) * 8 + e) * 4 + c) * 4 + s) * 4 + g % 4


def side_at(x_tile: np.ndarray, x: np.ndarray, y: np.ndarray, rank: int) -> np.ndarray:
    """Where the number in row x, column y of one side of the path lies; x_tile: of the channels."""
    q = (x // 16 + y // 16) - x_tile  # the other tile
    a, low, b, m, d = x // 8 % 2, x % 8, y // 8 % 2, y // 2 % 4, y % 2
    return (((((x_tile * (rank // 16) + q) * 8 + low) * 4 + m) * 2 + a) * 2 + b) * 2 + d


def put(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    flat = np.zeros(places.size, values.dtype)
    flat[places.reshape(-1)] = values.reshape(-1)
    assert len(np.unique(places)) == places.size
    return flat


def layer(matrix: np.ndarray, form: Form, generator: np.random.Generator) -> tuple[Raw, np.ndarray]:
    """One layer's tensors, and the matrix that they stand for, in float64."""
    rows, width = matrix.shape
    smooth = rounded(np.exp(0.3 * generator.standard_normal(width)))
    up = rounded(generator.standard_normal((rows, form.rank)) * 0.1 * form.rank**-0.5)
    down = rounded(generator.standard_normal((form.rank, width)) * width**-0.5)
    side = up.astype(np.float64) @ down
    tensors, packed = quantized((matrix - side) * smooth, form)
    x, y = np.ogrid[: form.rank, :width]
    side_down = put(down, side_at(y // 16, x, y, form.rank))
    x, y = np.ogrid[:rows, : form.rank]
    side_up = put(up, side_at(x // 16, x, y, form.rank))
    tensors |= {
        "proj_down": bf16(side_down.reshape(width, form.rank)),
        "proj_up": bf16(side_up.reshape(rows, form.rank)),
        "smooth_factor": bf16(put(smooth, scales_at(width, 1))),
        "smooth_factor_orig": bf16(np.ones(width)),
    }
    return tensors, packed / smooth + side


def quantized(rest: np.ndarray, form: Form) -> tuple[Raw, np.ndarray]:
    """The packed numbers' tensors, and the numbers."""
    return _int4(rest) if form.kind == "int4" else _fp4(rest, form)


def _int4(rest: np.ndarray) -> tuple[Raw, np.ndarray]:
    rows, width = rest.shape
    groups = rest.reshape(rows, -1, 64)
    scale = rounded(np.abs(groups).max(-1) / 7)
    levels = np.clip(np.round(groups / scale[..., None]), -8, 7)
    packed = (levels * scale[..., None]).reshape(rows, width)
    codes = (levels.astype(np.int8) & 15).astype(np.uint8).reshape(rows, width)
    return {
        "qweight": _words(codes),
        "wscales": bf16(put(scale.T, scales_at(rows, width // 64)).reshape(width // 64, rows)),
    }, packed


def _fp4(rest: np.ndarray, form: Form) -> tuple[Raw, np.ndarray]:
    rows, width = rest.shape
    per_row = rounded(np.abs(rest).max(1)) if form.per_row else np.ones(rows, np.float32)
    one = np.float32(2.0**-10 * 1.25) if form.per_tensor else np.float32(1)
    groups = (rest / per_row[:, None] / one).reshape(rows, -1, 16)
    codes = np.maximum(nearest(np.abs(groups).max(-1) / 6, E4M3), 1)
    scale = E4M3[codes]
    levels = e2m1(groups / scale[..., None])
    numbers = (E2M1[levels] * scale[..., None]).reshape(rows, width)
    swizzled = put(codes.T, fp4_scales_at(rows, width // 16))
    tensors: Raw = {
        "qweight": _words(levels.reshape(rows, width)),
        "wscales": ("F8_E4M3", (width // 16, rows), swizzled.tobytes()),
    }
    if form.per_row:
        tensors["wcscales"] = bf16(put(per_row, scales_at(rows, 1)))
    if form.per_tensor:
        tensors["wtscale"] = f32(np.array([one]))
    return tensors, numbers * per_row[:, None].astype(np.float64) * one


def _words(codes: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    """Codes of 4 bits (rows, width), eight to a word, the first one lowest."""
    rows, width = codes.shape
    parts = codes.reshape(rows, -1, 8).astype(np.uint32) << np.arange(0, 32, 4, dtype=np.uint32)
    words = np.bitwise_or.reduce(parts, -1).astype("<u4")
    return "I8", (rows, width // 2), put(words, words_at(rows, width)).tobytes()


def transformer(
    arrays: dict[str, np.ndarray], form: Form, *, skip_refiners: bool = False
) -> tuple[Raw, dict[str, np.ndarray]]:
    """The file's tensors, and the numbers that they stand for, under the official names."""
    generator = np.random.default_rng(0)
    tensors: Raw = {}
    dense = dict(arrays)
    for key, array in arrays.items():
        block, at, name = _split(key)
        fused = next((f for f, parts in FUSED.items() if at in parts and name == "weight"), None)
        if fused is None or array.ndim != 2:
            tensors[key] = f32(array)
        elif at == FUSED[fused][0]:
            parts = [arrays[f"{block}.{part}.weight"] for part in FUSED[fused]]
            if skip_refiners and "refiner" in block:
                tensors[f"{block}.{fused}.weight"] = f32(np.concatenate(parts))
                continue
            new, matrix = layer(np.concatenate(parts), form, generator)
            tensors |= {f"{block}.{fused}.{part}": value for part, value in new.items()}
            pieces = np.split(matrix.astype(np.float32), len(parts))
            dense |= {f"{block}.{p}.weight": m for p, m in zip(FUSED[fused], pieces, strict=True)}
    return tensors, dense


def _split(key: str) -> tuple[str, str, str]:
    """A key's block, its layer within the block, and its last part."""
    path, _, name = key.rpartition(".")
    words = path.split(".")
    return ".".join(words[:2]), ".".join(words[2:]), name
