"""The documentation: its snippets and commands run on the demo, and its links lead somewhere."""

import contextlib
import io
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mlx_zimage
from mlx_zimage.cli import program
from tools.train_demo.reading import read

ROOT = Path(__file__).parents[1]
GENERATED = "docs/benchmarks.md"
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "tests/README.md"]
PAGES += ["tools/train_demo/README.md"]
PAGES += sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
ABOUT_OPTIONS = ["README.md", "docs/command-line.md", "docs/convert.md", "docs/library.md"]
ABOUT_OPTIONS += ["docs/experiments.md", "docs/reproduce.md"]
FENCE = re.compile(r"^( *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^()\s]+)\)")
PROGRAMS = {"generate.py": ("generate",), "convert.py": ("convert", "verify"), "mlx-zimage": ()}
"""The names that each program passes to the command line."""
PICTURES = (".png", ".jpg", ".webp", ".avif")
LARGEST = 256  # pixels along a side
SERVING = ("serve", "mcp")
"""Commands that go on until they are stopped: tests/server/ runs them."""
SHEETS = ("sheet.png", "both.png", "loss.png")
"""Pictures that are made of others."""


@dataclass(frozen=True)
class Fence:
    """A block of code in a page."""

    info: str  # the words after the backticks
    text: str
    line: int  # of its first line, from 0
    output: str | None  # what must be printed: a `text` block that follows at once


@dataclass(frozen=True)
class Command:
    """A line that runs one of the programs."""

    program: str
    arguments: tuple[str, ...]
    output: str | None  # of the block that it is in

    @property
    def name(self) -> str:
        names = PROGRAMS[self.program]
        is_first = not names or self.arguments[0] in names
        return self.arguments[0] if is_first else names[0]


def fences(page: str) -> list[Fence]:
    text = (ROOT / page).read_text("utf-8")
    matches = list(FENCE.finditer(text))
    blocks = []
    for match, following in zip_longest(matches, matches[1:]):
        output = None
        if following and following["info"] == "text":
            between = text[match.end() : following.start()]
            output = following["text"] if not between.strip() else None
        line = text.count("\n", 0, match.start("text"))
        blocks.append(Fence(match["info"], match["text"], line, output))
    return blocks


def commands(page: str) -> Iterator[Command]:
    """Yield the commands in a page's blocks that are no Python."""
    for fence in fences(page):
        lines = fence.text.splitlines() if fence.info in ("", "bash") else []
        for line in lines:
            for part in re.split(r" && | \| ", line):
                words = shlex.split(part, comments=True)
                words = words[1:] if words[:1] == ["python"] else words
                if words and words[0] in PROGRAMS:
                    yield Command(words[0], tuple(words[1:]), fence.output)


def snippets(page: str) -> list[Fence]:
    return [fence for fence in fences(page) if fence.info == "python"]


def pages_with_snippets() -> list[Any]:
    """Return the pages to run; a plain run of the tests takes the README alone."""
    pages = [page for page in PAGES if snippets(page)]
    return [pytest.param(p, marks=[] if p == "README.md" else pytest.mark.slow) for p in pages]


def demo_commands(page: str) -> list[Command]:
    """Return the commands that need no other model, in order."""
    local = ("info", "cache", "compare")
    needed = ("demo", "--replay")
    known = [c for c in commands(page) if {*needed} & {*c.arguments} or c.name in local]
    return [command for command in known if command.name not in SERVING]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working directory, with an empty cache and the process's malloc as it is."""
    monkeypatch.setenv("MLX_ZIMAGE_CACHE", str(tmp_path / "copies"))
    monkeypatch.setenv("MLX_ZIMAGE_MALLOC", "0")
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def check_pictures(folder: Path) -> int:
    """Hold that every picture in a folder shows something on its ground; return their number."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in PICTURES]
    files = [path for path in files if path.name not in SHEETS]
    for file in files:
        with Image.open(file) as image:
            assert max(image.size) <= LARGEST, f"{file.name} is larger than what the demo draws"
            deviation = float(np.asarray(image).std(axis=(0, 1)).max())
            assert deviation > 10, f"{file.name} is plain"
            assert read(image).found, f"{file.name} shows nothing"
    return len(files)


def test_a_plain_picture_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (128, 128), "red").save(tmp_path / "fox.png")
    with pytest.raises(AssertionError, match="plain"):
        check_pictures(tmp_path)


@pytest.mark.parametrize("page", pages_with_snippets())
def test_snippets_run_on_the_demo(page: str, here: Path) -> None:
    namespace: dict[str, object] = {"__name__": "snippet"}
    for fence in snippets(page):
        code = compile("\n" * fence.line + fence.text, str(ROOT / page), "exec")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, namespace)
        if fence.output is not None:
            assert printed.getvalue() == fence.output, f"{page}, line {fence.line + 1}"
    assert check_pictures(here)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if demo_commands(page)])
def test_commands_run_on_the_demo(
    page: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in demo_commands(page):
        monkeypatch.setattr(sys, "argv", [command.program, *command.arguments])
        status = program.run(command.arguments, *PROGRAMS[command.program])
        printed, errors = capsys.readouterr()
        assert status == 0, (command, errors)
        if command.output is not None:  # values such as versions differ between machines
            assert first_words(printed) == first_words(command.output), command
    check_pictures(here)


def first_words(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if line.strip()]


def known_options(name: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    capsys.readouterr()
    assert program.run([name, "--help"]) == 0
    return set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", capsys.readouterr().out))


@pytest.mark.parametrize("page", [page for page in PAGES if [*commands(page)]])
def test_options_in_commands_exist(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands(page):
        assert command.name in program.COMMANDS, command
        known = known_options(command.name, capsys)
        options = {word.partition("=")[0] for word in command.arguments if word.startswith("-")}
        assert options <= known, (command, options - known)


def test_options_in_the_prose_exist(capsys: pytest.CaptureFixture[str]) -> None:
    known = set().union(*(known_options(name, capsys) for name in program.COMMANDS))
    for page in ABOUT_OPTIONS:
        text = FENCE.sub("", (ROOT / page).read_text("utf-8"))
        named = re.findall(r"`(--?[A-Za-z][\w-]*)[^`]*`", text)
        assert {*named} <= known, (page, {*named} - known)


def test_readme_has_the_blocks_that_ci_runs() -> None:
    """`.ci/run` runs the first bash block to install and draw, the second to serve, the third."""
    install, serve, run = [fence.text for fence in fences("README.md") if fence.info == "bash"]
    assert serve == "pip install '.[server]' && mlx-zimage serve --model demo\n"
    assert "pip install . &&" in install and install.rstrip().endswith("--output first.png")
    assert run.rstrip().endswith("python -m pytest")


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page: str) -> None:
    for target in LINK.findall(FENCE.sub("", (ROOT / page).read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), f"{page} links to {target}"
        if anchor:
            assert anchor in _anchors(file), f"{page} links to {target}"


def _anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    text = FENCE.sub("", page.read_text("utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_pages_are_within_reach() -> None:
    """Every page of docs is linked from the README."""
    linked = LINK.findall((ROOT / "README.md").read_text("utf-8"))
    for page in PAGES:
        is_linked = page in linked or not page.startswith("docs/")
        assert is_linked, f"README.md does not link to {page}"


def test_paths_in_the_prose_exist() -> None:
    for page in [page for page in PAGES if page not in ("CHANGELOG.md", GENERATED)]:
        text = (ROOT / page).read_text("utf-8")
        paths = re.findall(r"`((?:tests|benchmarks|tools|docs|mlx_zimage)/[\w./-]*)`", text)
        modules = re.findall(r"python -m ((?:tests|benchmarks|tools)[\w.]*)", text)
        for path in [*paths, *(module.replace(".", "/") for module in modules)]:
            place = ROOT / path
            assert place.exists() or place.with_suffix(".py").exists(), f"{page} names {path}"


def test_design_names_every_room() -> None:
    text = (ROOT / "docs/design.md").read_text("utf-8")
    package = Path(mlx_zimage.__file__).parent
    for path in package.iterdir():
        is_room = path.is_dir() or (path.suffix == ".py" and path.name != "__init__.py")
        if is_room and not path.name.startswith("__"):
            name = path.name if path.is_file() else f"{path.name}/"
            assert f"| `{name}` |" in text, f"docs/design.md has no row for {name}"
