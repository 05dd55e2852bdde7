"""GGUF's blocks of quantized numbers, turned into float32 with the rounding of the gguf package.

Every type is a sequence of fields. Small numbers are packed in planes: each byte of a run holds one
bit field of several numbers that lie a run apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Fields = dict[str, np.ndarray]  # each (blocks, bytes)


def _planes(data: np.ndarray, run: int, bits: int) -> Any:
    """Split (blocks, bytes) into (blocks, numbers), the lowest bits of a run first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    apart = data.reshape(len(data), -1, 1, run) >> shifts
    return (apart & np.uint8((1 << bits) - 1)).reshape(len(data), -1)


def _half(data: np.ndarray) -> Any:
    return np.ascontiguousarray(data).view(np.float16).astype(np.float32)


def _grouped(numbers: np.ndarray, groups: int) -> Any:
    return numbers.reshape(len(numbers), groups, -1).astype(np.float32)


def _flat(numbers: np.ndarray) -> Any:
    return numbers.reshape(len(numbers), -1)


def _five(f: Fields) -> Any:
    return _planes(f["low"], 16, 4) | (_planes(f["high"], 1, 1) << np.uint8(4))


def _q4_0(f: Fields) -> Any:
    return _half(f["d"]) * (_planes(f["low"], 16, 4).astype(np.float32) - 8)


def _q4_1(f: Fields) -> Any:
    return _half(f["d"]) * _planes(f["low"], 16, 4).astype(np.float32) + _half(f["m"])


def _q5_0(f: Fields) -> Any:
    return _half(f["d"]) * (_five(f).astype(np.float32) - 16)


def _q5_1(f: Fields) -> Any:
    return _half(f["d"]) * _five(f).astype(np.float32) + _half(f["m"])


def _q8_0(f: Fields) -> Any:
    return f["low"].view(np.int8).astype(np.float32) * _half(f["d"])


def _q2_k(f: Fields) -> Any:
    scales, mins = f["scales"] & np.uint8(15), f["scales"] >> np.uint8(4)
    step = (_half(f["d"]) * scales.astype(np.float32))[..., None]
    least = (_half(f["m"]) * mins.astype(np.float32))[..., None]
    return _flat(step * _grouped(_planes(f["low"], 32, 2), 16) - least)


def _q3_k(f: Fields) -> Any:
    low, high = _planes(f["scales"][:, :8], 8, 4), _planes(f["scales"][:, 8:], 4, 2)
    scales = (low | (high << np.uint8(4))).astype(np.float32) - 32
    step = (_half(f["d"]) * scales)[..., None]
    missing = 4 * (1 - _planes(f["high"], 32, 1).astype(np.float32))  # a set bit takes nothing
    return _flat(step * _grouped(_planes(f["low"], 32, 2) - missing, 16))


def _six_bits(scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eight scales and eight minima of six bits each from twelve bytes."""
    a, b, c = scales[:, :4], scales[:, 4:8], scales[:, 8:]
    low, top = np.uint8(0x3F), np.uint8(0x30)
    steps = [a & low, (c & np.uint8(15)) | ((a >> np.uint8(2)) & top)]
    mins = [b & low, (c >> np.uint8(4)) | ((b >> np.uint8(2)) & top)]
    return np.concatenate(steps, -1).astype(np.float32), np.concatenate(mins, -1).astype(np.float32)


def _with_minima(f: Fields, numbers: np.ndarray) -> Any:
    steps, mins = _six_bits(f["scales"])
    step, least = (_half(f["d"]) * steps)[..., None], (_half(f["m"]) * mins)[..., None]
    return _flat(step * _grouped(numbers, 8) - least)


def _q4_k(f: Fields) -> Any:
    return _with_minima(f, _planes(f["low"], 32, 4))


def _q5_k(f: Fields) -> Any:
    high = _planes(f["high"], 32, 1) << np.uint8(4)
    return _with_minima(f, _planes(f["low"], 32, 4) | high)


def _q6_k(f: Fields) -> Any:
    step = (_half(f["d"]) * f["scales"].view(np.int8).astype(np.float32))[..., None]
    numbers = _planes(f["low"], 64, 4) | (_planes(f["high"], 32, 2) << np.uint8(4))
    return _flat(step * (_grouped(numbers, 16) - 32))


@dataclass(frozen=True)
class Blocks:
    """A GGUF type: how many numbers a block holds, and the fields it consists of."""

    name: str
    numbers: int
    fields: tuple[tuple[str, int], ...]  # name and bytes
    to_floats: Callable[[Fields], Any]

    @property
    def size(self) -> int:
        return sum(length for _, length in self.fields)

    def split(self, raw: np.ndarray) -> Fields:
        blocks, fields, at = raw.reshape(-1, self.size), {}, 0
        for name, length in self.fields:
            fields[name] = blocks[:, at : at + length]
            at += length
        return fields

    def decode(self, raw: np.ndarray) -> np.ndarray:
        """Return the numbers of complete blocks, in one row."""
        fields = {name: np.ascontiguousarray(data) for name, data in self.split(raw).items()}
        with np.errstate(all="ignore"):  # broken scales: what is not finite is found later
            numbers: np.ndarray = self.to_floats(fields).astype(np.float32, copy=False)
        return numbers.reshape(-1)


D, M = ("d", 2), ("m", 2)
TYPES = {
    0: Blocks("F32", 1, (("d", 4),), lambda f: f["d"].view(np.float32)),
    1: Blocks("F16", 1, (D,), lambda f: _half(f["d"])),
    2: Blocks("Q4_0", 32, (D, ("low", 16)), _q4_0),
    3: Blocks("Q4_1", 32, (D, M, ("low", 16)), _q4_1),
    6: Blocks("Q5_0", 32, (D, ("high", 4), ("low", 16)), _q5_0),
    7: Blocks("Q5_1", 32, (D, M, ("high", 4), ("low", 16)), _q5_1),
    8: Blocks("Q8_0", 32, (D, ("low", 32)), _q8_0),
    10: Blocks("Q2_K", 256, (("scales", 16), ("low", 64), D, M), _q2_k),
    11: Blocks("Q3_K", 256, (("high", 32), ("low", 64), ("scales", 12), D), _q3_k),
    12: Blocks("Q4_K", 256, (D, M, ("scales", 12), ("low", 128)), _q4_k),
    13: Blocks("Q5_K", 256, (D, M, ("scales", 12), ("high", 32), ("low", 128)), _q5_k),
    14: Blocks("Q6_K", 256, (("low", 128), ("high", 64), ("scales", 16), D), _q6_k),
    30: Blocks(
        "BF16",
        1,
        (D,),
        lambda f: (f["d"].view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32),
    ),
}
"""GGUF types by the number that stands for them in a file."""
