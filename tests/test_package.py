"""The house: what is public, what an import costs, and which way imports run."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mlx_zimage

PACKAGE = Path(mlx_zimage.__file__).parent
FLOORS = (
    {"errors", "linux"},
    {"configs", "request", "files"},
    {"models", "prompt", "sampling", "images"},
    {"weights", "quantization"},
    {"hub"},
    {"checkpoint"},
    {"memory", "convert"},
    {"generation"},
    {"zimage"},
    {"bench", "cli"},
)
"""Rooms from the ground up: each may import from its own floor and those below."""
MAY_IMPORT = {
    room: set().union(*FLOORS[: i + 1]) for i, rooms in enumerate(FLOORS) for room in rooms
}


def test_public_names_are_sorted_and_there() -> None:
    assert mlx_zimage.__all__ == sorted(mlx_zimage.__all__)
    for name in mlx_zimage.__all__:
        assert getattr(mlx_zimage, name).__doc__ or name == "Event"


def test_errors_are_one_tree() -> None:
    names = ["RequestError", "CheckpointError", "DownloadError", "LoraError", "OutOfMemoryError"]
    for name in names:
        assert issubclass(getattr(mlx_zimage, name), mlx_zimage.ZImageError)
        assert name in (sys.modules["mlx_zimage.errors"].__doc__ or "")
    assert issubclass(mlx_zimage.RequestError, ValueError)


def _seconds(code: str) -> float:
    program = f"import time; t = time.perf_counter(); {code}; print(time.perf_counter() - t)"
    runs = [subprocess.check_output([sys.executable, "-c", program], text=True) for _ in range(5)]
    return min(map(float, runs))


def test_import_is_quick() -> None:
    seconds = _seconds("import mlx_zimage")
    print(f"import mlx_zimage: {seconds:.3f} s, the best of 5")
    assert seconds < 0.3


def test_import_takes_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, mlx_zimage, mlx_zimage.cli; "
        "print([m for m in ('torch', 'transformers', 'diffusers') if m in sys.modules])"
    )
    found = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert found.strip() == "[]"


def test_import_writes_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import mlx_zimage"],
        capture_output=True,
        check=True,
        cwd=tmp_path,
    )
    assert (done.stdout, done.stderr) == (b"", b"")
    assert os.listdir(tmp_path) == []


def _rooms_imported(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = file.relative_to(PACKAGE).parts[: -node.level]
            if node.module is None:
                found |= {*base[:1]} or {alias.name for alias in node.names}
            else:
                found.add((*base, *node.module.split("."))[0])
    return found


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_run_one_way(room: str) -> None:
    place = PACKAGE / room
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    assert files
    for file in files:
        assert _rooms_imported(file) - {room, "__version__"} <= MAY_IMPORT[room], file


def test_modules_and_functions_are_short() -> None:
    for file in PACKAGE.rglob("*.py"):
        text = file.read_text("utf-8")
        assert len(text.splitlines()) <= 350, file
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.name != "generate":  # the CLI's options
                assert (node.end_lineno or 0) - node.lineno < 40, (file, node.name)


def test_the_library_does_not_print() -> None:
    for file in PACKAGE.rglob("*.py"):
        if "cli" not in file.parts:
            calls = (n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Call))
            assert not any(getattr(call.func, "id", "") == "print" for call in calls), file
