"""LoRA files looked into without loading a model: one, or all in a folder."""

from pathlib import Path

from ..checkpoint.checkpoint import Checkpoint
from ..checks import path_text
from ..errors import LoraError
from ..hub.locate import locate
from ..weights.index import PICKLES, files_of
from .adapter import Adapter
from .file import CONFIG, lora_path
from .info import LoraInfo
from .targets import Targets, official_targets, targets

SUFFIXES = (".safetensors", *PICKLES)
"""Endings of files that people keep LoRAs in; pickles are listed with the reason against them."""


def read_lora(path: str | Path, *, model: str | Path | None = None) -> LoraInfo:
    """Read a LoRA's file, or a folder of PEFT, and return the facts about it.

    It is judged as when it is loaded: a file that does not fit raises a LoraError. `model` is the
    one to fit, as in `ZImage.load`, on this machine; by default the published Z-Image, of which no
    file is needed.
    """
    return Adapter.open(path, _targets(model)).info


def list_loras(
    folder: str | Path, *, model: str | Path | None = None
) -> list[tuple[Path, LoraInfo | LoraError]]:
    """Read every LoRA in a folder and below it; one that does not fit comes with its error."""
    fitting = _targets(model)
    return [(path, _read(path, fitting)) for path in loras_in(folder)]


def loras_in(folder: str | Path) -> list[Path]:
    """Return the files and folders of PEFT that lie in a folder, in order; not all may be LoRAs."""
    place = lora_path(folder)
    if not place.is_dir():
        raise LoraError(f"{path_text(place)} must be a folder of LoRAs, and is a file")
    adapters = {path.parent for path in files_of(place) if path.name == CONFIG}
    files = [path for path in files_of(place) if path.suffix.lower() in SUFFIXES]
    return sorted({*adapters, *(path for path in files if not adapters.intersection(path.parents))})


def _read(path: Path, model: Targets) -> LoraInfo | LoraError:
    try:
        return Adapter.open(path, model).info
    except LoraError as error:
        return error


def _targets(model: str | Path | None) -> Targets:
    return official_targets() if model is None else targets(Checkpoint.open(locate(model)))
