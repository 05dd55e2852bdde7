"""The folder in another precision, written whole or not at all."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_zimage import CheckpointError, RequestError, ZImage
from mlx_zimage.checkpoints import convert as conversion
from mlx_zimage.checkpoints.convert import convert
from mlx_zimage.checkpoints.shards import find_weights, read_arrays
from tests.checkpoints.broken import copy, shards


@pytest.fixture
def source(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("small")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_same_layout_and_rounded_values(source: Path, tmp_path: Path, dtype: str) -> None:
    out = tmp_path / "out"
    told = list(convert(source, out, dtype=dtype))
    assert [(d.number, d.total) for d in told] == [(i, 9) for i in range(1, 10)]
    names = lambda root: sorted(str(p.relative_to(root)) for p in root.rglob("*"))  # noqa: E731
    assert names(out) == names(source)
    kind = getattr(mx, dtype)
    for part in ("transformer", "text_encoder", "vae"):
        kept = dict(read_arrays(find_weights(source / part)))
        for key, array in read_arrays(find_weights(out / part)):
            assert array.dtype == kind
            assert mx.array_equal(array, kept[key].astype(kind)), key
        [index] = (out / part).glob("*.index.json")
        size = sum(entry.stop - entry.start for entry in find_weights(out / part).values())
        assert json.loads(index.read_text())["metadata"]["total_size"] == size
    assert os.listdir(tmp_path) == ["out"]


def test_diffusers_reads_the_header(source: Path, tmp_path: Path) -> None:
    """The format's own library agrees with our writer."""
    from safetensors import safe_open

    list(convert(source, tmp_path / "out"))
    for file in shards(tmp_path / "out/vae"):
        with safe_open(file, "np") as opened:
            assert opened.metadata() == {"format": "pt"}
            for key in sorted(opened.keys()):
                assert opened.get_slice(key).get_dtype() == "BF16"


def test_loads_and_draws_the_same(source: Path, tmp_path: Path) -> None:
    list(convert(source, tmp_path / "out", dtype="float32"))
    options = {"width": 32, "height": 32, "steps": 2, "seed": 1}
    a, b = (ZImage.load(folder).generate("x", **options) for folder in (source, tmp_path / "out"))
    assert mx.array_equal(a.latents, b.latents)


def test_an_existing_output_is_kept_unless_forced(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("x")
    with pytest.raises(RequestError, match="exists already"):
        list(convert(source, out))
    assert os.listdir(out) == ["mine"]
    with pytest.raises(RequestError, match="--force replaces only a checkpoint"):
        list(convert(source, out, force=True))
    assert os.listdir(out) == ["mine"]
    (out / "mine").unlink()
    list(convert(source, out, force=True))
    (out / "transformer/mine").write_text("x")
    list(convert(source, out, force=True))
    assert not (out / "transformer/mine").exists()
    assert os.listdir(tmp_path) == ["out"]


def test_a_file_is_never_replaced(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(RequestError, match="--force replaces only a checkpoint"):
        list(convert(source, tmp_path / "out", force=True))
    assert (tmp_path / "out").read_text() == "mine"


def test_the_old_output_comes_back_if_the_last_rename_fails(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = copy(source, tmp_path / "out")
    (out / "transformer/mine").write_text("x")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(CheckpointError, match="Input/output error"):
        list(convert(source, out, force=True))
    assert (out / "transformer/mine").read_text() == "x"
    assert os.listdir(tmp_path) == ["out"]


def test_the_old_output_comes_back_after_a_kill_between_renames(
    source: Path, tmp_path: Path
) -> None:
    (tmp_path / ".out.part").mkdir()
    copy(source, tmp_path / ".out.part/old")
    with pytest.raises(RequestError, match="exists already"):
        list(convert(source, copy(source, tmp_path / "out")))
    shutil.rmtree(tmp_path / "out")
    events = convert(source, tmp_path / "out")
    next(events)
    events.close()
    ZImage.load(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("stop", [1, 2])
def test_interrupted_around_the_renames(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """After the first the old output must come back; after the second the new one stands."""
    out = copy(source, tmp_path / "out")
    (out / "transformer/mine").write_text("x")
    rename, done = Path.rename, []

    def interrupt(self: Path, target: Path) -> Path:
        moved = rename(self, target)
        done.append(self)
        if len(done) == stop:
            raise KeyboardInterrupt
        return moved

    monkeypatch.setattr(Path, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(convert(source, out, force=True))
    assert (out / "transformer/mine").exists() is (stop == 1)
    ZImage.load(out)
    assert os.listdir(tmp_path) == ["out"]


def test_two_runs_do_not_meet(source: Path, tmp_path: Path) -> None:
    first = convert(source, tmp_path / "out")
    next(first)
    with pytest.raises(RequestError, match="another run is writing"):
        list(convert(source, tmp_path / "out"))
    list(first)
    ZImage.load(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]


def test_what_lies_beside_the_weights_comes_along(source: Path, tmp_path: Path) -> None:
    folder = copy(source, tmp_path / "ck")
    for name in ("LICENSE", "tokenizer/chat_template.jinja", "vae/old.bin", ".hidden"):
        (folder / name).write_text("x")
    config = folder / "text_encoder/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "torch_dtype": "float32"}))
    list(convert(folder, tmp_path / "out"))
    out = tmp_path / "out"
    assert (out / "LICENSE").is_file()
    assert (out / "tokenizer/chat_template.jinja").is_file()
    assert not (out / "vae/old.bin").exists()
    assert not (out / ".hidden").exists()
    assert json.loads((out / "text_encoder/config.json").read_text())["torch_dtype"] == "bfloat16"


@pytest.mark.parametrize("place", [".", "inner", ".."])
def test_source_and_output_must_lie_apart(source: Path, tmp_path: Path, place: str) -> None:
    folder = copy(source, tmp_path / "ck")
    with pytest.raises(RequestError, match="must lie apart"):
        list(convert(folder, folder / place, force=True))
    ZImage.load(folder)


def test_a_broken_source_writes_nothing(source: Path, tmp_path: Path) -> None:
    folder = copy(source, tmp_path / "ck")
    shards(folder / "vae")[0].unlink()
    with pytest.raises(CheckpointError, match="lacks"):
        list(convert(folder, tmp_path / "out"))
    assert os.listdir(tmp_path) == ["ck"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_broken_write_leaves_the_old_output(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    out = tmp_path / "out"
    out.mkdir()

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(conversion, "_write_shard", fail)
    expected = CheckpointError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        list(convert(source, out, force=True))
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(out) == []


def test_stopping_half_way_leaves_nothing(source: Path, tmp_path: Path) -> None:
    events = convert(source, tmp_path / "out")
    next(events)
    events.close()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("delay", [0.2, 0.35, 0.5, 0.7, 0.9])
def test_killed(source: Path, tmp_path: Path, delay: float) -> None:
    """At any moment: nothing that loads is left behind, and the next run is not disturbed."""
    out = tmp_path / "out"
    script = Path(__file__).parents[2] / "convert.py"
    running = subprocess.Popen(
        [sys.executable, str(script), str(source), str(out)], stderr=subprocess.DEVNULL
    )
    time.sleep(delay)
    running.send_signal(signal.SIGKILL)
    running.wait()
    if out.exists():  # it was quicker: then it must be whole
        ZImage.load(out)
        shutil.rmtree(out)
    list(convert(source, out))
    ZImage.load(out)
    assert os.listdir(tmp_path) == ["out"]


def test_numbers_that_a_dtype_cannot_hold(source: Path, tmp_path: Path) -> None:
    folder = copy(source, tmp_path / "ck")
    file = shards(folder / "vae")[0]
    weights = mx.load(str(file))
    assert isinstance(weights, dict)
    key = sorted(weights)[0]
    mx.save_safetensors(str(file), {**weights, key: weights[key] * 1e6})
    with pytest.raises(CheckpointError, match=f"tensor '{key}' holds numbers .* float16"):
        list(convert(folder, tmp_path / "out", dtype="float16"))
    assert os.listdir(tmp_path) == ["ck"]
    list(convert(folder, tmp_path / "out", dtype="bfloat16"))


def test_names_that_no_file_system_takes(source: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot write"):
        list(convert(source, tmp_path / ("x" * 300)))


def test_a_wrong_dtype(source: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="dtype must be one of"):
        list(convert(source, tmp_path / "out", dtype="int4"))
