"""The files that `generate` reads and writes: their names, and what is checked before the work."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import Request, RequestError, Result, check_outputs, replay, save_array, save_picture
from .parsing import UsageError
from .values import shown

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".avif")
ARRAYS = (".npy",)


@dataclass(frozen=True)
class Outputs:
    """A file for each picture, and for the arrays of a single one."""

    pictures: tuple[Path, ...]
    latents: Path | None
    embeds: Path | None
    overwrite: bool
    metadata: bool = True

    @classmethod
    def plan(
        cls,
        output: str | None,
        tags: Sequence[int | str | None],
        latents: Path | None,
        embeds: Path | None,
        overwrite: bool,
        *,
        numbered: bool = False,
        suffix: str = ".png",
        skip: bool = False,
        metadata: bool = True,
    ) -> "Outputs":
        """Return the files' names, after checking that each can be written.

        `tags` has one for each picture: its seed, None where initial latents take its place, or
        its prompt's number and words where pictures are numbered. `suffix` ends default names.
        With `skip`, names that are taken are as good as others.
        """
        arrays = [file for file in (latents, embeds) if file is not None]
        if arrays and len(tags) > 1:
            raise UsageError("--save-latents and --save-embeds are for one picture; give one seed")
        pictures = _pictures(output, tags, suffix, free=not (overwrite or skip), all_=numbered)
        checked = [file for file in pictures if not (skip and file.exists())]
        files = [*((file, PICTURES) for file in checked), *((file, ARRAYS) for file in arrays)]
        check_outputs(files, overwrite=overwrite)
        return cls(tuple(pictures), latents, embeds, overwrite, metadata)

    def save(self, result: Result, place: int) -> Path:
        """Write a picture and its arrays; return the picture's file."""
        file = self.pictures[place]
        metadata = result.metadata if self.metadata else None
        save_picture(result.image, file, metadata, overwrite=self.overwrite)
        if self.latents is not None:
            save_array(result.latents, self.latents, overwrite=self.overwrite)
        if self.embeds is not None:
            save_array(result.prompt_embeds, self.embeds, overwrite=self.overwrite)
        return file

    def has(self, place: int, request: Request) -> bool:
        """Return whether a picture is there already; raise if it is one of another request."""
        file = self.pictures[place]
        if not file.exists():
            return False
        if self.metadata and not replay(file).agrees(request):
            raise RequestError(
                f"{file} holds a picture of another request; name another file, or pass "
                "overwrite=True"
            )
        return True


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


def _pictures(
    output: str | None, tags: Sequence[int | str | None], suffix: str, *, free: bool, all_: bool
) -> list[Path]:
    """Return a name for each tag; a single picture takes the output's, unless `all_` have tags."""
    if output == "":
        raise UsageError("--output must name a file or a folder, not ''")
    folder = Path(output or ".")
    if output is None or output.endswith(("/", os.sep)) or _is_folder(folder):
        words = ["latents" if tag is None else tag for tag in tags]
        names = [folder / f"zimage-{word}{suffix}" for word in words]
        return [_free(name) for name in names] if free else names
    if not folder.suffix:
        kinds = ", ".join(PICTURES)
        raise UsageError(
            f"--output must end in one of {kinds}, or in / for a folder, not {shown(output)}"
        )
    if len(tags) == 1 and not all_:
        return [folder]
    return [folder.with_stem(f"{folder.stem}-{tag}") for tag in tags]


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
