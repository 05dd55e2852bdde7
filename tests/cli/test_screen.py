"""The line that moves: cut to the terminal's width."""

import io

import pytest

from mlx_zimage.cli.screen import CLEAR, Screen, cut, width


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def xterm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "20")


def test_width_of_characters() -> None:
    assert [width(c) for c in "a狐🦊é\u0301\u200b"] == [1, 2, 2, 1, 0, 0]


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("step 1", 20, "step 1"),
        ("step 1", 6, "step 1"),
        ("step 1", 4, "step"),
        ("狐狸狐狸", 5, "狐狸"),
        ("e\u0301e\u0301e\u0301", 2, "e\u0301e\u0301"),
        ("", 0, ""),
    ],
)
def test_cut(text: str, columns: int, expected: str) -> None:
    assert cut(text, columns) == expected


def test_a_moving_line_is_shorter_than_the_terminal_is_wide() -> None:
    stream = Terminal()
    screen = Screen(stream)
    screen.update("download: a-file-with-a-long-name.safetensors")
    screen.update("狐狸狐狸狐狸狐狸狐狸狐狸")
    _, first, second = stream.getvalue().split(CLEAR)
    assert first == "download: a-file-wi" and len(first) == 19
    assert second == "狐狸狐狸狐狸狐狸狐"  # 18 columns: another one would be the 20th


def test_lines_that_stay_replace_the_moving_one() -> None:
    stream = Terminal()
    screen = Screen(stream)
    screen.line("a note")
    screen.update("step 1")
    screen.line("a warning")
    screen.update("step 2")
    screen.clear()
    screen.clear()
    shown = f"a note\n{CLEAR}step 1{CLEAR}a warning\n{CLEAR}step 2{CLEAR}"
    assert stream.getvalue() == shown


def test_what_is_live(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Screen(Terminal()).live
    assert not Screen(io.StringIO()).live
    monkeypatch.setenv("TERM", "dumb")
    assert not Screen(Terminal()).live


def test_a_screen_that_is_gone() -> None:
    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    screen = Screen(Gone())
    screen.line("nobody reads this")
    screen.update("nor this")
    screen.clear()
