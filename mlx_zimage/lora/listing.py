"""LoRA files looked into without loading a model: one, or all in a folder."""

from pathlib import Path

from ..checkpoint.checkpoint import Checkpoint
from ..errors import LoraError
from ..hub.locate import locate
from .adapter import Adapter
from .file import loras_in
from .info import LoraInfo
from .library import Library
from .targets import Targets, official_targets, targets


def read_lora(
    source: str | Path,
    *,
    model: str | Path | None = None,
    lora_folder: str | Path | None = None,
    download: bool = False,
) -> LoraInfo:
    """Read a LoRA, named as for `set_loras`, and return the facts about it.

    It is judged as when it is loaded: a file that does not fit raises a LoraError. `model` is the
    one to fit, as in `ZImage.load`, on this machine; by default the published Z-Image, of which no
    file is needed.
    """
    events = Library.open(lora_folder).locating(source, download=download)
    while True:
        try:
            next(events)
        except StopIteration as end:
            return Adapter.open(end.value, _targets(model)).info


def list_loras(
    folder: str | Path, *, model: str | Path | None = None
) -> list[tuple[Path, LoraInfo | LoraError]]:
    """Read every LoRA in a folder and below it; one that does not fit comes with its error."""
    fitting = _targets(model)
    return [(path, _read(path, fitting)) for path in loras_in(folder)]


def _read(path: Path, model: Targets) -> LoraInfo | LoraError:
    try:
        return Adapter.open(path, model).info
    except LoraError as error:
        return error


def _targets(model: str | Path | None) -> Targets:
    return official_targets() if model is None else targets(Checkpoint.open(locate(model)))
