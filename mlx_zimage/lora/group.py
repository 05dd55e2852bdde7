"""The tensors that a LoRA file has for one module, as its header describes them."""

from collections.abc import Mapping
from dataclasses import dataclass

import mlx.core as mx

from ..checks import excerpt, path_text
from ..errors import LoraError
from ..weights.safetensors import Entry
from .metadata import PeftConfig
from .targets import Named

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
"""The shapes that tensors must have, by their roles."""
HALVES = {"down": "lora_A or lora_down", "up": "lora_B or lora_up"}
"""Names of roles for people."""


@dataclass(frozen=True)
class Group:
    """One module of a file: its name there, its tensors by role, and what they change."""

    module: str
    parts: Mapping[str, Entry]
    named: Named
    peft: PeftConfig | None = None

    @property
    def shape(self) -> Shape:
        """The shape of the weight it changes; of a fused one, of all its rows."""
        first, *_ = shapes = [target.shape for target in self.named.targets]
        return (sum(shape[0] for shape in shapes), *first[1:])

    @property
    def is_matrix(self) -> bool:
        return len(self.shape) == 2

    def error(self, text: str) -> LoraError:
        """Return the refusal of this module."""
        file = next(iter(self.parts.values())).file.path
        return LoraError(f"{path_text(file)}: the module {excerpt(self.module, 120)} {text}")

    @property
    def tails(self) -> str:
        """The ends of its keys, for a message."""
        return " and ".join(map(self.tail, self.parts))

    def tail(self, role: str) -> str:
        """Return the end of a tensor's key, for a message."""
        return excerpt(self.parts[role].name.removeprefix(f"{self.module}."))

    def dimension(self, role: str, axis: int) -> int:
        """Return a size that a tensor decides, such as the rank; there must be one."""
        if role not in self.parts:
            name = HALVES.get(role, role)
            raise self.error(f"has {self.tails} and no {name}; the file is incomplete")
        entry = self.parts[role]
        if len(entry.shape) <= axis or entry.count == 0:
            raise self.error(
                f"has {self.tail(role)} of the shape {entry.shape}, and a rank must be at least 1; "
                "the file is broken"
            )
        return entry.shape[axis]

    def scale(self, rank: int, alpha: float | None) -> float:
        """Return what an update is multiplied by; an alpha of 0 stands for the rank."""
        if self.peft is not None and (alpha is None or self.peft.kind != "LORA"):
            return self.peft.scale(self.module.removeprefix(self.named.prefix), rank)
        return 1.0 if alpha is None or alpha == 0 else alpha / rank


@dataclass(frozen=True)
class Values:
    """The numbers of a group: its tensors by role, and its alpha."""

    arrays: Mapping[str, mx.array]
    alpha: float | None = None

    def __getitem__(self, role: str) -> mx.array:
        return self.arrays[role]

    def get(self, role: str) -> mx.array | None:
        return self.arrays.get(role)
