"""Bits for each layer: where they lower the error of the outputs most, for the bytes they take.

A layer's error is that of its outputs relative to them, squared, as calibration measures it. Before
anything is measured, that of its kind on the demo stands in.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import RequestError
from ..weights.packing import Packing
from ..weights.tensor import Packings, Tensor

BITS = (2, 3, 4, 5, 6, 8)
BELOW, ABOVE = 2, 3  # candidates lie within so many bits of the mean
ROTATION = "hadamard-64"

KINDS: dict[str, tuple[float, ...]] = {
    "to_q": (1.3e-2, 3.1e-3, 7.5e-4, 1.8e-4, 4.4e-5, 2.8e-6),
    "to_k": (1.1e-2, 2.5e-3, 6.1e-4, 1.5e-4, 3.5e-5, 2.3e-6),
    "to_v": (2.4e-2, 6.0e-3, 1.4e-3, 3.5e-4, 8.4e-5, 5.4e-6),
    "to_out": (5.9e-3, 1.4e-3, 3.3e-4, 7.9e-5, 2.0e-5, 1.2e-6),
    "w1": (1.9e-2, 4.8e-3, 1.2e-3, 2.8e-4, 6.8e-5, 4.3e-6),
    "w2": (1.2e-2, 2.9e-3, 6.9e-4, 1.7e-4, 4.0e-5, 2.6e-6),
    "w3": (2.4e-2, 6.1e-3, 1.5e-3, 3.5e-4, 8.7e-5, 5.5e-6),
}
"""Relative squared errors at 2, 3, 4, 5, 6 and 8 bits by kind of layer, measured on the demo."""
IMPORTANCE = {
    "noise_refiner": 0.06,
    "context_refiner": 0.23,
    "to_q": 0.38,
    "to_k": 1.2,
    "to_v": 1.0,
    "to_out": 3.2,
    "w1": 0.6,
    "w2": 2.4,
    "w3": 0.9,
}
"""How much of a squared error at a layer is seen in the last latents, by its block or its kind.

Measured on the demo over eight of its own prompts, each kind alone at 3 bits; to_v's is 1.
"""


@dataclass(frozen=True)
class Option:
    """A packing that a layer may have."""

    packing: Packing
    size: int  # bytes
    error: float  # of the outputs, relative and squared


@dataclass(frozen=True)
class Target:
    """The size to reach: mean bits of the quantized weights, or bytes of the component."""

    bits: float | None = None
    bytes: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Read "3.5" as bits, "3GB" as bytes."""
        match = re.fullmatch(r"\s*([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*([GM]B)?\s*", text, re.IGNORECASE)
        if match is None or not float(match[1]):
            raise RequestError(
                f"mixed must be a mean number of bits, as 3.5, or a size, as 3GB, not {text[:40]!r}"
            )
        if match[2] is None:
            return cls(bits=float(match[1]))
        return cls(bytes=round(float(match[1]) * (1e9 if match[2].upper() == "GB" else 1e6)))

    def room(self, count: int, others: int) -> int:
        """Return the bytes of `count` quantized weights, where the component's others take some."""
        return int(self.bits * count / 8) if self.bits is not None else (self.bytes or 0) - others


def candidates(mean: float, group_size: int, rotate: bool) -> tuple[Packing, ...]:
    """Return the packings that layers may have where the mean is so many bits."""
    bits = [b for b in BITS if mean - BELOW - 0.5 < b < mean + ABOVE - 0.5]
    plain = tuple(Packing("affine", b, group_size) for b in bits)
    turned = tuple(replace(packing, rotation=ROTATION) for packing in plain)
    return plain + turned if rotate else plain


def estimate(layers: Mapping[str, Tensor], packings: Sequence[Packing]) -> dict[str, list[Option]]:
    """Return options with the errors of each layer's kind."""
    plain = [packing for packing in packings if not packing.rotation]
    usual = [sum(column) / len(KINDS) for column in zip(*KINDS.values(), strict=True)]

    def options(path: str, tensor: Tensor) -> list[Option]:
        errors = next((e for kind, e in KINDS.items() if kind in path.split(".")), usual)
        known = dict(zip(BITS, errors, strict=True))
        return [Option(p, size_of(tensor, p), known[p.bits]) for p in plain]

    return {path: options(path, tensor) for path, tensor in layers.items()}


def size_of(tensor: Tensor, packing: Packing) -> int:
    """Return the bytes of a packed matrix, its scales in 16 bit."""
    rows, width = tensor.shape
    words, *scales = packing.columns(width)
    return rows * (4 * words + 2 * sum(scales))


def best_of(options: Sequence[Option]) -> list[Option]:
    """Return one option for each number of bits: rotated where that lowers the error."""
    best: dict[int, Option] = {}
    for option in sorted(options, key=lambda option: option.packing.rotation):
        other = best.get(option.packing.bits)
        if other is None or option.error < other.error:
            best[option.packing.bits] = option
    return [best[bits] for bits in sorted(best)]


def allocate(options: Mapping[str, Sequence[Option]], room: int) -> Packings:
    """Choose an option for each layer, so that all fit and the sum of what is seen is least.

    Greedy: the step up that lowers the error most for each byte comes first.
    """
    by_layer = {path: best_of(listed) for path, listed in options.items()}
    chosen = {path: listed[0] for path, listed in by_layer.items()}
    left = room - sum(option.size for option in chosen.values())
    check_room(by_layer, room)
    while True:
        steps = [
            (_gain(path, chosen[path], option), path, option)
            for path, listed in by_layer.items()
            for option in listed
            if 0 < option.size - chosen[path].size <= left and option.error < chosen[path].error
        ]
        if not steps:
            return {path: option.packing for path, option in chosen.items()}
        _, path, option = max(steps, key=lambda step: (step[0], step[1]))
        left -= option.size - chosen[path].size
        chosen[path] = option


def _gain(path: str, low: Option, high: Option) -> float:
    """Return what a step up lowers of the visible error, for each byte."""
    names = path.split(".")
    importance = next((value for name, value in IMPORTANCE.items() if name in names), 1.0)
    return importance * (low.error - high.error) / (high.size - low.size)


def check_room(options: Mapping[str, Sequence[Option]], room: int) -> None:
    """Refuse a size that no choice of packings reaches."""
    least = sum(min(o.size for o in listed) for listed in options.values())
    most = sum(max(o.size for o in listed) for listed in options.values())
    if not least <= room <= most:
        raise RequestError(
            f"mixed bits can take from {_shown(least)} to {_shown(most)} here for the quantized "
            f"layers, not {_shown(max(room, 0))}; ask for another size"
        )


def _shown(size: int) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e8 else f"{size / 1e6:.3g} MB"
