"""A LoRA's file, or PEFT's folder: opened, and its header read."""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import checks
from ..checks import path_text, reason
from ..errors import CheckpointError, LoraError, RequestError
from ..files import digest, read_json
from ..weights.formats import refuse_pickle
from ..weights.index import PICKLES, files_of
from ..weights.safetensors import Entry, check_unchanged, read_header, read_metadata
from .metadata import PeftConfig, peft_configs
from .targets import COMPONENTS_CHANGED

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
SUFFIXES = (".safetensors", *PICKLES)
"""Endings of files that people keep LoRAs in; pickles are listed with the reason against them."""
RUN, ENCODED = "-training", "encoded"  # the ending of the folder that a run of `train` keeps


@dataclass(frozen=True)
class LoraFile:
    """The header of a LoRA's file, and the config beside it."""

    path: Path  # as it was named: a file, or a folder of PEFT
    file: Path
    entries: Mapping[str, Entry]
    texts: Mapping[str, str]  # the header's metadata
    configs: Mapping[str, PeftConfig]  # of PEFT, by component

    @classmethod
    def open(cls, path: Path) -> "LoraFile":
        """Read the header of a file, or of the file in a folder of PEFT."""
        with lora_errors(path):
            if path.is_dir():
                config = PeftConfig.read(read_json(_config_of(path)), str(path / CONFIG))
                file, configs = _weights_of(path), dict.fromkeys(COMPONENTS_CHANGED, config)
            else:
                file, configs = path, {}
                _refuse_without_config(path)
            _refuse_other_files(file)
            entries, texts = read_header(file), read_metadata(file)
        if not entries:
            raise LoraError(f"{path_text(file)} must hold the tensors of a LoRA, and holds none")
        return cls(path, file, entries, texts, configs or peft_configs(texts, path_text(file)))

    @property
    def size(self) -> int:
        """The bytes of the file when its header was read."""
        return next(iter(self.entries.values())).file.stamp[0]

    def identity(self) -> str:
        """Return the SHA-256 of the file, or of a folder's config and file together."""
        with lora_errors(self.path):
            whole = digest(self.file)
            if self.path.is_dir():
                both = f"{digest(self.path / CONFIG)}{whole}"
                whole = hashlib.sha256(both.encode()).hexdigest()
            check_unchanged(self.file, next(iter(self.entries.values())).file.stamp)
        return whole


@contextlib.contextmanager
def lora_errors(path: Path) -> Iterator[None]:
    """Turn what is wrong with a file into a LoraError of one line."""
    try:
        yield
    except (CheckpointError, RequestError) as error:
        raise LoraError(" ".join(str(error).split())) from error
    except OSError as error:
        raise LoraError(f"{path_text(path)} cannot be read: {reason(error)}") from error


def lora_path(source: object) -> Path:
    """Return the path of a LoRA that is on this machine; of PEFT's file, its folder."""
    with lora_errors(Path()):
        path = checks.path("a LoRA", source)
    try:
        path = path.expanduser()
        exists = path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL byte, no such home
        raise LoraError(f"no such LoRA: {path_text(path)}: {reason(error)}") from error
    if not exists:
        raise LoraError(
            f"no such LoRA: {path_text(path)}; name a .safetensors file, or PEFT's folder"
        )
    is_of_folder = path.name == WEIGHTS and path.is_file() and path.with_name(CONFIG).is_file()
    return path.parent if is_of_folder else path


def _refuse_without_config(file: Path) -> None:
    if file.name == WEIGHTS:
        raise LoraError(
            f"{path_text(file)} is of a folder of PEFT, whose {CONFIG} has its scale and is "
            "missing; put that beside it, or give the file another name if its scale is 1"
        )


def loras_in(folder: str | Path) -> list[Path]:
    """Return the files and folders of PEFT that lie in a folder, in order; not all may be LoRAs."""
    place = lora_path(folder)
    if not place.is_dir():
        raise LoraError(f"{path_text(place)} must be a folder of LoRAs, and is a file")
    adapters = {path.parent for path in files_of(place) if path.name == CONFIG}
    files = [path for path in files_of(place) if path.suffix.lower() in SUFFIXES]
    runs = {parent for path in files for parent in path.parents if _is_run(parent)}
    passed = adapters | runs
    return sorted({*adapters, *(path for path in files if not passed.intersection(path.parents))})


def _is_run(folder: Path) -> bool:
    """Return whether a folder is what `train` keeps beside a LoRA, which holds none itself."""
    return folder.name.endswith(RUN) and (folder / ENCODED).is_dir()


def _refuse_other_files(file: Path) -> None:
    if file.suffix.lower() in PICKLES:
        raise LoraError(
            f"{path_text(file)} is a pickle by its name, which can run any program when it is "
            "read, and is never loaded; look for the .safetensors file of the same LoRA"
        )
    if refuse_pickle(file).startswith(b"GGUF"):
        raise LoraError(
            f"{path_text(file)} is a GGUF file, which is not read as a LoRA; "
            "look for the .safetensors file of the same LoRA"
        )


def _config_of(folder: Path) -> Path:
    config = folder / CONFIG
    if not config.is_file():
        files = sorted(file for file in folder.glob("*.safetensors") if file.name != WEIGHTS)
        advice = f"a file in it, such as {files[0].name}" if files else "a .safetensors file"
        raise LoraError(
            f"{path_text(folder)} must hold PEFT's {CONFIG}, which is missing; name {advice}"
        )
    return config


def _weights_of(folder: Path) -> Path:
    weights = folder / WEIGHTS
    if not weights.is_file():
        pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
        why = f"; {pickles[0]} is a pickle, which is never loaded" if pickles else ""
        raise LoraError(
            f"{path_text(folder)} must hold {WEIGHTS} in one file, which is missing{why}"
        )
    return weights
