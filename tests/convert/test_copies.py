"""Quantized copies: made once, found again, made anew when their source changes."""

import shutil
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from mlx_zimage import CheckpointError, RequestError, Written, ZImage, list_copies, remove_copy
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.convert import copies
from mlx_zimage.convert.copies import QuantizedCopy, quantized_copy

DRAWN = {"width": 32, "height": 32, "steps": 2, "seed": 1}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLX_ZIMAGE_CACHE", str(tmp_path / "copies"))
    monkeypatch.setattr(copies, "LARGE", 1000)  # so that a copy of the demo pays
    return tmp_path / "copies"


@pytest.fixture
def source(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("demo")


def _copy(source: Path, quantize: int = 4, dtype: str = "float32") -> QuantizedCopy:
    copy = quantized_copy(Checkpoint.open(source), quantize, dtype)
    assert copy is not None
    return copy


def _drain(events: Generator[Written, None, object]) -> list[Written]:
    return list(events)


@pytest.mark.slow
def test_made_once_by_load(source: Path) -> None:
    events = ZImage.loading(source, quantize=4, dtype="float32")
    written = _drain(events)
    assert written[-1].done == written[-1].total
    assert _drain(ZImage.loading(source, quantize=4, dtype="float32")) == []
    copied = ZImage.load(source, quantize=4, dtype="float32")
    assert copied.capabilities().quantize == 4
    assert [copy.path for copy in list_copies()] == [Path(copied.capabilities().source)]
    in_memory = ZImage.load(source, quantize=4, dtype="float32", keep_copy=False)
    a, b = (model.generate("x", **DRAWN) for model in (copied, in_memory))
    assert a.latents.tolist() == b.latents.tolist()


def test_keep_copy_false_writes_nothing(source: Path, home: Path) -> None:
    ZImage.load(source, quantize=4, keep_copy=False)
    assert not home.exists()


def test_blocks_are_streamed_from_the_copy(source: Path) -> None:
    model = ZImage.load(source, quantize=4, dtype="float32", memory="low")
    assert model.capabilities().memory == "low"
    model.generate("x", **DRAWN)


def test_an_impossible_request_is_refused_before_the_copy(source: Path, home: Path) -> None:
    from mlx_zimage import Request

    with pytest.raises(RequestError, match="width must be a multiple of 16"):
        _drain(ZImage.loading(source, quantize=4, requests=[Request("x", width=17)]))
    assert not home.exists()


def test_each_recipe_and_source_has_its_own(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {_copy(source, q, d).path for q in (4, 8) for d in ("float32", "bfloat16")}
    other = tmp_path / "other"
    shutil.copytree(source, other)
    paths.add(_copy(other).path)
    next((other / "vae").glob("*.safetensors")).touch()  # a changed file makes another source
    paths.add(_copy(other).path)
    (other / "scheduler/scheduler_config.json").touch()  # it would be copied
    paths.add(_copy(other).path)
    assert len(paths) == 7
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(other)
    for same in (Path("other"), tmp_path / "link"):
        assert _copy(same).path == _copy(other).path


def test_removed(source: Path, home: Path) -> None:
    _drain(_copy(source, 8).make())
    (copy,) = list_copies()
    assert copy.size == sum(f.stat().st_size for f in copy.path.rglob("*") if f.is_file())
    for name in ("..", "nothing", "", f"../copies/{copy.name}"):
        with pytest.raises(RequestError, match="see mlx-zimage cache list"):
            remove_copy(name)
    remove_copy(copy.name)
    assert list_copies() == [] and list(home.iterdir()) == []


def test_the_remnant_of_a_stopped_run(source: Path, home: Path) -> None:
    """It is listed and removed, but not while a run writes into it."""
    events = _copy(source).make()
    next(events)
    assert list_copies() == []
    shutil.copytree(next(home.iterdir()), home / ".stopped.part")
    events.close()
    (remnant,) = list_copies()
    assert remove_copy(remnant.name).name == ".stopped.part"
    assert list(home.iterdir()) == []


def test_small_or_quantized_checkpoints_are_not_copied(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = _copy(source)
    _drain(copy.make())
    assert quantized_copy(Checkpoint.open(copy.path), 4, "float32") is None
    assert quantized_copy(Checkpoint.open(copy.path), 8, "float32") is not None
    monkeypatch.setattr(copies, "LARGE", 1_000_000_000)
    assert quantized_copy(Checkpoint.open(source), 4, "float32") is None


def test_no_room(source: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(CheckpointError, match=r"make room, or .* keep_copy=False"):
        ZImage.load(source, quantize=4)
    home.rmdir()
    home.write_text("in the way")
    with pytest.raises(CheckpointError, match="no copy can be kept in"):
        ZImage.load(source, quantize=4)
