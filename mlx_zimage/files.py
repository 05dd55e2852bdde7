"""Files that appear whole or not at all, and never replace another unasked."""

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .errors import CheckpointError, RequestError

AGAIN = "copy or download it again"


def check_writable(path: Path, suffix: str, *, overwrite: bool = False) -> None:
    """Fail before the work rather than after it."""
    if path.suffix.lower() != suffix and not path.is_dir():
        raise RequestError(f"the output must end in {suffix}, not {path.name!r}")
    write_atomically(path, None, overwrite=overwrite)


def write_atomically(
    path: Path, write: Callable[[BinaryIO], object] | None, *, overwrite: bool = False
) -> None:
    """Write beside `path`, then move into place; without `write`, only try whether one could."""
    temporary = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        if path.is_dir():
            raise RequestError(f"cannot write {path}: it is a folder; name a file")
        if _there(path) and not overwrite:
            raise _exists(path)
        with temporary.open("xb") as file:
            if write is not None:
                write(file)
        if write is not None:
            _publish(temporary, path, overwrite)
    except OSError as error:
        raise RequestError(f"cannot write {path}: {error.strerror or error}") from error
    except ValueError as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"cannot write {path}: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def save_array(array: np.ndarray, path: Path, *, overwrite: bool = False) -> None:
    """A .npy file."""
    write_atomically(path, lambda file: np.save(file, array), overwrite=overwrite)


def _there(path: Path) -> bool:
    """Like `Path.exists`, but a name that cannot be is an error, and a dangling link is there."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _exists(path: Path) -> RequestError:
    return RequestError(f"{path} exists already; name another file, or ask to overwrite it")


def _publish(temporary: Path, path: Path, overwrite: bool) -> None:
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


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a checkpoint's folder."""
    try:
        data = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{file} is missing; {AGAIN}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}; {AGAIN}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{file} must hold a JSON object; {AGAIN}")
    return data


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def digest(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as handle:
        while piece := handle.read(1 << 22):
            found.update(piece)
    return found.hexdigest()
