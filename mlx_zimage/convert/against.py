"""A folder held against the files that a model was published with."""

import os
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import CheckpointError, DownloadError
from ..files import read_json
from ..hub.download import failure, list_files, needed_files
from ..hub.locate import MODEL_INDEX, NAMES, check_revision, offline, repo_of
from ..hub.published import File, Published, read_list
from ..weights.index import files_of

SAVE = "save the list where there is a network: mlx-zimage verify FOLDER --against {} --save FILE"


@dataclass(frozen=True)
class FileState:
    """The state of a published file in a folder; `reason` says it in words."""

    name: str
    state: Literal["ok", "missing", "damaged", "changed", "extra"]
    reason: str


def list_published(
    source: str | Path, revision: str | None = None, *, folder: Path | None = None
) -> Published:
    """Return the files of a Hub repo, or those in a list that was saved earlier.

    Without a revision, that of `folder` is meant where it lies in the Hub's cache.
    """
    check_revision(revision)
    if source not in NAMES and os.path.isfile(source):
        return read_list(Path(source))
    repo = repo_of(source)
    if revision is None and folder is not None:
        revision = _commit(folder, repo)
    if variable := offline():
        raise DownloadError(f"{repo} cannot be asked: {variable} is set; {SAVE.format(source)}")
    try:
        return list_files(repo, revision)
    except Exception as error:  # each version of the library raises those of its own HTTP client
        raise failure(repo, revision, error, SAVE.format(source)) from error


def verify_published(folder: Path, published: Published) -> Generator[FileState, None, None]:
    """Compare each published file with the folder's; raise at the end where any differs.

    Files that no generation needs, such as a repo's pictures, may be missing.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder; name one that holds published files")
    index = folder / MODEL_INDEX
    names = [file.name for file in published.files]
    needed = needed_files(names, read_json(index) if index.is_file() else {})
    count: Counter[str] = Counter()
    for file in sorted(published.files, key=lambda file: file.name):
        state = _compared(folder / file.name, file)
        if state.state != "missing" or file.name in needed:
            count[state.state] += 1
            yield state
    for path in files_of(folder):
        if (name := path.relative_to(folder).as_posix()) not in names:
            yield FileState(name, "extra", "extra: nothing is published by this name")
    if not count.total() - count["missing"]:
        raise CheckpointError(f"{folder} holds no file of {published.source}")
    if wrong := count.total() - count["ok"]:
        kinds = ", ".join(f"{n} {state}" for state, n in sorted(count.items()) if state != "ok")
        raise CheckpointError(
            f"{wrong} of {count.total()} files are not those of {published.source}: {kinds}; "
            "remove the wrong ones and fetch them again"
        )


def _compared(path: Path, file: File) -> FileState:
    try:
        if not path.is_file():
            return FileState(file.name, "missing", "missing")
        size = path.stat().st_size
        if file.size is not None and size != file.size:
            reason = f"damaged: {size:,} bytes, {file.size:,} are published"
            return FileState(file.name, "damaged", reason + _place(path))
        if not file.is_in(path):
            reason = f"changed: its {(file.algorithm or '').upper()} is not the published one"
            return FileState(file.name, "changed", reason + _place(path))
    except OSError as error:
        return FileState(file.name, "damaged", f"damaged: {error.strerror or error}{_place(path)}")
    return FileState(file.name, "ok", "ok" if file.hash else "ok by its size")


def _place(path: Path) -> str:
    """Return where the bytes of a wrong file are, if the file is a link to them."""
    real = os.path.realpath(path)
    return f" ({real})" if path.is_symlink() else ""


def _commit(folder: Path, repo: str) -> str | None:
    """Return the commit whose files a folder of the Hub's cache holds, if it is of this repo."""
    place = folder.absolute()
    is_of_repo = place.parents[1].name == f"models--{repo.replace('/', '--')}"
    return place.name if is_of_repo and place.parent.name == "snapshots" else None
