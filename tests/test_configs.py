"""Configs: unknown keys are ignored, and a value of another kind is refused with its rule."""

import re
from dataclasses import dataclass
from typing import Any

import pytest

from mlx_zimage import configs
from mlx_zimage.errors import CheckpointError


@dataclass(frozen=True)
class Config:
    layers: int
    scale: float = 1.0
    shift: float | None = None
    bias: bool = False
    name: str = ""
    rope: dict[str, Any] | None = None
    sides: tuple[int, ...] = (1,)
    blocks: tuple[str, ...] = ()


def test_values_of_the_right_kind() -> None:
    data = {"layers": 2**24 - 1, "scale": 2, "sides": [3, 4], "blocks": ["a"], "new": object()}
    config = configs.read(Config, data, "config.json")
    assert config == Config(2**24 - 1, 2.0, None, sides=(3, 4), blocks=("a",))
    assert type(config.scale) is float


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"layers": 100_000_000},
            "'layers' must be a whole number from 1 to 16777215, not 1000000",
        ),
        ({"layers": 0}, "'layers' must be a whole number from 1 to 16777215, not 0"),
        ({"layers": True}, "'layers' must be a whole number from 1 to 16777215, not True"),
        ({"layers": 2.0}, "'layers' must be a whole number"),
        ({"layers": None}, "'layers' must be a whole number"),
        ({"layers": [[]] * 9999}, "'layers' must be a whole number from 1 to 16777215, not [[], ["),
        ({"scale": float("nan")}, "'scale' must be a number within 1e9 of 0, not nan"),
        ({"scale": 10**400}, "'scale' must be a number within 1e9 of 0, not 1000"),
        ({"shift": "3"}, "'shift' must be a number"),
        ({"bias": 1}, "'bias' must be true or false, not 1"),
        ({"name": 3}, "'name' must be a string, not 3"),
        ({"rope": []}, "'rope' must be an object, not []"),
        ({"sides": [1, 2**24]}, "'sides' must be a list of whole numbers from 1 to 16777215"),
        ({"sides": []}, "'sides' must be a list of whole numbers"),
        ({"blocks": ["a", 1]}, "'blocks' must be a list of strings"),
    ],
)
def test_values_of_another_kind(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(f"config.json: {message}")) as error:
        configs.read(Config, {"layers": 1, **values}, "config.json")
    assert len(str(error.value)) < 250


def test_keys_that_are_missing() -> None:
    with pytest.raises(CheckpointError, match="must hold 'layers', which is missing; copy the"):
        configs.read(Config, {}, "config.json")


def test_counts_that_no_model_has() -> None:
    with pytest.raises(CheckpointError, match=r"config.json: 'layers' may be at most 9, not 10"):
        configs.at_most(Config(10), 9, "config.json", "layers")
