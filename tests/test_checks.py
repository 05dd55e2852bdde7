"""Checks of values, and how messages quote them."""

import pytest

from mlx_zimage import RequestError
from mlx_zimage.checks import excerpt, one_of, string


class Broken:
    def __repr__(self) -> str:
        raise OSError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a fox", "'a fox'"),
        ("", "''"),
        (7, "7"),
        (None, "None"),
        ("fox " * 100, "'" + "fox " * 14 + "fox'... (+341 characters)"),
        ("x" * 100_000, "'" + "x" * 60 + "'... (+99,940 characters)"),
        ("\n" * 90, "'" + "\\n" * 30 + "'... (+60 characters)"),
        (list(range(99)), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16..."),
        pytest.param(10**5000, "a value of type int", id="many digits"),
        (Broken(), "a value of type Broken"),
    ],
)
def test_excerpts(value: object, text: str) -> None:
    assert excerpt(value) == text
    assert len(text) < 90


def test_one_of_several() -> None:
    assert one_of("quantize", 4, (3, 4, "mxfp4")) == 4
    for value in (4.0, "4", None, ["mxfp4"], True, 7):
        with pytest.raises(RequestError, match="quantize must be 3, 4 or mxfp4, not "):
            one_of("quantize", value, (3, 4, "mxfp4"))


def test_a_string_without_nul_and_surrogates() -> None:
    assert string("prompt", "é 🦊\n") == "é 🦊\n"
    for value in ("a\0b", "\ud800", b"a", None):
        with pytest.raises(RequestError, match="prompt must ") as refused:
            string("prompt", value)
        assert "\0" not in str(refused.value)
