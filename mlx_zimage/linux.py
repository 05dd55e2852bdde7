"""Two things that MLX lacks on a Linux CPU: a fast BLAS, and memory kept for the next array.

MLX's wheel for Linux links the reference BLAS, 80 times slower. Symbols that are loaded first win,
so OpenBLAS is loaded, where the machine has it, for all to see; this module is imported before MLX
is. MLX_ZIMAGE_OPENBLAS=0 keeps it out.

On a GPU MLX keeps freed arrays for the next ones. On a Linux CPU they go to malloc, and glibc's
hands large ones back to the kernel, which clears every page anew: a quarter of a step. A program
calls `keep_freed_memory`, as that changes malloc for its whole process; a library must not.
MLX_ZIMAGE_MALLOC=0 keeps malloc as it is.
"""

import ctypes
import os
import sys
from contextlib import suppress

OPENBLAS = "libopenblas.so.0"
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt's names for them
MOST = (1 << 31) - 1  # bytes

if sys.platform == "linux" and os.environ.get("MLX_ZIMAGE_OPENBLAS") != "0":
    with suppress(OSError):  # the machine does not have it
        ctypes.CDLL(OPENBLAS, mode=ctypes.RTLD_GLOBAL)


def keep_freed_memory() -> None:
    """Make malloc keep freed memory for this process's next arrays, until `give_back`."""
    if (libc := _glibc()) is not None:
        libc.mallopt(MMAP_THRESHOLD, MOST)
        libc.mallopt(TRIM_THRESHOLD, MOST)


def give_back() -> None:
    """Return freed memory to the kernel."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """Return the C library, where it is glibc and may be told how to keep memory."""
    if sys.platform == "linux" and os.environ.get("MLX_ZIMAGE_MALLOC") != "0":
        with suppress(OSError):
            libc = ctypes.CDLL("libc.so.6")
            if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim"):
                return libc
    return None
