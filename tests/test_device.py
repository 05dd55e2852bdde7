"""The device's kind, generation and memory, with devices and control groups played by fakes."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest

from mlx_zimage import device

GB = 1 << 30
NO_LIMIT_V1 = "9223372036854771712\n"
V1 = "sys/fs/cgroup/memory"
V2 = "sys/fs/cgroup"


def _limit(root: Path, groups: str, files: dict[str, str]) -> int | None:
    """The limit in a machine whose /proc/self/cgroup reads `groups`."""
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return device.container_limit(root)


CASES: dict[str, tuple[str, dict[str, str], int | None]] = {
    "v2, its group": ("0::/a/b\n", {f"{V2}/a/b/memory.max": f"{4 * GB}\n"}, 4 * GB),
    "v2, a parent has less": (
        "0::/a/b\n",
        {f"{V2}/a/b/memory.max": f"{4 * GB}\n", f"{V2}/a/memory.max": f"{2 * GB}\n"},
        2 * GB,
    ),
    "v2, only a parent has a limit": (
        "0::/a/b\n",
        {f"{V2}/a/b/memory.max": "max\n", f"{V2}/a/memory.max": f"{3 * GB}\n"},
        3 * GB,
    ),
    "v2, a sibling has a limit": (
        "0::/a/b\n",
        {f"{V2}/a/b/memory.max": "max\n", f"{V2}/a/c/memory.max": f"{GB}\n"},
        None,
    ),
    "v2, max": ("0::/a\n", {f"{V2}/a/memory.max": "max\n"}, None),
    "v2, the top of a namespace": ("0::/\n", {f"{V2}/memory.max": f"{GB}\n"}, GB),
    "v2, a path outside of the mount": ("0::/x/y\n", {f"{V2}/memory.max": f"{GB}\n"}, GB),
    "v2, a path above the mount": (
        "0::/../a\n",
        {f"{V2}/memory.max": f"{2 * GB}\n", f"{V2}/a/memory.max": f"{GB}\n"},
        2 * GB,
    ),
    "v1, its group": (
        "4:memory:/a\n0::/\n",
        {f"{V1}/a/memory.limit_in_bytes": f"{GB}\n", f"{V1}/memory.limit_in_bytes": NO_LIMIT_V1},
        GB,
    ),
    "v1, no limit": ("4:memory:/a\n", {f"{V1}/a/memory.limit_in_bytes": NO_LIMIT_V1}, None),
    "v1, mounted with another controller": (
        "4:hugetlb,memory:/a\n",
        {f"{V1}/a/memory.limit_in_bytes": f"{GB}\n"},
        GB,
    ),
    "v1, a path outside of the mount": (
        "4:memory:/docker/0123\n",
        {f"{V1}/memory.limit_in_bytes": f"{GB}\n"},
        GB,
    ),
    "v1, another controller's limit": (
        "3:cpuset:/a\n4:memory:/b\n",
        {f"{V1}/a/memory.limit_in_bytes": f"{GB}\n"},
        None,
    ),
    "hybrid, memory in v1": (
        "4:memory:/a\n1:name=systemd:/a\n0::/a\n",
        {f"{V1}/a/memory.limit_in_bytes": f"{GB}\n", f"{V2}/unified/a/cgroup.procs": "1\n"},
        GB,
    ),
    "hybrid, memory in v2": ("0::/a\n", {f"{V2}/unified/a/memory.max": f"{GB}\n"}, GB),
    "a colon in the path": ("0::/a:b\n", {f"{V2}/a:b/memory.max": f"{GB}\n"}, GB),
    "no files": ("0::/a\n4:memory:/a\n", {}, None),
    "broken files": ("0::/a\n", {f"{V2}/a/memory.max": "", f"{V2}/memory.max": "a\n"}, None),
    "broken lines": ("\nx\n0:\n0::/a\n", {f"{V2}/a/memory.max": f"{GB}\n"}, GB),
    "a limit of zero": ("0::/a\n", {f"{V2}/a/memory.max": "0\n"}, None),
}


@pytest.mark.parametrize("name", CASES)
def test_container_limit(name: str, tmp_path: Path) -> None:
    groups, files, limit = CASES[name]
    assert _limit(tmp_path, groups, files) == limit


def test_no_control_groups(tmp_path: Path) -> None:
    assert device.container_limit(tmp_path) is None


def test_a_group_whose_name_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_bytes(b"0::/a\xff\n")
    assert _limit_of_top(tmp_path) == GB


def _limit_of_top(root: Path) -> int | None:
    (root / V2).mkdir(parents=True)
    (root / V2 / "memory.max").write_text(f"{GB}\n")
    return device.container_limit(root)


def _machine() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(("limit", "memory"), [(None, None), (GB // 2, GB // 2), (1 << 50, None)])
def test_a_cpu_has_what_its_container_may_use(
    limit: int | None, memory: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mx, "device_info", lambda: {"architecture": "x86_64"})
    monkeypatch.setattr(device, "container_limit", lambda: limit)
    assert device.memory() == (memory or _machine())


@pytest.mark.parametrize(
    "info",
    [
        {"max_recommended_working_set_size": 3 * GB, "memory_size": 4 * GB},
        {"total_memory": 3 * GB},
    ],
)
def test_a_gpu_reports_its_own_memory(
    info: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mx, "device_info", lambda: info)
    monkeypatch.setattr(device, "container_limit", lambda: GB)
    assert device.memory() == 3 * GB


DEVICES: dict[str, tuple[dict[str, Any], str, int | None, tuple[int, int] | None]] = {
    "M1": ({"architecture": "applegpu_g13g"}, "metal", 13, None),
    "M5 Max": ({"architecture": "applegpu_g17s"}, "metal", 17, None),
    "an Apple GPU of another name": ({"architecture": "agx"}, "metal", None, None),
    "A100": ({"architecture": "sm_80"}, "cuda", None, (8, 0)),
    "H100": ({"architecture": "sm_90a"}, "cuda", None, (9, 0)),
    "B200": ({"architecture": "sm_100"}, "cuda", None, (10, 0)),
}


@pytest.mark.parametrize("name", DEVICES)
def test_gpus(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    info, kind, generation, capability = DEVICES[name]
    monkeypatch.setattr(mx, "default_device", lambda: SimpleNamespace(type=mx.DeviceType.gpu))
    monkeypatch.setattr(mx, "device_info", lambda: info)
    assert device.kind() == kind
    assert device.apple_generation() == generation
    assert device.compute_capability() == capability


def test_a_cpu_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx, "default_device", lambda: SimpleNamespace(type=mx.DeviceType.cpu))
    assert device.kind() == "cpu"
    assert device.apple_generation() is None and device.compute_capability() is None
