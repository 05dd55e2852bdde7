"""The state of a run: all that decides the steps to come, saved in one file.

The pictures and the noise of a step follow from the seed and the step's number (`order`), so that
number stands for the place in the data and for the random state.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..checks import path_text
from ..errors import LoraError
from ..files import write_atomically
from .optimizer import Arrays

GROUPS = ("parameters", "first", "second")
HASHED = {
    "model": "the model is another one",
    "adapter": "the adapter is another one",
    "pictures": "the pictures or their captions are others",
}
"""The words for what a run knows by its hash alone."""


@dataclass(frozen=True)
class State:
    """The parameters and the optimizer's moments, all float32, after `step` steps."""

    parameters: Arrays
    first: Arrays
    second: Arrays
    step: int = 0
    losses: Sequence[float] = field(default=(), repr=False)  # of each step

    @classmethod
    def beginning(cls, parameters: Arrays) -> "State":
        """Return the state before the first step."""
        zeros = {name: mx.zeros_like(value) for name, value in parameters.items()}
        return cls(parameters, zeros, dict(zeros))

    def moved(self, arrays: tuple[Arrays, Arrays, Arrays], loss: float) -> "State":
        """Return the state after one more step."""
        first, second, third = arrays
        return replace(
            self,
            parameters=first,
            first=second,
            second=third,
            step=self.step + 1,
            losses=(*self.losses, loss),
        )

    def save(self, file: Path, about: Mapping[str, Any]) -> None:
        """Write the state; `about` says what it belongs to."""
        arrays = {
            f"{group}.{name}": np.array(value)
            for group in GROUPS
            for name, value in getattr(self, group).items()
        }
        arrays["losses"] = np.array(self.losses, np.float64)
        text = json.dumps({"step": self.step, **about})
        data = save(arrays, {"training": text})  # of several keys the order would vary
        write_atomically(file, lambda out: out.write(data), overwrite=True)

    @classmethod
    def load(cls, file: Path, about: Mapping[str, Any]) -> "State":
        """Read a state, and refuse one that belongs to another run."""
        try:
            with safe_open(file, "numpy") as reader:
                then = json.loads((reader.metadata() or {})["training"])
                arrays = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise LoraError(
                f"{path_text(file)} is not a training state that can be read; begin anew"
            ) from error
        step = then.pop("step")
        for name, value in about.items():
            if then.get(name) != value:
                raise LoraError(
                    f"a run can only be resumed as it began: "
                    f"{_difference(name, then.get(name), value)}; go back to that, or begin anew "
                    "(--overwrite)"
                )
        groups: dict[str, Arrays] = {group: {} for group in GROUPS}
        losses = arrays.pop("losses")
        for key, value in arrays.items():
            group, _, name = key.partition(".")
            groups[group][name] = mx.array(value)
        return cls(**groups, step=step, losses=tuple(losses.tolist()))


def _difference(name: str, then: Any, now: Any) -> str:
    """Return what differs, of two values or of two tables of options."""
    if isinstance(then, dict) and isinstance(now, dict):
        names = [option for option in {**now, **then} if then.get(option) != now.get(option)]
        return ", ".join(_difference(option, then.get(option), now.get(option)) for option in names)
    if name in HASHED:
        return HASHED[name]
    return f"{name} was {then!r} and is {now!r}"
