"""The files that `generate` reads and writes: their names, and what is checked before the work."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import RequestError, Result, check_outputs, save_array, save_picture
from .parsing import UsageError
from .values import shown

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
ARRAYS = (".npy",)


@dataclass(frozen=True)
class Outputs:
    """A file for each picture, and for the arrays of a single one."""

    pictures: tuple[Path, ...]
    latents: Path | None
    embeds: Path | None
    overwrite: bool

    @classmethod
    def plan(
        cls,
        output: str | None,
        seeds: Sequence[int | None],
        latents: Path | None,
        embeds: Path | None,
        overwrite: bool,
    ) -> "Outputs":
        """Return the files' names, after checking that each can be written.

        `seeds` has one for each picture; None where initial latents take its place.
        """
        arrays = [file for file in (latents, embeds) if file is not None]
        if arrays and len(seeds) > 1:
            raise UsageError("--save-latents and --save-embeds are for one picture; give one seed")
        pictures = _pictures(output, seeds, overwrite)
        files = [*((file, PICTURES) for file in pictures), *((file, ARRAYS) for file in arrays)]
        check_outputs(files, overwrite=overwrite)
        return cls(tuple(pictures), latents, embeds, overwrite)

    def save(self, result: Result) -> Path:
        """Write a picture and its arrays; return the picture's file."""
        file = self.pictures[result.job]
        save_picture(result.image, file, result.metadata, overwrite=self.overwrite)
        if self.latents is not None:
            save_array(result.latents, self.latents, overwrite=self.overwrite)
        if self.embeds is not None:
            save_array(result.prompt_embeds, self.embeds, overwrite=self.overwrite)
        return file


def read_array(file: Path | None) -> np.ndarray | None:
    """Return the array in a .npy file."""
    if file is None:
        return None
    try:
        array = np.load(file, allow_pickle=False)
    except Exception as error:  # a broken header can raise anything that Python's parser does
        damaged = "it is damaged, or no .npy file of numbers"
        reason = getattr(error, "strerror", None) or damaged
        raise RequestError(f"{file} cannot be read as a .npy array: {reason}") from error
    if not isinstance(array, np.ndarray):
        raise RequestError(f"{file} must be one .npy array, not an archive of several")
    return array


def _pictures(output: str | None, seeds: Sequence[int | None], overwrite: bool) -> list[Path]:
    if output == "":
        raise UsageError("--output must name a file or a folder, not ''")
    folder = Path(output or ".")
    if output is None or output.endswith(("/", os.sep)) or _is_folder(folder):
        names = [folder / f"zimage-{'latents' if seed is None else seed}.png" for seed in seeds]
        return names if overwrite else [_free(name) for name in names]
    if not folder.suffix:
        kinds = ", ".join(PICTURES)
        raise UsageError(
            f"--output must end in one of {kinds}, or in / for a folder, not {shown(output)}"
        )
    if len(seeds) == 1:
        return [folder]
    return [folder.with_stem(f"{folder.stem}-{seed}") for seed in seeds]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that is too long, or holds a NUL byte
        return False


def _free(file: Path) -> Path:
    """Return a default name, with a number where it is taken."""
    number, free = 1, file
    while os.path.lexists(free):
        number += 1
        free = file.with_stem(f"{file.stem}-{number}")
    return free
