"""The way from a LoRA's source to its path: a file, a name in a LoRA folder, or one on the Hub."""

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from ..checks import excerpt, path_text, reason
from ..errors import DownloadError, LoraError
from ..events import Downloaded
from .source import Lora

if TYPE_CHECKING:
    from ..hub.single import HubFile

VARIABLE = "MLX_ZIMAGE_LORAS"
"""The environment variable with the LoRA folders, separated as in PATH."""
ENDING = ".safetensors"


@dataclass(frozen=True)
class Library:
    """Folders in which LoRAs are known by their names."""

    folders: tuple[Path, ...]

    @classmethod
    def open(cls, folder: str | Path | None = None) -> "Library":
        """Open a folder; those of the environment are looked into after it."""
        named = [] if folder is None else [Path(folder).expanduser()]
        for place in named:
            if not place.is_dir():
                raise LoraError(f"the LoRA folder {path_text(place)} is not there")
        listed = os.environ.get(VARIABLE, "").split(os.pathsep)
        return cls((*named, *(Path(text).expanduser() for text in listed if text)))

    def locating(
        self, source: str | Path, *, download: bool = False
    ) -> Generator[Downloaded, None, Path]:
        """Return the path of a LoRA, which is fetched from the Hub only if `download` is true."""
        path = self.find(source)
        if path is not None:
            return path
        remote = _on_hub(source)
        if remote is not None and (path := remote.cached()) is not None:
            return path
        self._refuse_scale(str(source))
        near = "" if download else self._near(str(source))
        if remote is None or near:
            advice = near or (
                f"name a {ENDING} file, a folder of PEFT, owner/repo/file on the Hub, or a name "
                "in the LoRA folder"
            )
            raise LoraError(f"no such LoRA: {path_text(source)}; {advice}")
        if not download:
            raise DownloadError(
                f"{path_text(source)} is no file here, and not in the Hub's cache; allow the "
                f"download of {remote} (--download), or correct the path"
            )
        return (yield from remote.fetching())

    def has(self, source: str | Path) -> bool:
        """Return whether a LoRA is on this machine."""
        with suppress(LoraError):
            remote = _on_hub(source)
            return self.find(source) is not None or (
                remote is not None and remote.cached() is not None
            )
        return False

    def find(self, source: str | Path) -> Path | None:
        """Return the path of a LoRA on this machine, outside of the Hub's cache."""
        try:
            path = Path(source).expanduser()
            if path.exists():
                return path
            for folder in self.folders:
                for name in (str(source), f"{source}{ENDING}"):
                    if (folder / name).exists():
                        return folder / name
        except (OSError, ValueError, RuntimeError) as error:  # too long, no such home
            raise LoraError(f"no such LoRA: {path_text(source)}: {reason(error)}") from error
        return None

    def names(self) -> Iterator[str]:
        """Yield the names of all LoRAs in the folders."""
        from .file import loras_in

        for folder in self.folders:
            for path in loras_in(folder) if folder.is_dir() else ():
                yield path.relative_to(folder).as_posix().removesuffix(ENDING)

    def _refuse_scale(self, source: str) -> None:
        """Raise where a LoRA that is here comes with a scale which is no number."""
        name, colon, scale = source.rpartition(":")
        if colon and name and self.find(name) is not None:
            raise LoraError(
                f"a LoRA's scale must be a number, as in {path_text(name)}:0.8, not "
                f"{excerpt(scale)}"
            )

    def _near(self, source: str) -> str:
        """Name LoRAs that are nearly called so, if there are any."""
        folder = Path(source).parent
        beside = [*folder.glob(f"*{ENDING}")] if folder.is_dir() else []
        names = {file.name: str(file) for file in beside} | {name: name for name in self.names()}
        near = get_close_matches(Path(source).name, names, 3) or get_close_matches(source, names, 3)
        listed = " or ".join(path_text(names[name]) for name in near)
        return f"did you mean {listed}?" if near else ""


def is_on_hub(library: Library, loras: Sequence[Lora]) -> bool:
    """Return whether one of these LoRAs is named as one on the Hub."""
    return any(
        library.find(lora.source) is None and _on_hub(lora.source) is not None for lora in loras
    )


def _on_hub(source: str | Path) -> "HubFile | None":
    """Return what a source names on the Hub, or None where it can only be a path."""
    from ..hub.single import HubFile  # not needed where all is on this machine

    return HubFile.parse(source) if isinstance(source, str) else None
