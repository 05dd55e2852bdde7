"""Runs from beginning to end: stopped, resumed, and refused."""

import json
import random
import resource
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlx_zimage import (
    LoraError,
    OutOfMemoryError,
    RequestError,
    Result,
    TrainingStarted,
    TrainingStep,
    train,
)
from mlx_zimage.training import plan

from .conftest import SIZES, Train, write_pictures

STEPS = 6


@pytest.fixture(scope="module")
def whole(
    pictures: Path,
    checkpoint: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Return the file of a run that was never stopped."""
    from mlx_zimage import TrainingOptions

    from .conftest import SMALL

    out = tmp_path_factory.mktemp("whole") / "a.safetensors"
    options = TrainingOptions(**{**SMALL, "steps": STEPS, "batch": 2, "accumulate": 2})
    for _ in train(pictures, out, checkpoint("diffusers"), options=options, dtype="float32"):
        pass
    return out


@pytest.mark.slow
def test_events_say_what_is_done(pictures: Path, tmp_path: Path, small_run: Train) -> None:
    out = tmp_path / "new" / "a.safetensors"
    events = small_run(pictures, out, steps=3, save_every=2, sample_every=3)
    started = events[0]
    assert isinstance(started, TrainingStarted)
    assert started.sizes == ((32, 32, 2), (40, 24, 1)) and started.pictures == 3
    assert (started.step, started.steps, started.epochs) == (0, 3, 1.0)
    steps = [event for event in events if isinstance(event, TrainingStep)]
    assert [step.number for step in steps] == [1, 2, 3]
    assert [len(step.saved) for step in steps] == [0, 3, 5]  # the curve, state and file; samples
    assert all(file.is_file() for step in steps for file in step.saved)
    samples = [event for event in events if isinstance(event, Result)]
    assert [s.request.prompts for s in samples] == [
        ((pictures / f"{n}.txt").read_text().strip(),) for n in (0, 1)
    ]
    with Image.open(started.folder / "loss.png") as curve:
        assert curve.size == (960, 480)
    assert len(_header(out)) - 1 == 2 * (2 * 4 + 7)  # attention in two layers, and a refiner
    header = _header(out)
    assert header["__metadata__"]["training_steps"] == "3"


def test_a_stopped_run_goes_on_to_the_same_bits(
    pictures: Path, whole: Path, tmp_path: Path, small_run: Train
) -> None:
    """It is stopped twice, at random, where nothing was due to be saved."""
    first, second = sorted(random.sample(range(1, STEPS), 2))
    out = tmp_path / "a.safetensors"
    options = {"steps": STEPS, "batch": 2, "accumulate": 2}
    small_run(pictures, out, stop=first, **options)
    assert out.read_bytes() != whole.read_bytes()
    events = small_run(pictures, out, stop=second, resume=True, **options)
    assert isinstance(events[0], TrainingStarted) and events[0].step == first
    events = small_run(pictures, out, resume=True, **options)
    assert next(e.number for e in events if isinstance(e, TrainingStep)) == second + 1
    assert out.read_bytes() == whole.read_bytes(), (first, second)
    states = [file.with_name("a-training") / "state.safetensors" for file in (out, whole)]
    assert states[0].read_bytes() == states[1].read_bytes()


def test_an_error_in_a_step_loses_no_more_than_that_step(
    pictures: Path, tmp_path: Path, small_run: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlx_zimage.training import run as module

    calls = iter(range(100))

    def interrupted(*arguments, **options):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return _updated(*arguments, **options)

    _updated = module._updated
    monkeypatch.setattr(module, "_updated", interrupted)
    out = tmp_path / "a.safetensors"
    with pytest.raises(KeyboardInterrupt):
        small_run(pictures, out)
    monkeypatch.undo()
    assert _header(out)["__metadata__"]["training_steps"] == "2"
    events = small_run(pictures, out, resume=True)
    assert events[0].step == 2


def test_what_changes_the_weights_may_not_change_in_a_run(
    pictures: Path, tmp_path: Path, small_run: Train, checkpoint: Callable[[str], Path]
) -> None:
    out = tmp_path / "a.safetensors"
    small_run(pictures, out, stop=1)
    with pytest.raises(RequestError, match="or begin anew"):
        small_run(pictures, out)
    for change, message in (
        ({"learning_rate": 0.5}, "it began: learning_rate was 0.01 and is 0.5; go back"),
        ({"model": checkpoint("small")}, "the model is another one"),
        ({"quantize": 8, "model": checkpoint("even")}, "the model is another one"),
    ):
        with pytest.raises(LoraError, match=message):
            small_run(pictures, out, resume=True, **change)
    other = write_pictures(tmp_path / "other", SIZES[:2])
    with pytest.raises(LoraError, match="the pictures or their captions are others"):
        small_run(other, out, resume=True)
    small_run(pictures, out, resume=True, save_every=2)
    with pytest.raises(RequestError, match="no run to resume"):
        small_run(pictures, tmp_path / "b.safetensors", resume=True)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("0.png", None, "holds no pictures"),
        ("1.txt", None, "1.png must have a caption"),
        ("2.png", b"\x89PNG\r\n", "2.png cannot be read"),
        ("metadata.jsonl", b"{}\n", "line 1 of .*metadata.jsonl must be a JSON object"),
        ("metadata.jsonl", b'{"file_name": "9.png", "text": "x"}', "9.png cannot be read"),
        ("0.txt", b"\xff", "0.txt cannot be read"),
    ],
)
def test_refused_pictures(
    file: str, content: bytes | None, message: str, tmp_path: Path, small_run: Train
) -> None:
    folder = write_pictures(tmp_path / "p")
    if message == "holds no pictures":
        for picture in folder.glob("*.png"):
            picture.unlink()
    elif content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(RequestError, match=message) as refusal:
        small_run(folder, tmp_path / "a.safetensors")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "a-training").exists()


def test_a_picture_that_ends_early_is_refused_by_name(tmp_path: Path, small_run: Train) -> None:
    folder = write_pictures(tmp_path / "p")
    data = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(RequestError, match=r"1\.png cannot be read"):
        small_run(folder, tmp_path / "a.safetensors")


def test_a_list_of_captions_and_a_default(tmp_path: Path, small_run: Train) -> None:
    folder = write_pictures(tmp_path / "p")
    rows = [{"file_name": f"{n}.png"} | ({"text": "one"} if n else {}) for n in range(3)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(RequestError, match=r"0\.png must have a caption"):
        small_run(folder, tmp_path / "a.safetensors", steps=1)
    small_run(folder, tmp_path / "a.safetensors", steps=1, default_caption="a thing")
    assert len([*(tmp_path / "a-training" / "encoded").iterdir()]) == 3 + 3  # "one", the empty one


def test_encoded_pictures_are_used_again(pictures: Path, tmp_path: Path, small_run: Train) -> None:
    out = tmp_path / "a.safetensors"
    small_run(pictures, out, steps=1)
    copy = tmp_path / "p"
    shutil.copytree(pictures, copy)
    (copy / "0.txt").write_text("other words")
    events = small_run(copy, out, steps=1, rank=1, overwrite=True)
    assert [(e.what, e.total) for e in events if type(e).__name__ == "Encoded"] == [("captions", 1)]


def test_a_full_disk_is_one_line_and_leaves_the_last_save(
    pictures: Path, tmp_path: Path, small_run: Train
) -> None:
    out = tmp_path / "a.safetensors"
    small_run(pictures, out, stop=1)
    before = out.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(RequestError, match=r"cannot write .*state\.safetensors"):
            small_run(pictures, out, resume=True, stop=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert out.read_bytes() == before
    assert small_run(pictures, out, resume=True)[0].step == 1


def test_a_run_that_does_not_fit_is_refused_before_it_begins(
    pictures: Path, tmp_path: Path, small_run: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan.device, "memory", lambda: 1_000_000)
    with pytest.raises(OutOfMemoryError, match=r"this device has 0\.00 GB"):
        small_run(pictures, tmp_path / "a.safetensors")
    assert [*tmp_path.iterdir()] == []


def test_wild_rates_end_with_a_line(pictures: Path, tmp_path: Path, small_run: Train) -> None:
    with pytest.raises(LoraError, match="not finite at step"):
        small_run(
            pictures, tmp_path / "a.safetensors", steps=50, learning_rate=10.0, clip=1e9,
            targets=("*",), weight_decay=10.0,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("option", "value"),
    [("steps", 0), ("rank", 2.5), ("learning_rate", float("nan")), ("kind", "loha"),
     ("targets", ()), ("caption_dropout", 1.1), ("factor", 0), ("sample_prompts", [3])],
)  # fmt: skip
def test_refused_options(option: str, value: object, tmp_path: Path, small_run: Train) -> None:
    with pytest.raises(RequestError, match=option):
        small_run(tmp_path, tmp_path / "a.safetensors", **{option: value})


def test_a_rank_above_a_layers_side(pictures: Path, tmp_path: Path, small_run: Train) -> None:
    with pytest.raises(RequestError, match="rank must be at most 32"):
        small_run(pictures, tmp_path / "a.safetensors", rank=33)


def test_lokr_file(pictures: Path, tmp_path: Path, small_run: Train) -> None:
    out = tmp_path / "a.safetensors"
    small_run(pictures, out, kind="lokr", steps=1)
    header = _header(out)
    key = "diffusion_model.layers.0.attention.to_q"
    assert header[f"{key}.lokr_w1"]["shape"] == [4, 4] and header[f"{key}.alpha"]["shape"] == []
    assert header[f"{key}.lokr_w2"]["shape"] == [8, 8]
    assert "lora_adapter_metadata" not in header["__metadata__"]


@pytest.mark.slow  # the compiler takes most of it
def test_compiled_steps_are_the_same(pictures: Path, tmp_path: Path, small_run: Train) -> None:
    losses = []
    for compiles in (False, True):
        events = small_run(
            pictures, tmp_path / "a.safetensors", steps=2, compile=compiles, overwrite=compiles,
            targets=("layers.0.attention",), checkpointing=True,
        )  # fmt: skip
        losses.append([e.loss for e in events if isinstance(e, TrainingStep)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def _header(file: Path) -> dict:
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])
