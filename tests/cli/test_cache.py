"""`cache`: quantized copies that are made once, listed and removed."""

from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Run

DRAW = ("generate", "a red circle", "--model", "demo", "--seed", "1", "--steps", "1", "--q", "4")


def pixels(file: str) -> bytes:
    with Image.open(file) as image:
        return image.tobytes()


@pytest.fixture(autouse=True)
def every_model_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_zimage.convert.copies.LARGE", 0)


def test_quantized_once_and_kept(run: Run, tmp_path: Path) -> None:
    first = run(*DRAW, "-o", "a.png")
    assert first.status == 0, first.err
    assert [line.split(":")[0] for line in first.err.splitlines()] == [
        "quantizing once",
        *("text_encoder", "transformer", "vae"),
    ]
    assert run(*DRAW, "-o", "b.png").err == ""
    assert run(*DRAW, "--no-cache", "-o", "c.png").err == ""
    assert pixels("a.png") == pixels("b.png") == pixels("c.png")
    listed = run("cache", "list")
    (name, size, unit, path) = listed.out.split()
    assert Path(path).parent == tmp_path / "copies" and 0 < float(size) < 0.1
    (event,) = run("cache", "list", "--json").events
    assert (event["event"], event["name"], event["path"]) == ("copy", name, path)
    assert run("cache", "remove", "nothing").error.startswith("there is no copy 'nothing'")
    removed = run("cache", "remove", name)
    assert (removed.status, removed.out) == (0, f"removed {name}: {size} {unit}\n")
    empty = run("cache", "list")
    assert (empty.status, empty.out, empty.err) == (0, "", "no quantized copies are kept\n")
    assert run("cache", "list", "--json").out == ""


def test_an_estimate_makes_no_copy(run: Run, tmp_path: Path) -> None:
    assert run(*DRAW, "--estimate").status == 0
    assert not (tmp_path / "copies").exists()


def test_everything_is_removed(run: Run, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "copies" / name).mkdir(parents=True)
        (tmp_path / "copies" / name / "mlx_zimage.json").touch()
    assert run("cache", "list").out.count("\n") == 2
    assert run("cache", "remove", "--all").out.count("removed ") == 2
    assert run("cache", "remove", "--all").status == 0
    assert run("cache", "list").out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("list x", "cache list takes no names"),
        ("list --all", "cache list takes no names"),
        ("remove", "cache remove takes the names of copies, or --all"),
        ("remove x --all", "cache remove takes the names of copies, or --all"),
        ("burn", "ACTION must be list or remove, not 'burn'"),
        ("", "Missing argument 'ACTION'"),
    ],
)
def test_wrong_usage(run: Run, arguments: str, message: str) -> None:
    done = run("cache", *arguments.split())
    assert (done.status, done.out) == (2, "") and done.error.startswith(message)
