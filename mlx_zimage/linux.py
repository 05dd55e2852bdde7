"""What MLX lacks on a Linux CPU: a fast BLAS, and memory that is kept for the next array.

MLX's wheel for Linux links the reference BLAS, 80 times slower. Symbols that are loaded first win,
so OpenBLAS is loaded, where the machine has it, for all to see; this module is imported before MLX
is. MLX_ZIMAGE_OPENBLAS=0 keeps it out.

On a GPU MLX keeps freed arrays for the next ones. Here they go to malloc, and glibc's hands large
ones back to the kernel, which clears every page anew: a quarter of a step. It is told to keep them,
until a part is dropped. MLX_ZIMAGE_MALLOC=0 leaves it as it is.
"""

import ctypes
import os
import sys
from contextlib import suppress

LIBRARY = "libopenblas.so.0"
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt's names for them
MOST = (1 << 31) - 1  # bytes

_glibc: ctypes.CDLL | None = None

if sys.platform == "linux":
    if os.environ.get("MLX_ZIMAGE_OPENBLAS") != "0":
        with suppress(OSError):  # it is not there
            ctypes.CDLL(LIBRARY, mode=ctypes.RTLD_GLOBAL)
    if os.environ.get("MLX_ZIMAGE_MALLOC") != "0":
        with suppress(OSError, AttributeError):  # another libc
            _glibc = ctypes.CDLL("libc.so.6")
            _glibc.mallopt(MMAP_THRESHOLD, MOST)
            _glibc.mallopt(TRIM_THRESHOLD, MOST)


def give_back() -> None:
    """What is kept, to the kernel."""
    if _glibc is not None:
        _glibc.malloc_trim(0)
