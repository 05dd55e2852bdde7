"""The house: what is public, what an import does, and which way imports run."""

import ast
import importlib
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

import mlx_zimage

PACKAGE = Path(mlx_zimage.__file__).parent
FLOORS = (
    {"errors", "linux", "version"},
    {"checks", "device", "process"},
    {"configs", "files"},
    {"dtypes", "images"},
    {"fields"},
    {"request"},
    {"events"},
    {"models", "prompt", "sampling"},
    {"weights"},
    {"quantization"},
    {"hub"},
    {"checkpoint"},
    {"lora"},
    {"memory", "convert"},
    {"generation"},
    {"capabilities", "loading"},
    {"replay", "zimage"},
    {"sweep", "training"},
    {"bench", "server"},
    {"cli"},
)
"""The rooms from the ground up: each imports from the floors below it alone."""
ROOMS = [room for floor in FLOORS for room in sorted(floor)]


def test_public_names_are_sorted_and_documented() -> None:
    assert mlx_zimage.__all__ == sorted(mlx_zimage.__all__)
    for name in mlx_zimage.__all__:
        assert getattr(mlx_zimage, name).__doc__ or name == "Event"


def test_nothing_else_is_visible() -> None:
    assert {n for n in dir(mlx_zimage) if not n.startswith("__")} == set(mlx_zimage.__all__)


def test_names_do_not_give_way_to_modules() -> None:
    """Some names are imported when they are first used, and some modules bear a name's name."""
    for name in mlx_zimage.__all__:
        assert not isinstance(getattr(mlx_zimage, name), types.ModuleType), name
    code = (
        "from mlx_zimage.sweep import Sweep; from mlx_zimage import Replay, replay; print(replay)"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed.startswith("<function replay")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        mlx_zimage.nothing  # noqa: B018


def test_names_that_were_public_before_still_are() -> None:
    names = """Capabilities CheckpointError DownloadError Downloaded Estimate Event Finished
    LoraError OutOfMemoryError PromptTruncatedWarning Request RequestError Result Started Step
    Truncated ZImage ZImageError download read_metadata save_png"""
    assert {*names.split()} <= {*mlx_zimage.__all__}


def test_errors_are_one_tree() -> None:
    errors = importlib.import_module("mlx_zimage.errors")
    names = [name for name in mlx_zimage.__all__ if name.endswith("Error")]
    assert len(names) == 7
    for name in names:
        assert issubclass(getattr(mlx_zimage, name), mlx_zimage.ZImageError)
        assert name in (errors.__doc__ or "")
    assert issubclass(mlx_zimage.RequestError, ValueError)


def test_import_takes_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, mlx_zimage, mlx_zimage.cli; "
        "print([m for m in ('torch', 'transformers', 'diffusers', 'huggingface_hub')"
        " if m in sys.modules])"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed.strip() == "[]"


def test_import_writes_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import mlx_zimage"],
        capture_output=True,
        check=True,
        cwd=tmp_path,
    )
    assert (done.stdout, done.stderr) == (b"", b"")
    assert os.listdir(tmp_path) == []


def test_every_room_has_a_floor() -> None:
    names = {path.stem if path.suffix == ".py" else path.name for path in PACKAGE.iterdir()}
    assert names - {"__init__", "__main__", "__pycache__", "py.typed", "demo"} == {*ROOMS}


def _imports(file: Path) -> set[str]:
    """Return the package's own names that a file imports, the room or the public name first."""
    names = set()
    tree = ast.parse(file.read_text("utf-8"))
    for node in list(ast.walk(tree)):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body.clear()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = file.relative_to(PACKAGE).parts[: -node.level]
            if node.module is None:
                names |= {*base[:1]} or {alias.name for alias in node.names}
            else:
                names.add((*base, *node.module.split("."))[0])
    return names


def _files(room: str) -> list[Path]:
    place = PACKAGE / room
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    assert files
    return files


@pytest.mark.parametrize("room", [room for room in ROOMS if room not in ("cli", "server")])
def test_imports_run_one_way(room: str) -> None:
    floor = next(i for i, rooms in enumerate(FLOORS) if room in rooms)
    below = {name for rooms in FLOORS[:floor] for name in rooms}
    for file in _files(room):
        assert _imports(file) - {room} <= below, file


def test_models_know_nothing_of_files_prompts_or_steps() -> None:
    allowed = {"models", "configs", "device", "errors"}
    for file in _files("models"):
        assert _imports(file) <= allowed, file


def test_the_command_line_uses_the_public_face() -> None:
    allowed = {*mlx_zimage.__all__, "__version__", "cli", "bench", "linux", "server"}
    for file in _files("cli"):
        assert _imports(file) <= allowed, file


def test_the_server_uses_the_public_face() -> None:
    for file in _files("server"):
        assert _imports(file) <= {*mlx_zimage.__all__, "__version__", "server"}, file


def _length(function: ast.FunctionDef) -> int:
    """Return a function's lines, without its signature and its docstring."""
    body = function.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_modules_and_functions_are_short() -> None:
    for file in PACKAGE.rglob("*.py"):
        text = file.read_text("utf-8")
        assert len(text.splitlines()) <= 350, file
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert _length(node) <= 40, (file, node.name)
    assert len((PACKAGE / "zimage.py").read_text("utf-8").splitlines()) < 200


def test_docstrings_stand_alone() -> None:
    """They begin with a verb or a noun."""
    openings = {"Of", "As", "What", "Where", "Those", "That", "Whose", "Which", "And"}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                words = (ast.get_docstring(node) or "x").split()
                assert words[0] not in openings, (file, getattr(node, "name", ""), words[:6])


def test_the_library_does_not_print() -> None:
    for file in PACKAGE.rglob("*.py"):
        if "cli" not in file.parts:
            calls = (n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Call))
            assert not any(getattr(call.func, "id", "") == "print" for call in calls), file
