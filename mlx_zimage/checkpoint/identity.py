"""The identity of a checkpoint's weights, to tell whether two pictures come from the same model.

Hashing 33 GB takes minutes. A file is identified by its size, its header and samples of its data,
spread evenly over it: different weights differ in almost all of their bytes.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from ..errors import CheckpointError
from ..files import AGAIN

SAMPLES, SAMPLE = 16, 4096  # how many, and bytes of each


def identity(files: Iterable[Path]) -> str:
    """Return a short hash of weight files, whatever their names and places."""
    return _combined(_of_file(file) for file in {*files} if file.is_file())


def _of_file(file: Path) -> str:
    digest = hashlib.sha256()
    try:
        size = file.stat().st_size
        digest.update(size.to_bytes(8, "big"))
        with file.open("rb") as handle:
            for number in range(SAMPLES + 1):
                handle.seek(max(size - SAMPLE, 0) * number // SAMPLES)
                digest.update(handle.read(SAMPLE))
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error}; {AGAIN}") from error
    return digest.hexdigest()


def _combined(hashes: Iterable[str]) -> str:
    return hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()[:16]
