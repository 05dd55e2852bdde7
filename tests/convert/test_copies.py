"""Quantized copies: made once, found again, made anew when their source changes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_zimage import CheckpointError, RequestError, ZImage
from mlx_zimage.convert import copies as cache
from mlx_zimage.convert.plan import Plan


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLX_ZIMAGE_CACHE", str(tmp_path / "copies"))
    return tmp_path / "copies"


@pytest.fixture
def source(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("demo")


def test_made_once(source: Path, home: Path) -> None:
    plan = Plan.of(source, quantize=4, dtype="float32")
    events = list(cache.make(plan))
    assert events[-1].done == events[-1].total
    assert list(cache.make(Plan.of(source, quantize=4, dtype="float32"))) == []
    copy = ZImage.load(cache.place(plan))
    assert copy.capabilities().quantize == 4
    drawn = {"width": 32, "height": 32, "steps": 2, "seed": 1}
    a, b = (m.generate("x", **drawn) for m in (copy, ZImage.load(source, quantize=4)))
    assert a.latents.tolist() == b.latents.tolist()  # kept or not, the picture is the same
    assert [kept.path for kept in cache.kept()] == [cache.place(plan)]


def test_each_recipe_and_source_has_its_own(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = [Plan.of(source, quantize=q, dtype=d) for q in (4, 8) for d in ("float32", "bfloat16")]
    other = tmp_path / "other"
    shutil.copytree(source, other)
    plans.append(Plan.of(other, quantize=4, dtype="float32"))
    weights = next((other / "vae").glob("*.safetensors"))
    places = {cache.place(plan) for plan in plans}
    weights.touch()  # what was changed is another source
    places.add(cache.place(plans[-1]))
    (other / "scheduler/scheduler_config.json").touch()  # it would be copied
    places.add(cache.place(plans[-1]))
    assert len(places) == 7
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(other)
    for same in (Path("other"), tmp_path / "link"):
        copied = cache.place(Plan.of(same, quantize=4, dtype="float32"))
        assert copied == cache.place(plans[-1])


def test_removed(source: Path, home: Path) -> None:
    list(cache.make(Plan.of(source, quantize=8)))
    (kept,) = cache.kept()
    assert kept.size == sum(f.stat().st_size for f in kept.path.rglob("*") if f.is_file())
    for name in ("..", "nothing", "", f"../copies/{kept.name}"):
        with pytest.raises(RequestError, match="see mlx-zimage cache list"):
            cache.remove(name)
    cache.remove(kept.name)
    assert cache.kept() == [] and list(home.iterdir()) == []


def test_what_a_stopped_run_left(source: Path, home: Path) -> None:
    """Shown and removed, but not while a run is at work in it."""
    events = cache.make(Plan.of(source, quantize=4))
    next(events)
    assert cache.kept() == []
    shutil.copytree(next(home.iterdir()), home / ".left.part")
    events.close()
    (kept,) = cache.kept()
    assert cache.remove(kept.name).name == ".left.part"
    assert list(home.iterdir()) == []


def test_small_or_quantized_ones_are_not_worth_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan.of(source, quantize=4)
    assert not cache.is_worth(plan)
    monkeypatch.setattr(cache, "WORTH", 1000)
    assert cache.is_worth(plan)
    list(cache.make(plan))
    assert not cache.is_worth(Plan.of(cache.place(plan), quantize=4))
    assert cache.is_worth(Plan.of(cache.place(plan), quantize=8))


def test_no_room(source: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(CheckpointError, match="make room, or give --no-cache"):
        list(cache.make(Plan.of(source, quantize=4)))
    home.rmdir()
    home.write_text("in the way")
    with pytest.raises(CheckpointError, match="nothing can be kept in"):
        list(cache.make(Plan.of(source, quantize=4)))
