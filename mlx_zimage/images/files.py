"""Files that appear whole or not at all, and never replace another unasked."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import RequestError


def check_writable(path: Path, suffix: str, *, overwrite: bool = False) -> None:
    """Fail before the work rather than after it."""
    if path.is_dir():
        raise RequestError(f"cannot write {path}: it is a folder; name a file")
    if path.suffix.lower() != suffix:
        raise RequestError(f"the output must end in {suffix}, not {path.name!r}")
    if path.exists() and not overwrite:
        raise _exists(path)
    write_atomically(path, None, overwrite=overwrite)


def write_atomically(
    path: Path, write: Callable[[BinaryIO], None] | None, *, overwrite: bool = False
) -> None:
    """Write beside `path`, then move into place; without `write`, only try whether one could."""
    temporary = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=".part", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            if write is not None:
                write(file)
        if write is not None:
            _publish(temporary, path, overwrite)
    except OSError as error:
        raise RequestError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def save_array(array: np.ndarray, path: Path, *, overwrite: bool = False) -> None:
    """A .npy file."""
    write_atomically(path, lambda file: np.save(file, array), overwrite=overwrite)


def _exists(path: Path) -> RequestError:
    return RequestError(f"{path} exists already; name another file, or ask to overwrite it")


def _publish(temporary: Path, path: Path, overwrite: bool) -> None:
    mask = os.umask(0)
    os.umask(mask)
    temporary.chmod(0o666 & ~mask)  # mkstemp's files are private
    if not overwrite:
        try:
            os.link(temporary, path)  # fails if `path` has appeared meanwhile, unlike a rename
            return
        except FileExistsError:
            raise _exists(path) from None
        except OSError:  # a file system without hard links
            if path.exists():
                raise _exists(path) from None
    os.replace(temporary, path)
