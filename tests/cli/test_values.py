"""Values of options as they are typed."""

import pytest

from mlx_zimage.cli import values
from mlx_zimage.cli.parsing import UsageError


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["7"], [7]),
        (["1", "2", "3"], [1, 2, 3]),
        (["1,2"], [1, 2]),
        (["1-4"], [1, 2, 3, 4]),
        (["1-2,7", "5"], [1, 2, 7, 5]),
        (["0"], [0]),
        (["-1"], [-1]),  # the library refuses it
        (["18446744073709551615"], [2**64 - 1]),
    ],
)
def test_seeds(typed: list[str], expected: list[int]) -> None:
    assert values.seeds(typed, None) == expected


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["x"], "--seed must be whole numbers (7, 1,2,3) or a range (1-4), not 'x'"),
        ([""], "not ''"),
        (["1,"], "not ''"),
        (["1.5"], "not '1.5'"),
        (["１"], "not '１'"),
        (["9" * 5000], "not '9999"),
        (["4-1"], "--seed has the range 4-1; write 1-4"),
        (["1", "1"], "one is given twice"),
        (["1-3", "2"], "one is given twice"),
        (["1-99999999"], "the most is 1000"),
        (["1-600,601-1200"], "--seed lists 1200 pictures; the most is 1000"),
    ],
)
def test_seeds_that_are_refused(typed: list[str], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        values.seeds(typed, None)
    assert message in refused.value.message and len(refused.value.message) < 200


def test_seeds_or_a_count() -> None:
    assert values.seeds(None, 3) is None
    assert values.seeds([], None) is None
    with pytest.raises(UsageError, match="--count"):
        values.seeds(["1"], 3)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("1024x768", (1024, 768)), ("512", (512, 512)), ("64X32", (64, 32)), ("64×32", (64, 32))],
)
def test_sizes(typed: str, expected: tuple[int, int]) -> None:
    assert values.size(typed) == expected


@pytest.mark.parametrize("typed", ["", "x", "64x", "x64", "64x64x64", "64.5", "-64", "9" * 30])
def test_sizes_that_are_refused(typed: str) -> None:
    with pytest.raises(UsageError, match="--size must be as 1024x768"):
        values.size(typed)


def test_levels() -> None:
    assert values.levels(None) is None
    assert values.levels("legacy") == "legacy"
    assert values.levels("1,0.5") == (1.0, 0.5)
    assert values.levels("1,x") == "1,x"
    assert values.levels("") == ""


def test_bits() -> None:
    assert [values.bits(q) for q in (None, "4", "mxfp4", "four", "", "9" * 5000)] == [
        *(None, 4, "mxfp4", "four", "", "9" * 5000)
    ]


def test_guidance_on_two_scales() -> None:
    assert values.guidance_of(None, None) is None
    assert values.guidance_of(4.0, None) == 4.0
    assert values.guidance_of(None, 5.0) == 4.0
    assert values.guidance_of(None, 1.0) == 0.0
    for wrong in (0.5, -1.0, float("nan")):
        with pytest.raises(UsageError, match="--cfg must be at least 1"):
            values.guidance_of(None, wrong)
    with pytest.raises(UsageError, match="give one of them"):
        values.guidance_of(1.0, 2.0)


def test_random_seeds_differ() -> None:
    assert len({values.random_seed() for _ in range(100)}) > 95
