"""The device that MLX computes on: its kind, its generation and its memory.

Decisions that differ between devices ask here, so that a test can stand in for a device by
replacing `mx.default_device` and `mx.device_info`.
"""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Literal

import mlx.core as mx

from . import linux

Kind = Literal["cpu", "metal", "cuda"]
NO_LIMIT = 1 << 60  # bytes: control groups write a number near 2^63 where they set no limit


def kind() -> Kind:
    """Return what MLX's default device is."""
    if mx.default_device().type != mx.DeviceType.gpu:
        return "cpu"
    return "cuda" if str(mx.device_info().get("architecture", "")).startswith("sm_") else "metal"


def apple_generation() -> int | None:
    """Return an Apple GPU's generation (13 for M1, 14 for M2, ...), where it says one."""
    if kind() != "metal":
        return None
    match = re.match(r"applegpu_g(\d+)", str(mx.device_info().get("architecture", "")))
    return int(match[1]) if match else None


def compute_capability() -> tuple[int, int] | None:
    """Return a CUDA device's compute capability: (8, 0) for an A100."""
    if kind() != "cuda":
        return None
    match = re.fullmatch(r"sm_(\d+)(\d)[a-z]?", str(mx.device_info().get("architecture", "")))
    return (int(match[1]), int(match[2])) if match else None


def memory() -> int:
    """Return the bytes that the device may use.

    Metal and CUDA report their own; a CPU has the machine's memory, or what a container may use.
    """
    info = mx.device_info()
    for key in ("max_recommended_working_set_size", "memory_size", "total_memory"):
        if isinstance(value := info.get(key), int):
            return value
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(machine, container_limit() or machine)


def give_back() -> None:
    """Return to the system what freed arrays leave behind, on a GPU and on a Linux CPU."""
    mx.clear_cache()
    linux.give_back()


def container_limit(root: Path = Path("/")) -> int | None:
    """Return the memory limit of this process's control groups (v1 or v2), the lowest of them."""
    lines: list[str] = []
    with suppress(OSError):  # no control groups: macOS, or a container that hides them
        lines = (root / "proc/self/cgroup").read_text("utf-8", "surrogateescape").splitlines()
    limits = []
    for line in [line for line in lines if line.count(":") > 1]:
        _, controllers, group = line.split(":", 2)
        mounts: tuple[str, ...]
        if controllers == "":
            mounts, name = ("sys/fs/cgroup", "sys/fs/cgroup/unified"), "memory.max"
        elif "memory" in controllers.split(","):
            mounts, name = ("sys/fs/cgroup/memory",), "memory.limit_in_bytes"
        else:
            continue
        # A parent's limit holds for its children. Inside a container the group's path may lie
        # outside of what is mounted; then the mount's top is the container's group.
        steps = [] if ".." in group.split("/") else group.strip("/").split("/")
        places = [
            root.joinpath(mount, *steps[:n]) for mount in mounts for n in range(len(steps) + 1)
        ]
        for place in places:
            with suppress(OSError, ValueError):  # no such group; "max"
                limits.append(int((place / name).read_text("utf-8")))
    return min((limit for limit in limits if 0 < limit < NO_LIMIT), default=None)
