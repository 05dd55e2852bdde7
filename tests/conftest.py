"""Full float32 on every backend, said before MLX is imported; and what the tests share."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("MLX_ENABLE_TF32", "0")
if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has one core
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
from mlx_zimage.hub.locate import DEMO
from mlx_zimage.linux import keep_freed_memory
from tests.make_checkpoint import KINDS, write_checkpoint

keep_freed_memory()  # as every program does
MEASURED = "measured"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A kind of random checkpoint, written once, or the demo. Tests must not change it."""
    written: dict[str, Path] = {"demo": DEMO}

    def folder(kind: str) -> Path:
        if kind not in written:
            written[kind] = write_checkpoint(tmp_path_factory.mktemp("ck") / kind, KINDS[kind])
        return written[kind]

    return folder


@pytest.fixture(scope="session")
def full_width(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The full-width checkpoint: 4 GB, removed afterwards."""
    import shutil

    folder = write_checkpoint(tmp_path_factory.mktemp("full") / "ck", KINDS["full-width"])
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Callable[[str, float, float], None]:
    """Hold an error against its limit, and show the worst of each name at the end."""

    def hold(name: str, error: float, limit: float) -> None:
        request.node.user_properties.append((MEASURED, (name, error, limit)))
        assert error <= limit, f"{name}: {error:.2e} is over {limit:.0e}"

    return hold


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        skipped.setdefault(reason, []).append(report.nodeid)
    for reason, names in skipped.items():
        terminalreporter.section(f"not run: {reason}")
        for name in names:
            terminalreporter.write_line(name)
    worst: dict[str, tuple[float, float]] = {}
    for report in [
        r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, [])
    ]:
        for key, value in getattr(report, "user_properties", ()):
            if key == MEASURED:
                name, error, limit = value
                worst[name] = (max(error, worst.get(name, (0.0, 0.0))[0]), limit)
    if worst:
        terminalreporter.section("measured, worst of each")
    for name, (error, limit) in sorted(worst.items()):
        terminalreporter.write_line(f"{name:<58} {error:.2e}   (limit {limit:.0e})")
