"""A LoRA as it is asked for: where it comes from, and how strongly it acts."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checks import excerpt, path_text
from ..errors import LoraError

MOST = 100.0  # of a scale, either way
SCALED = re.compile(r"(.+):([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|nan|[+-]?inf)", re.IGNORECASE)


@dataclass(frozen=True)
class Lora:
    """A LoRA to apply: a file, a folder of PEFT, a name in the LoRA folder, or one on the Hub."""

    source: str | Path
    scale: float = 1.0  # 1 is as trained, 0 is off

    def __post_init__(self) -> None:
        if not isinstance(self.source, str | os.PathLike) or not str(self.source).strip():
            raise LoraError(f"a LoRA must be a path or a name, not {excerpt(self.source)}")
        if "\0" in str(self.source):
            raise LoraError(f"no such LoRA: {excerpt(str(self.source))}: it holds a NUL character")
        is_number = isinstance(self.scale, int | float) and not isinstance(self.scale, bool)
        if not is_number or not abs(self.scale) <= MOST:  # NaN is refused as well
            raise LoraError(
                f"a LoRA's scale must be a number from {-MOST:g} to {MOST:g}, not "
                f"{excerpt(self.scale)}; 1 is as trained"
            )
        object.__setattr__(self, "scale", float(self.scale))

    @classmethod
    def parse(cls, text: str) -> "Lora":
        """Read "FILE" or "FILE:0.8"; a file that has that name as it stands wins."""
        match = SCALED.fullmatch(text) if isinstance(text, str) else None
        if match is None or _exists(text):
            return cls(text)
        return cls(match[1], float(match[2]))

    @property
    def name(self) -> str:
        """The file's name without its folder and ending."""
        return Path(str(self.source)).name.removesuffix(".safetensors")

    def __str__(self) -> str:
        return f"{path_text(self.source)}:{self.scale:g}"


def read_loras(loras: object) -> list[Lora]:
    """Return what `set_loras` is given as a list of LoRAs."""
    if isinstance(loras, str | os.PathLike | Lora) or not isinstance(loras, Sequence):
        raise LoraError(f"loras must be a list, such as ['FILE:0.8'], not {excerpt(loras)}")
    return [item if isinstance(item, Lora) else _read(item) for item in loras]


def _read(item: object) -> Lora:
    if isinstance(item, str):
        return Lora.parse(item)
    return Lora(item)  # type: ignore[arg-type]  # it checks the type itself


def _exists(text: str) -> bool:
    try:
        return Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL byte, no such home
        return False
