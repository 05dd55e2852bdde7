"""A fast BLAS for MLX on a Linux CPU: imported before MLX is, this puts OpenBLAS in its place.

MLX's wheel for Linux links the reference BLAS, 80 times slower. Symbols that are loaded first win,
so OpenBLAS is loaded, where the machine has it, for all to see. MLX_ZIMAGE_OPENBLAS=0 keeps it out.
"""

import ctypes
import os
import sys
from contextlib import suppress

LIBRARY = "libopenblas.so.0"

if sys.platform == "linux" and os.environ.get("MLX_ZIMAGE_OPENBLAS") != "0":
    with suppress(OSError):  # it is not there
        ctypes.CDLL(LIBRARY, mode=ctypes.RTLD_GLOBAL)
