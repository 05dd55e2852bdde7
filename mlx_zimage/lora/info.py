"""Facts about a LoRA's file, for people."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .metadata import Metadata


@dataclass(frozen=True)
class LoraInfo:
    """The facts about a LoRA that fits a model: where it comes from, and what it changes."""

    path: Path
    family: str  # the program that wrote it, or whose layout it has
    kinds: tuple[str, ...]  # of its changes: LoRA, LoKr, DoRA, ...; the most frequent first
    ranks: tuple[int, ...]  # all that occur, from the least
    alphas: tuple[float, ...]  # that the file's tensors hold and that have an effect
    scales: tuple[float, ...]  # of its updates at strength 1, which rank and alpha make
    hit: Mapping[str, tuple[int, int]]  # by kind of module: how many it changes, of how many
    metadata: Metadata
    dtypes: tuple[str, ...]  # in the file, the most frequent first
    size: int  # bytes of the file
    skipped: tuple[str, ...]  # parts without effect, each with the reason
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        """Return the facts in a form that JSON takes."""
        fields = asdict(self)
        about = fields.pop("metadata")
        hit = {kind: {"hit": hit, "present": total} for kind, (hit, total) in self.hit.items()}
        return {**fields, "path": str(self.path), "hit": hit, **about}
