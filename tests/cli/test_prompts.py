"""Several prompts: as arguments, from a file, and from standard input."""

import io
import json
import os
from pathlib import Path

import pytest

from mlx_zimage import read_metadata
from tests.cli.conftest import Run

QUICK = ("--size", "32", "--steps", "1")
Requests = list[tuple[object, ...]]


@pytest.fixture
def draw(run: Run, small: str) -> Run:
    def draw(*arguments: str) -> object:
        return run("generate", "--model", small, *QUICK, *arguments)

    return draw  # type: ignore[return-value]


def requests(folder: Path, *fields: str) -> Requests:
    """Return some fields of all pictures' requests, by the names of the files."""
    stored = [read_metadata(file)["request"] for file in sorted(folder.glob("*.png"))]
    return [tuple(request.get(name) for name in fields) for request in stored]


def type_in(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_several_arguments(draw: Run, here: Path) -> None:
    done = draw("a red fox", "狐狸", "--seed", "1-2", "-o", "pics/")
    assert (done.status, done.err) == (0, "")
    names = ["001-a-red-fox-1", "001-a-red-fox-2", "002-狐狸-1", "002-狐狸-2"]
    assert sorted(os.listdir("pics")) == [f"zimage-{name}.png" for name in names]
    expected = [("a red fox", 1), ("a red fox", 2), ("狐狸", 1), ("狐狸", 2)]
    assert requests(here / "pics", "prompt", "seed") == expected


def test_words_without_quotes_are_no_prompts(draw: Run) -> None:
    for words in (["a", "fox"], ["a red fox", "cat"]):
        done = draw(*words)
        assert done.status == 2 and done.error.startswith(f"unexpected argument: '{words[1]}'")


def test_a_file(draw: Run, here: Path) -> None:
    lines = [
        "# a comment",
        "a red fox",
        "",
        json.dumps({"prompt": "a blue bird", "width": 48, "seed": 9}),
        "{red|blue} is no JSON",
    ]
    Path("prompts.txt").write_text("\ufeff" + "\n".join(lines), "utf-8")
    done = draw("--prompt-file", "prompts.txt", "-o", "bird.png")
    assert (done.status, done.err) == (0, "")
    names = ["bird-001-a-red-fox", "bird-002-a-blue-bird", "bird-003-red-blue-is-no-json"]
    assert sorted(path.stem for path in here.glob("*.png")) == names
    found = requests(here, "prompt", "width", "height")
    assert found == [
        ("a red fox", 32, 32),
        ("a blue bird", 48, 32),
        ("{red|blue} is no JSON", 32, 32),
    ]
    assert requests(here, "seed")[1] == (9,)


def test_a_file_is_one_job(draw: Run) -> None:
    """Each component is loaded once, and each prompt encoded once."""
    Path("prompts.txt").write_text("a fox\na bird\na fox\n")
    options = ("--prompt-file", "prompts.txt", "--memory", "staged", "--json", "--seed", "1-2")
    done = draw(*options)
    loads = [e["component"] for e in done.events if (e["event"], e.get("phase")) == LOAD]
    assert loads == ["text_encoder", "transformer", "vae"]
    encoded = [e for e in done.events if (e["event"], e.get("phase")) == ("started", "encode")]
    assert len(encoded) <= 2
    assert sorted({e["job"] for e in done.events if e["event"] == "result"}) == [*range(6)]


LOAD = ("started", "load")


def test_jobs_are_cut(draw: Run, monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    monkeypatch.setattr("mlx_zimage.cli.drawing.TOGETHER", 2)
    done = draw("a fox", "--seed", "1-5", "--memory", "staged", "--json")
    loads = [e["component"] for e in done.events if (e["event"], e.get("phase")) == LOAD]
    assert loads.count("transformer") == 3
    results = [(e["job"], e["file"]) for e in done.events if e["event"] == "result"]
    assert results == [(n, f"zimage-{n + 1}.png") for n in range(5)]


def test_standard_input(draw: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    type_in('a fox\n\n{"prompt": "a bird", "steps": 2}\n', monkeypatch)
    done = draw("--prompt-file", "-", "--count", "2", "-o", "pics/")
    assert (done.status, done.err) == (0, "")
    assert len(done.out.splitlines()) == 4
    assert requests(here / "pics", "prompt", "steps") == [("a fox", 1)] * 2 + [("a bird", 2)] * 2


def test_standard_input_is_read_as_it_comes(
    draw: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first picture is there before the second prompt is typed."""
    seen = []

    class Typed:
        def __init__(self) -> None:
            self.lines = iter(["a fox\n", "a bird\n"])

        def readline(self) -> str:
            seen.append(len([*here.glob("*.png")]))
            return next(self.lines, "")

    monkeypatch.setattr("sys.stdin", Typed())
    assert draw("--prompt-file", "-").status == 0
    assert seen == [0, 1, 2]


def test_a_bad_line_keeps_what_was_drawn(
    draw: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_in('a fox\n{"prompt": "a bird", "steps": 0}\na cat\n', monkeypatch)
    done = draw("--prompt-file", "-")
    assert done.status == 2
    assert done.error.startswith("standard input, line 2: steps must be a whole number")
    assert requests(here, "prompt") == [("a fox",)]


def test_going_on(draw: Run, here: Path) -> None:
    Path("prompts.txt").write_text("a fox\na bird\n")
    options = ("--prompt-file", "prompts.txt", "--skip-existing", "-o", "pics/")
    assert draw(*options).status == 0
    first = sorted((here / "pics").glob("*.png"))
    first[1].unlink()
    content = first[0].read_bytes()
    Path("prompts.txt").write_text("a fox\na bird\na cat\n")
    done = draw(*options)
    lines = done.out.splitlines()
    assert lines[0] == "pics/zimage-001-a-fox.png  (kept)" and len(lines) == 3
    assert first[0].read_bytes() == content
    assert requests(here / "pics", "prompt") == [("a fox",), ("a bird",), ("a cat",)]
    events = draw(*options, "--json").events
    assert [event["event"] for event in events] == ["kept"] * 3  # and no model is loaded


def test_another_picture_is_not_kept(draw: Run) -> None:
    assert draw("a fox", "--seed", "1", "-o", "a.png").status == 0
    assert "(kept)" in draw("a fox", "--seed", "1", "-o", "a.png", "--skip-existing").out
    done = draw("a bird", "--seed", "1", "-o", "a.png", "--skip-existing")
    assert done.status == 1 and done.error.startswith("a.png holds a picture of another request")
    done = draw("a fox", "--count", "2", "--skip-existing")
    assert done.status == 2 and "give --seed" in done.error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "'prompts.txt' holds no prompt"),
        (b"# nothing\n\n", "'prompts.txt' holds no prompt"),
        (b"a fox\n\xff\xfe\n", "'prompts.txt' cannot be read as text"),
        (b'{"prompt": "a fox"\n', "prompts.txt, line 1: no valid JSON"),
        (b'{"prompt": "a", "siez": 3}\n', "prompts.txt, line 1: a request has no field 'siez'"),
        (b'a fox\n{"steps": 3}\n', "prompts.txt, line 2: a request needs either a prompt"),
        (b'{"prompt": 3}\n', "prompts.txt, line 1: prompt must be a string"),
        (b'{"prompt": "a", "width": 17}\n', "--width must be a multiple of 16"),
        (b'{"prompt": "\\ud800"}\n', "prompts.txt, line 1: prompt must be valid Unicode"),
    ],
)
def test_files_that_are_wrong(draw: Run, here: Path, content: bytes, message: str) -> None:
    Path("prompts.txt").write_bytes(content)
    done = draw("--prompt-file", "prompts.txt")
    assert (done.status, done.out) == (2, "")
    assert done.error.startswith(message) and len(done.error) < 400
    assert os.listdir(here) == ["prompts.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt-file", "none.txt"], "'none.txt' cannot be read as text: No such file"),
        (["--prompt-file", "."], "'.' cannot be read as text: Is a directory"),
        (["--prompt-file", ""], "--prompt-file must name a file"),
        (["a red fox", "--prompt-file", "x"], "--prompt-file brings the prompts"),
        (["a red fox", "a\0b c"], "--prompt must not hold a NUL character, as 'a\\x00b c' does"),
    ],
)
def test_wrong_usage(draw: Run, arguments: list[str], message: str) -> None:
    done = draw(*arguments)
    assert done.status == 2 and done.error.startswith(message)


def test_a_seed_on_a_line_stands_alone(draw: Run) -> None:
    Path("prompts.txt").write_text('{"prompt": "a fox", "seed": 3}\n')
    done = draw("--prompt-file", "prompts.txt", "--seed", "1")
    assert done.status == 2 and "line 1 has a seed" in done.error
