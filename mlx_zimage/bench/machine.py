"""What was measured on: the machine, its software, and how fast it multiplies matrices."""

import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx

from .. import __version__, device

GEMM = (4096, 3840, 10240)  # the feed-forward of the real model, at 1024x1024
GEMM_RUNS = 3


def describe() -> dict[str, Any]:
    """For a report: no name of a user or a host in it."""
    info = mx.device_info()
    return {
        "chip": _chip(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "device": str(mx.default_device().type).removeprefix("DeviceType."),
        "device_memory_gb": round(device.memory() / 1e9, 1),
        "device_name": str(info.get("device_name", "")),
        "architecture": str(info.get("architecture", "")),
        "os": f"{platform.system()} {platform.mac_ver()[0] or platform.release()}",
        "python": platform.python_version(),
        "mlx": version("mlx"),
        "mlx_zimage": __version__,
    }


def command(*words: str) -> list[str]:
    """For a report: of a path on this machine, its last name alone."""
    found = []
    for word in words:
        name, equals, value = word.rpartition("=")
        path = Path(value)
        is_path = path.is_absolute() or value.startswith((".", "~")) or path.exists()
        found.append(f"{name}{equals}{path.name if is_path else value}")
    return found


def gemm_rate(dtype: mx.Dtype) -> float:
    """Floating-point operations a second in one large matrix product, the best of some."""
    rows, inner, columns = GEMM
    a, b = mx.ones((rows, inner), dtype), mx.ones((inner, columns), dtype)
    mx.eval(a, b)
    seconds = []
    for _ in range(GEMM_RUNS):
        begun = time.perf_counter()
        mx.eval(a @ b)
        seconds.append(time.perf_counter() - begun)
    return 2 * rows * inner * columns / min(seconds)


def _chip() -> str:
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
