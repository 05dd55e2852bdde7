"""The published models of the family, and what each does unless told otherwise."""

from dataclasses import dataclass

from ..files import read_json
from ..hub.locate import NAMES
from ..sampling.schedule import SchedulerConfig
from .checkpoint import Checkpoint

MANIFEST = "mlx_zimage.json"
"""The file in which a conversion records its source."""


@dataclass(frozen=True)
class Family:
    """A published model, and its defaults."""

    name: str
    shift: float  # of its scheduler
    steps: int
    guidance: float

    @property
    def repo(self) -> str:
        return NAMES[self.name]


FAMILIES = (
    Family("turbo", shift=3.0, steps=8, guidance=0.0),
    Family("base", shift=6.0, steps=50, guidance=4.0),
)


def family_of(checkpoint: Checkpoint, scheduler: SchedulerConfig) -> Family:
    """Recognise the published model that a checkpoint is or was made from.

    A manifest or its place in the Hub's cache may name it. Otherwise the scheduler's shift decides,
    the only setting in which the published checkpoints differ.
    """
    names = _names(checkpoint)
    for family in FAMILIES:
        if any(name.lower() == family.repo.rpartition("/")[2].lower() for name in names):
            return family
    if scheduler.use_dynamic_shifting:
        return FAMILIES[0]
    return max(
        (family for family in FAMILIES if family.shift <= scheduler.shift),
        key=lambda family: family.shift,
        default=FAMILIES[0],
    )


def _names(checkpoint: Checkpoint) -> list[str]:
    """Return the names that a checkpoint's place or manifest gives to its model."""
    names = []
    manifest = checkpoint.path / MANIFEST
    if manifest.is_file():
        source = read_json(manifest).get("source")
        names += [source.rpartition("--")[2]] if isinstance(source, str) else []
    for place in (checkpoint.path, *checkpoint.path.parents):
        if place.parent.name == "snapshots":  # the Hub's cache: models--OWNER--NAME/snapshots/...
            names.append(place.parents[1].name.rpartition("--")[2])
    return names
