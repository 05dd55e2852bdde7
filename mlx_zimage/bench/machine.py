"""The machine of a measurement: its hardware, its software, and its rate of matrix products."""

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

from .. import device
from ..version import __version__

GEMM = (4096, 3840, 10240)  # the feed-forward of the real model, at 1024x1024
GEMM_RUNS = 3


def describe() -> dict[str, Any]:
    """Describe this machine for a report, without the name of a user or a host."""
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
    """Return a command line for a report, with the last name alone of each path."""
    shown = []
    for word in words:
        name, equals, value = word.rpartition("=")
        path = Path(value)
        is_path = path.is_absolute() or value.startswith((".", "~")) or path.exists()
        shown.append(f"{name}{equals}{path.name if is_path else value}")
    return shown


def gemm_rate(dtype: mx.Dtype) -> float:
    """Measure the floating-point operations a second of one large matrix product."""
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
