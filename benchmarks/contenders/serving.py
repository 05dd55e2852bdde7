"""How a contender is asked: it says that it is ready, makes one run for each line it gets, and ends
with its peaks. Standard library alone, as each contender runs in an environment of its own."""

import ctypes
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any


def case() -> dict[str, Any]:
    """What to run: stage, side, batch, tokens, layers, dtype, quantize."""
    if sys.platform == "linux" and os.environ.get("MLX_ZIMAGE_OPENBLAS") != "0":
        with suppress(OSError):  # for every MLX alike, before it is imported
            ctypes.CDLL("libopenblas.so.0", mode=ctypes.RTLD_GLOBAL)
    return dict(json.loads(sys.argv[1]))


def serve(
    run: Callable[[], None], peak: Callable[[], int | None], versions: dict[str, str]
) -> None:
    """`run` returns when its result is there; `peak` says the library's own count of bytes."""
    run()  # what is compiled or measured once is so now
    _say({"ready": True, "versions": versions})
    for _ in sys.stdin:
        begun = time.perf_counter()
        run()
        _say({"seconds": time.perf_counter() - begun})
    unit = 1 if sys.platform == "darwin" else 1024
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    _say({"peak": peak(), "peak_rss": rss})


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)
