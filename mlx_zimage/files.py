"""Output files that appear complete or not at all, and JSON and hashes of a checkpoint's files."""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from . import checks
from .checks import path_text, reason
from .errors import CheckpointError, RequestError

if TYPE_CHECKING:
    import mlx.core as mx

AGAIN = "copy or download it again"


def check_output(
    path: str | Path, suffixes: str | Sequence[str], *, overwrite: bool = False
) -> None:
    """Raise a RequestError unless a file can be written to `path`, before the work is done.

    `suffixes` are the endings that its name may have. Folders may be missing, as
    `write_atomically` makes them; the check itself leaves nothing behind.
    """
    path = checks.path("the output", path)
    allowed = (suffixes,) if isinstance(suffixes, str) else tuple(suffixes)
    with _request_errors(path):
        if path.suffix.lower() not in allowed and not path.is_dir():
            *others, last = allowed
            listed = f"{', '.join(others)} or {last}" if others else last
            raise RequestError(f"the output must end in {listed}, not {checks.excerpt(path.name)}")
        _check_target(path, overwrite)
        missing = _missing_folders(path)
        place = missing[-1].parent if missing else path.parent
        for name in (path.name, *(folder.name for folder in missing)):
            with contextlib.suppress(FileNotFoundError):
                (place / name).lstat()  # fails for a name that this file system does not take
        trial = _temporary(place)
        trial.open("xb").close()
        trial.unlink()


def check_outputs(
    outputs: Iterable[tuple[str | Path, str | Sequence[str]]], *, overwrite: bool = False
) -> None:
    """Check each (path, suffixes) as `check_output` does, and that no two are the same file."""
    places: dict[str, str | Path] = {}
    for path, suffixes in outputs:
        check_output(path, suffixes, overwrite=overwrite)
        place = os.path.realpath(path)
        if sys.platform == "darwin":  # its file systems ignore case unless formatted otherwise
            place = place.casefold()
        if place in places:
            raise RequestError(
                f"{path_text(places[place])} and {path_text(path)} are the same file; "
                "give each output a name of its own"
            )
        places[place] = path


def write_atomically(
    path: Path, write: Callable[[BinaryIO], object], *, overwrite: bool = False
) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place.

    Missing folders are made. A failure leaves neither a file nor a new folder.
    """
    temporary, new_folders, complete = _temporary(path.parent), list[Path](), False
    try:
        with _request_errors(path):
            _check_target(path, overwrite)
            for folder in reversed(_missing_folders(path)):
                folder.mkdir(exist_ok=True)
                new_folders.insert(0, folder)
            with temporary.open("xb") as file:
                write(file)
            _publish(temporary, path, overwrite)
            complete = True
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        for folder in () if complete else new_folders:
            with contextlib.suppress(OSError):  # another program may have put a file into it
                folder.rmdir()


def save_array(
    array: "np.ndarray | mx.array", path: str | Path, *, overwrite: bool = False
) -> None:
    """Write a .npy file; MLX's arrays are written as float32."""
    path, values = checks.path("the output", path), np.asarray(checks.from_mlx(array))
    write_atomically(path, lambda file: np.save(file, values), overwrite=overwrite)


def read_json(file: Path) -> dict[str, Any]:
    """Return the JSON object in one of a checkpoint's files."""
    try:
        data = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path_text(file)} is missing; {AGAIN}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path_text(file)} cannot be read: {reason(error)}; {AGAIN}"
        ) from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path_text(file)} must hold a JSON object; {AGAIN}")
    return data


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object, and the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def digest(file: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    sha256 = hashlib.sha256()
    with file.open("rb") as handle:
        while block := handle.read(1 << 22):
            sha256.update(block)
    return sha256.hexdigest()


@contextlib.contextmanager
def _request_errors(path: Path) -> Iterator[None]:
    """Turn what the file system, or a writer of values, refuses into a RequestError."""
    try:
        yield
    except RequestError:
        raise
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot write {path_text(path)}: {reason(error)}") from error


def _check_target(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise RequestError(f"cannot write {path_text(path)}: it is a folder; name a file")
    if path.exists() and not path.is_file():
        raise RequestError(f"cannot write {path_text(path)}: it is a device, not a file")
    try:
        path.lstat()  # unlike Path.exists, also sees a link that leads nowhere
    except (FileNotFoundError, NotADirectoryError):
        return
    if not overwrite:
        raise _taken(path)


def _taken(path: Path) -> RequestError:
    return RequestError(
        f"{path_text(path)} exists already; name another file, or pass overwrite=True"
    )


def _missing_folders(path: Path) -> list[Path]:
    """Return the folders above `path` that do not exist, the deepest first."""
    return [folder for folder in path.parents if not os.path.lexists(folder)]


def _temporary(folder: Path) -> Path:
    return folder / f".{os.urandom(8).hex()}.part"


def _publish(temporary: Path, path: Path, overwrite: bool) -> None:
    if not overwrite:
        try:
            os.link(temporary, path)  # unlike a rename, fails if `path` has appeared meanwhile
            return
        except FileExistsError:
            raise _taken(path) from None
        except OSError:  # a file system without hard links
            if path.exists():
                raise _taken(path) from None
    os.replace(temporary, path)
