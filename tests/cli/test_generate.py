"""`generate.py` as a person or a program runs it: in a process of its own."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlx_zimage import Request, ZImage, read_metadata
from tests.measures import differing_pixels, relative_error

SCRIPT = Path(__file__).parents[2] / "generate.py"
QUICK = ["--prompt", "the red circle", "--width", "32", "--height", "32", "--steps", "2"]


@pytest.fixture
def small(checkpoint: Callable[[str], Path]) -> str:
    return str(checkpoint("small"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def refused(status: int, *arguments: str) -> str:
    """The one line on standard error; nothing is written."""
    before = set(os.listdir())
    done = run(*arguments)
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert set(os.listdir()) == before
    lines = done.stderr.strip().splitlines()
    errors = [line for line in lines if line.lower().startswith("error: ")]
    assert len(errors) == 1
    assert lines[-1] == errors[0] or status == 2
    return errors[0]


def pixels(file: str) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def test_a_picture(here: Path, small: str) -> None:
    done = run(*QUICK, "--model", small, "--seed", "7", "--output", "a.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("a.png  (seed 7, 32x32, 2 steps, ")
    assert os.listdir(here) == ["a.png"]
    same = ZImage.load(small).generate("the red circle", width=32, height=32, steps=2, seed=7)
    assert differing_pixels(pixels("a.png"), same.image) < 1e-3


def test_the_picture_remembers_its_request(here: Path, small: str) -> None:
    run(*QUICK, "--model", small, "--output", "a.png", "--guidance", "2", "--negative-prompt", "é")
    data = read_metadata(here / "a.png")
    request = Request.from_dict(data["request"])
    assert (request.prompt, request.negative_prompt, request.steps) == ("the red circle", "é", 2)
    assert data["model"] == small
    assert data["mlx_zimage"]
    again = ZImage.load(small).generate(request)
    assert differing_pixels(pixels("a.png"), again.image) < 1e-3


def test_default_name_and_a_taken_one(here: Path, small: str) -> None:
    for _ in range(2):
        assert run(*QUICK, "--model", small, "--seed", "5").returncode == 0
    assert sorted(os.listdir(here)) == ["zimage-5-2.png", "zimage-5.png"]


def test_several_seeds(here: Path, small: str) -> None:
    done = run("--seed", "1", "2", "3", *QUICK, "--model", small, "--output", "a.png")
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(here)) == ["a-1.png", "a-2.png", "a-3.png"]
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "a-1.png",
        "a-2.png",
        "a-3.png",
    ]
    assert read_metadata(here / "a-2.png")["request"]["seed"] == 2


def test_json_is_all_there_is(here: Path, small: str) -> None:
    done = run(*QUICK, "--model", small, "--seed", "1", "--json", "--output", "a.png")
    assert done.stderr == ""
    events = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds.count("step") == 2
    assert kinds[-1] == "result"
    assert events[-1]["file"] == "a.png"
    assert Request.from_dict(events[-1]["request"]).seed == 1


def test_plain_lines_in_a_pipe(here: Path, small: str) -> None:
    done = run(*QUICK, "--model", small, "--output", "a.png")
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr
    lines = done.stderr.splitlines()
    for expected in ("load transformer", "encode", "step 1 of 2, ", "step 2 of 2, ", "decode"):
        assert any(line.startswith(expected) for line in lines), (expected, lines)


def _on_a_terminal(*arguments: str) -> tuple[int, str]:
    parent, child = pty.openpty()
    command = [sys.executable, str(SCRIPT), *arguments]
    with subprocess.Popen(command, stdout=child, stderr=child, stdin=child) as running:
        os.close(child)
        seen = b""
        while True:
            try:
                ready, _, _ = select.select([parent], [], [], 60)
                chunk = os.read(parent, 65536) if ready else b""
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            seen += chunk
        os.close(parent)
        running.wait()
    return running.returncode, seen.decode()


def test_a_live_line_on_a_terminal(here: Path, small: str) -> None:
    status, seen = _on_a_terminal(*QUICK, "--model", small, "--seed", "1", "--output", "a.png")
    assert status == 0
    updates = seen.split("\r\x1b[2K")
    assert any(re.fullmatch(r"step 1 of 2, [\d.]+ s a step, [\d.]+ s left", u) for u in updates)
    assert any(u == "load transformer" for u in updates)
    assert any(u == "decode" for u in updates)
    # One line moves: the only line break is after the file that was made.
    assert seen.count("\n") == 1
    assert updates[-1] == "" or updates[-1].startswith("a.png")


def test_latents_and_embeddings_in_and_out(here: Path, small: str) -> None:
    generator = np.random.RandomState(0)
    np.save("latents.npy", generator.standard_normal((1, 16, 4, 4)))
    np.save("embeds.npy", generator.standard_normal((5, 48)).astype(np.float32))
    files = ["--latents", "latents.npy", "--prompt-embeds", "embeds.npy"]
    out = ["--save-latents", "out.npy", "--save-embeds", "caption.npy", "--output", "a.png"]
    done = run(*files, *out, "--steps", "2", "--model", small)
    assert done.returncode == 0, done.stderr
    made = ZImage.load(small).generate(
        latents=np.load("latents.npy"), prompt_embeds=np.load("embeds.npy"), steps=2
    )
    # Not equal to the last bit: this process may have another BLAS than the one it started.
    assert relative_error(np.load("out.npy"), made.latents) < 1e-5
    assert np.array_equal(np.load("caption.npy"), np.load("embeds.npy"))


def test_a_cut_prompt_is_told(here: Path, small: str) -> None:
    rest = [*QUICK[2:], "--model", small, "--output", "a.png"]
    done = run("--prompt", "word " * 600 + "END", *rest)
    assert done.returncode == 0
    assert re.search(r"warning: only 512 tokens fit; lost: '.*END'", done.stderr)
    assert "PromptTruncatedWarning" not in done.stderr


def test_an_empty_prompt(here: Path, small: str) -> None:
    rest = [*QUICK[2:], "--model", small, "--output", "a.png"]
    assert run("--prompt", "", *rest).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--width", "17"], "error: width must be a multiple of 16, not 17"),
        (["--width", "0"], "error: width must be a whole number from 1 to 8192, not 0"),
        (["--height", "-16"], "error: height must be a whole number"),
        (["--width", "99999999"], "error: width must be a whole number"),
        (["--steps", "0"], "error: steps must be a whole number from 1 to 1000, not 0"),
        (["--guidance", "nan"], "error: guidance must be a number from 0 to 1000"),
        (["--guidance", "inf"], "error: guidance must be a number from 0 to 1000"),
        (["--negative-prompt", "x"], "error: negative_prompt has no effect without guidance"),
        (["--cfg-truncation", "0.5"], "error: cfg_truncation has no effect without guidance"),
        (["--noise", "cuda"], "error: noise must be 'torch-cpu'"),
        (["--schedule", "beta"], "error: schedule must be 'legacy'"),
        (["--schedule", "1,x"], "error: schedule must be 'legacy'"),
        (["--schedule", "0.5,1"], "error: schedule must be a name or noise levels that fall"),
        (["--dtype", "int8"], "error: dtype must be one of"),
        (["--memory", "tiny"], "error: memory must be one of"),
        (["--q", "7"], "error: quantize must be one of"),
        (["--q", "four"], "error: quantize must be one of"),
        (["--seed", "-1"], "error: seed must be a whole number"),
        (["--seed", "1", "1"], "error: each --seed makes one picture"),
        (["--dtype", ""], "error: dtype must be one of"),
        (["--q", "9" * 5000], "error: quantize must be one of"),
        (["--output", "x" * 300 + ".png"], "error: cannot write"),
        (["--model", "x" * 5000], "error: no such checkpoint"),
        (["--model", "two\nlines"], "error: no such checkpoint: two\\nlines"),
        (["--prompt", os.fsdecode(b"\xff")], "error: prompt must be valid Unicode"),
        (["--guidance", "1e300"], "error: guidance must be a number"),
        (["--seed", "1", "2", "--save-latents", "x.npy"], "error: arrays are saved of one"),
        (["--latents", "none.npy"], "error: none.npy cannot be read as a .npy array"),
        (["--latents", "none.npy", "--seed", "3"], "error: none.npy cannot be read"),
        (["--output", "a.jpg"], "error: the output must end in .png"),
        (["--output", "no/such/a.png"], "error: cannot write no/such/a.png: No such file"),
        (["--output", "/proc/a.png"], "error: cannot write /proc/a.png"),
        (["--model", "nowhere"], "error: no such checkpoint: nowhere"),
        (
            ["--model", "turbo", "--offline"],
            "error: Tongyi-MAI/Z-Image-Turbo is not on this machine",
        ),
    ],
)
def test_refused(
    here: Path, small: str, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(here.parent / "no-hub"))
    arguments = ["--prompt", "x", "--model", small, *arguments]
    assert refused(1, *arguments).startswith(message)


@pytest.mark.parametrize(
    "arguments",
    [["--no-such-option"], ["--steps", "many"], ["--prompt"], ["stray"], ["--seed", "x"]],
)
def test_wrong_usage(here: Path, small: str, arguments: list[str]) -> None:
    refused(2, "--prompt", "x", "--model", small, *arguments)


def test_a_prompt_is_needed(here: Path, small: str) -> None:
    assert "needs either a prompt or prompt_embeds" in refused(1, "--model", small)


def test_an_archive_of_arrays_is_refused(here: Path, small: str) -> None:
    np.savez("many.npz", a=np.ones(3))
    text = refused(1, "--prompt", "x", "--model", small, "--latents", "many.npz")
    assert "must be one .npy array" in text


def test_an_array_that_lies_about_its_size(here: Path, small: str) -> None:
    np.save("big.npy", np.ones(10))
    raw = (here / "big.npy").read_bytes().replace(b"(10,), }" + b" " * 11, b"(9999999999999,), }")
    (here / "big.npy").write_bytes(raw)
    assert "cannot be read" in refused(1, "--prompt", "x", "--model", small, "--latents", "big.npy")


def test_pickled_arrays_are_refused(here: Path, small: str) -> None:
    np.save("bad.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    text = refused(1, "--prompt", "x", "--model", small, "--latents", "bad.npy")
    assert "cannot be read as a .npy array" in text


def test_never_over_a_file_unless_asked(here: Path, small: str) -> None:
    (here / "a.png").write_text("mine")
    text = refused(1, *QUICK, "--model", small, "--output", "a.png")
    assert "a.png exists already" in text
    assert (here / "a.png").read_text() == "mine"
    assert run(*QUICK, "--model", small, "--output", "a.png", "--overwrite").returncode == 0
    assert pixels("a.png").shape == (32, 32, 3)


def test_a_broken_checkpoint(here: Path, checkpoint: Callable[[str], Path]) -> None:
    from tests.checkpoint.broken import copy, shards

    folder = copy(checkpoint("small"), here / "ck")
    file = shards(folder / "transformer")[0]
    file.write_bytes(file.read_bytes()[:-1])
    assert "is truncated" in refused(1, *QUICK, "--model", "ck")


def test_interrupted(here: Path, small: str) -> None:
    """Within a step, with 130, and nothing left behind."""
    long = ["--prompt", "x", "--model", small, "--steps", "1000", "--output", "a.png", "--json"]
    command = [sys.executable, str(SCRIPT), *long]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        while b'"step"' not in running.stdout.readline():
            pass
        sent = time.perf_counter()
        running.send_signal(signal.SIGINT)
        out, errors = running.communicate(timeout=30)
        took = time.perf_counter() - sent
    assert running.returncode == 130
    assert b"Traceback" not in errors
    steps = [json.loads(line)["seconds"] for line in out.splitlines() if b'"step"' in line]
    print(f"stopped {took:.2f} s after Ctrl-C, {len(steps)} steps later")
    assert took < 2
    assert os.listdir(here) == []


def test_a_reader_that_goes_away(here: Path, small: str) -> None:
    """`generate.py --json | head -1` ends without a traceback."""
    command = [sys.executable, str(SCRIPT), *QUICK, "--model", small, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.stdout.close()
        assert running.stderr is not None
        errors = running.stderr.read()
        running.wait(timeout=60)
    assert b"Traceback" not in errors


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "2>/dev/full", "<&- 2>&-"])
def test_standard_files_that_are_closed(here: Path, small: str, closed: str) -> None:
    arguments = " ".join([*QUICK[2:], "--prompt", "x", "--model", small, "--output", "a.png"])
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} {SCRIPT} {arguments} {closed}"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert pixels("a.png").shape == (32, 32, 3)


def test_standard_output_that_is_full(here: Path, small: str) -> None:
    arguments = " ".join([*QUICK[2:], "--prompt", "x", "--model", small, "--output", "a.png"])
    command = ["sh", "-c", f"{sys.executable} {SCRIPT} {arguments} >/dev/full"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: [Errno 28]")


def test_output_in_ascii(here: Path, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    for more in (["--json"], []):
        rest = [*QUICK[2:], "--model", small, "--output", "狐.png", "--overwrite", *more]
        done = run("--prompt", "狐狸 🦊", *rest)
        assert done.returncode == 0, done.stderr


def test_a_dumb_terminal(here: Path, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    status, seen = _on_a_terminal(*QUICK, "--model", small, "--output", "a.png")
    assert status == 0
    assert "\x1b" not in seen


@pytest.mark.parametrize("delay", [0.12, 0.14, 0.16, 0.18, 0.24, 0.3, 0.4])
def test_interrupted_at_any_time(here: Path, small: str, delay: float) -> None:
    """From when our own code is first read."""
    long = ["--prompt", "x", "--model", small, "--steps", "1000", "--output", "a.png"]
    command = [sys.executable, str(SCRIPT), *long]
    while True:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            time.sleep(delay)
            running.send_signal(signal.SIGINT)
            _, errors = running.communicate(timeout=60)
        python_was_starting = running.returncode in (1, -signal.SIGINT)
        if not python_was_starting or SCRIPT.name.encode() in errors or b"mlx" in errors:
            break
        delay += 0.1  # a busy machine: none of our lines was reached
    assert running.returncode == 130, errors
    assert b"Traceback" not in errors
    assert os.listdir(here) == []


def test_help_is_quick() -> None:
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        assert run("--help").returncode == 0
        seconds.append(time.perf_counter() - begun)
    print(f"generate.py --help: {min(seconds):.2f} s, the best of 5")
    assert min(seconds) < 0.6


def test_the_console_script(here: Path, small: str) -> None:
    code = "import sys; from mlx_zimage.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "generate", *QUICK, "--model", small]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
