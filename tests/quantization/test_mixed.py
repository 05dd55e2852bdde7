"""Bits for each layer: the sum of errors is near the best of all choices, and sizes are reached."""

from dataclasses import replace
from itertools import product

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage.errors import RequestError
from mlx_zimage.quantization.mixed import (
    BITS,
    IMPORTANCE,
    KINDS,
    ROTATION,
    Option,
    Target,
    allocate,
    best_of,
    candidates,
    estimate,
    size_of,
)
from mlx_zimage.weights.packing import Packing
from mlx_zimage.weights.tensor import Tensor


def _tensor(rows: int, width: int) -> Tensor:
    return Tensor("x", (rows, width), "BF16", ("", 0), lambda a, b: mx.zeros((b - a, width)))


def _options(seed: int) -> dict[str, list[Option]]:
    random = np.random.RandomState(seed)
    names = ("to_q", "to_v", "to_out", "w1", "w2")
    listed = {}
    for number, name in enumerate(names):
        size, error = int(random.randint(1000, 4000)), float(random.uniform(0.5, 2))
        listed[f"layers.{number}.{name}"] = [
            Option(Packing("affine", bits, 64), size * bits, error * 4.0**-bits)
            for bits in (2, 3, 4, 5)
        ]
    return listed


@pytest.mark.parametrize("seed", range(8))
def test_near_the_best_of_all_choices(seed: int) -> None:
    """Of 1024 choices; the error is at most 1.18 times the best one's, and all fit."""
    options = _options(seed)
    least = sum(listed[0].size for listed in options.values())
    most = sum(listed[-1].size for listed in options.values())
    room = (least + most) // 2

    def seen(choice: tuple[Option, ...]) -> float:
        return sum(
            IMPORTANCE[path.split(".")[-1]] * option.error
            for path, option in zip(options, choice, strict=True)
        )

    fitting = [
        choice for choice in product(*options.values()) if sum(o.size for o in choice) <= room
    ]
    chosen = allocate(options, room)
    mine = tuple(
        next(o for o in listed if o.packing == chosen[path]) for path, listed in options.items()
    )
    assert mine in fitting
    ratio = seen(mine) / min(map(seen, fitting))
    print(f"{ratio:.3f}")
    assert ratio <= 1.2


def test_sizes() -> None:
    assert Target.parse("3.5") == Target(bits=3.5)
    assert Target.parse(" 3GB ") == Target(bytes=3_000_000_000)
    assert Target.parse("2.5 gb") == Target(bytes=2_500_000_000)
    assert Target.parse("700MB").room(8, 100) == 699_999_900
    assert Target.parse("4").room(1000, 7) == 500
    for text in ("", "x", "-3", "0", "0GB", "3TB", "1e9", "nan", "3,5", "3GBs"):
        with pytest.raises(RequestError, match="mixed must be"):
            Target.parse(text)
    packing = Packing("affine", 3, 64)
    arrays = packing.pack(mx.random.normal((8, 192)).astype(mx.bfloat16))
    assert size_of(_tensor(8, 192), packing) == sum(a.nbytes for a in arrays)
    for room in (10, 10**9):
        with pytest.raises(RequestError, match="mixed bits can take from"):
            allocate(_options(0), room)


def test_rotated_where_that_lowers_the_error() -> None:
    plain = [Option(Packing("affine", bits, 64), bits, 0.1) for bits in (3, 4)]
    turned = [
        replace(plain[0], packing=replace(plain[0].packing, rotation=ROTATION), error=0.09),
        replace(plain[1], packing=replace(plain[1].packing, rotation=ROTATION), error=0.1),
    ]
    assert best_of([*turned, *plain]) == [turned[0], plain[1]]
    assert [(p.bits, p.rotation) for p in candidates(3.0, 64, rotate=True)] == [
        *((bits, "") for bits in (2, 3, 4, 5)),
        *((bits, ROTATION) for bits in (2, 3, 4, 5)),
    ]


def test_what_stands_in_before_anything_is_measured() -> None:
    for errors in KINDS.values():
        assert len(errors) == len(BITS) and list(errors) == sorted(errors, reverse=True)
    layers = {"layers.0.attention.to_v": _tensor(64, 64), "other": _tensor(64, 64)}
    known = estimate(layers, [Packing("affine", 4, 64), Packing("affine", 4, 64, ROTATION)])
    assert [option.error for option in known["layers.0.attention.to_v"]] == [KINDS["to_v"][2]]
    assert 0 < known["other"][0].error < KINDS["to_v"][2]
