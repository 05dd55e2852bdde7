"""The folder in another precision, written whole or not at all."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage import (
    CheckpointError,
    Conversion,
    RequestError,
    Written,
    ZImage,
    convert_checkpoint,
    verify_checkpoint,
)
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.checkpoint.components import COMPONENTS
from mlx_zimage.checkpoint.family import MANIFEST
from mlx_zimage.convert import publish
from mlx_zimage.convert import write as writer
from mlx_zimage.hub.locate import DEMO
from mlx_zimage.quantization.recipe import CHOICES
from mlx_zimage.weights.index import read_folder
from mlx_zimage.weights.safetensors import read_header
from tests.checkpoint.broken import copy, edit_json, shards
from tests.measures import cosine

DRAWN: dict[str, Any] = {"width": 32, "height": 32, "steps": 2, "seed": 1}


def convert(
    source: Path, out: Path, *, force: bool = False, **options: Any
) -> Generator[Written, None, None]:
    return convert_checkpoint(Conversion.plan(source, **options), out, force=force)


@pytest.fixture
def source(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("small")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_same_keys_and_rounded_values(source: Path, tmp_path: Path, dtype: str) -> None:
    out = tmp_path / "out"
    told = list(convert(source, out, dtype=dtype))
    kind = getattr(mx, dtype)
    before, after = Checkpoint.open(source), Checkpoint.open(out)
    for part in COMPONENTS:
        mine = [event for event in told if event.component == part]
        assert [event.done for event in mine] == sorted(event.done for event in mine)
        assert mine[-1].done == mine[-1].total
        assert after[part].tensors.keys() == before[part].tensors.keys()
        for key, tensor in after[part].tensors.items():
            kept = before[part].tensors[key].read()
            assert tensor.read().dtype == kind
            assert mx.array_equal(tensor.read(), kept.astype(kind)), key
    assert os.listdir(tmp_path) == ["out"]
    assert [*verify_checkpoint(out)][-3:] == list(COMPONENTS)


def test_shards_have_an_index(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    list(convert(source, whole))
    monkeypatch.setattr(writer, "SHARD", 60_000)
    list(convert(source, tmp_path / "out"))
    for part in COMPONENTS:
        [index] = (tmp_path / "out" / part).glob("*.index.json")
        entries = read_folder(tmp_path / "out" / part)
        size = sum(entry.stop - entry.start for entry in entries.values())
        assert json.loads(index.read_text())["metadata"]["total_size"] == size
        assert len(shards(tmp_path / "out" / part)) > 1
        for file in shards(tmp_path / "out" / part):
            assert file.stat().st_size < 70_000 or len(read_header(file)) == 1
    a, b = (ZImage.load(folder).generate("x", **DRAWN) for folder in (whole, tmp_path / "out"))
    assert mx.array_equal(a.latents, b.latents)


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
    a, b = (ZImage.load(folder).generate("x", **DRAWN) for folder in (source, tmp_path / "out"))
    assert mx.array_equal(a.latents, b.latents)


def test_an_existing_output_is_kept_unless_forced(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("x")
    with pytest.raises(RequestError, match="exists; name another folder"):
        list(convert(source, out))
    assert os.listdir(out) == ["mine"]
    with pytest.raises(RequestError, match=r"would delete .*mine, which no conversion has"):
        list(convert(source, out, force=True))
    assert os.listdir(out) == ["mine"]
    (out / "mine").unlink()
    list(convert(source, out, force=True))
    first = (out / MANIFEST).read_bytes()
    (out / ".DS_Store").write_text("macOS")
    list(convert(source, out, force=True, dtype="float32"))
    assert (out / MANIFEST).read_bytes() != first
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("name", ["notes.txt", "transformer/mine", "vae/.hidden", "new/deep/x"])
def test_a_file_that_no_conversion_wrote_is_never_deleted(
    source: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    list(convert(source, out))
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text("mine")
    with pytest.raises(RequestError, match=f"would delete {out / name}"):
        list(convert(source, out, force=True))
    assert (out / name).read_text() == "mine"


def test_a_checkpoint_without_a_manifest_is_not_replaced(source: Path, tmp_path: Path) -> None:
    out = copy(source, tmp_path / "out")
    with pytest.raises(RequestError, match="which no conversion has written"):
        list(convert(source, out, force=True))
    ZImage.load(out)


def test_the_demo_is_never_an_output(source: Path) -> None:
    with pytest.raises(RequestError, match="must not overlap"):
        list(convert(source, DEMO, force=True))
    with pytest.raises(RequestError, match="must not overlap"):
        list(convert(source, DEMO / "inner"))


@pytest.mark.parametrize("name", ["missing.safetensors", "empty"])
def test_files_beside_must_exist_and_hold_something(
    source: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"does not exist|is no checkpoint"):
        Conversion.plan(source, beside=[tmp_path / name])


def test_a_file_is_never_replaced(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(RequestError, match="force=True replaces a converted checkpoint, and"):
        list(convert(source, tmp_path / "out", force=True))
    assert (tmp_path / "out").read_text() == "mine"


def test_the_old_output_comes_back_if_the_last_rename_fails(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    list(convert(source, out))
    before = (out / MANIFEST).read_bytes()
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(CheckpointError, match="Input/output error"):
        list(convert(source, out, force=True, dtype="float32"))
    assert (out / MANIFEST).read_bytes() == before
    assert os.listdir(tmp_path) == ["out"]


def test_the_old_output_comes_back_after_a_kill_between_renames(
    source: Path, tmp_path: Path
) -> None:
    (tmp_path / ".out.part").mkdir()
    copy(source, tmp_path / ".out.part/old")
    with pytest.raises(RequestError, match="exists; name another folder"):
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
    out = tmp_path / "out"
    list(convert(source, out))
    before = (out / MANIFEST).read_bytes()
    rename, done = Path.rename, []

    def interrupt(self: Path, target: Path) -> Path:
        moved = rename(self, target)
        done.append(self)
        if len(done) == stop:
            raise KeyboardInterrupt
        return moved

    monkeypatch.setattr(Path, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(convert(source, out, force=True, dtype="float32"))
    assert ((out / MANIFEST).read_bytes() == before) is (stop == 1)
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
    with pytest.raises(RequestError, match="must not overlap"):
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

    monkeypatch.setattr(publish, "write", fail)
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


MORE = (5, 6, "mxfp8")
"""Ways to quantize that are like others, and tested with the slow tests."""
KILLED = """
import os, signal, sys
from pathlib import Path
from mlx_zimage import Conversion, convert_checkpoint

source, out, point = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
conversion, count = Conversion.plan(source, quantize=8), 0

def touched(event, arguments):  # each time the program opens, makes, renames or removes something
    global count
    if event == "open" or event.startswith(("os.", "shutil.")):
        count += 1
        if count == point:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(touched)
list(convert_checkpoint(conversion, out, force=True))
print(count)
"""


def _killed(source: Path, out: Path, point: int) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", KILLED, str(source), str(out), str(point)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.slow
def test_killed_at_any_moment(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """The old output stands, or the new one, whole; and the next run is not disturbed."""
    source, out = checkpoint("demo"), tmp_path / "out"
    done = _killed(source, out, 0)
    points = int(done.stdout)
    for point in [*range(1, points - 8, max(points // 8, 1)), *range(points - 8, points + 1)]:
        assert _killed(source, out, point).returncode == -signal.SIGKILL
        [*verify_checkpoint(out)]
        assert {path.name for path in tmp_path.iterdir()} <= {"out", ".out.part"}
    list(convert(source, out, force=True, dtype="float32"))
    assert os.listdir(tmp_path) == ["out"]
    assert json.loads((out / MANIFEST).read_text())["dtype"] == "float32"


def test_a_disk_that_fills_up(source: Path, tmp_path: Path) -> None:
    """No file may pass 200 kB: an error of the system's own, and the old output untouched."""
    out = tmp_path / "out"
    list(convert(source, out))
    before = (out / MANIFEST).read_bytes()
    script = Path(__file__).parents[2] / "convert.py"
    limited = ["bash", "-c", 'ulimit -f 200; exec "$@"', "-", sys.executable, script]
    done = subprocess.run(
        [*limited, source, out, "--force", "--dtype", "float32"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == f"error: cannot write {out}: File too large"
    assert (out / MANIFEST).read_bytes() == before and os.listdir(tmp_path) == ["out"]
    [*verify_checkpoint(out)]


def test_a_place_that_cannot_be_written(source: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot write /proc/out"):
        list(convert(source, Path("/proc/out")))


def test_numbers_that_a_dtype_cannot_hold(source: Path, tmp_path: Path) -> None:
    folder = copy(source, tmp_path / "ck")
    file = shards(folder / "vae")[0]
    weights = mx.load(str(file))
    assert isinstance(weights, dict)
    key = sorted(weights)[0]
    mx.save_safetensors(str(file), {**weights, key: weights[key] * 1e6})
    with pytest.raises(CheckpointError, match=f"tensor '{key}' holds numbers .* F16"):
        list(convert(folder, tmp_path / "out", dtype="float16"))
    assert os.listdir(tmp_path) == ["ck"]
    list(convert(folder, tmp_path / "out", dtype="bfloat16"))


def test_names_that_no_file_system_takes(source: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot write"):
        list(convert(source, tmp_path / ("x" * 300)))


def test_a_wrong_dtype(source: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="dtype must be one of"):
        list(convert(source, tmp_path / "out", dtype="int4"))


@pytest.mark.parametrize(
    "quantize", [pytest.param(c, marks=pytest.mark.slow if c in MORE else []) for c in CHOICES]
)
def test_quantized(checkpoint: Callable[[str], Path], tmp_path: Path, quantize: int | str) -> None:
    """The folder draws what the same quantization draws while loading."""
    source, out = checkpoint("even"), tmp_path / "out"
    list(convert(source, out, quantize=quantize, dtype="float32"))
    assert [*verify_checkpoint(out)][-3:] == list(COMPONENTS)
    stored = ZImage.load(out, dtype="float32")
    loaded = ZImage.load(source, quantize=quantize, dtype="float32")
    a, b = (model.generate("x", **DRAWN) for model in (stored, loaded))
    assert mx.array_equal(a.latents, b.latents)
    block = json.loads((out / "transformer/config.json").read_text())["quantization"]
    assert block["bits"] == (quantize if isinstance(quantize, int) else int(quantize[-1]))
    assert "quantization" not in json.loads((out / "vae/config.json").read_text())


@pytest.mark.slow
def test_quantized_again_is_passed_through(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    list(convert(checkpoint("even"), tmp_path / "q4", quantize=4))
    for options in ({}, {"quantize": 4}):
        out = tmp_path / f"again{len(options)}"
        list(convert(tmp_path / "q4", out, **options))
        for part in COMPONENTS:
            [a], [b] = shards(tmp_path / "q4" / part), shards(out / part)
            assert a.read_bytes() == b.read_bytes()
    list(convert(tmp_path / "q4", tmp_path / "q8", quantize=8))
    pictures = [ZImage.load(tmp_path / name).generate("x", **DRAWN) for name in ("q4", "q8")]
    likeness = cosine(pictures[1].latents, np.array(pictures[0].latents))
    assert likeness > 0.999, likeness


def test_a_text_encoder_of_its_own_bits(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    list(convert(checkpoint("even"), tmp_path / "out", quantize=4, text_encoder=8))
    for part, bits in (("transformer", 4), ("text_encoder", 8)):
        config = json.loads((tmp_path / "out" / part / "config.json").read_text())
        assert config["quantization"]["bits"] == bits
    model = ZImage.load(tmp_path / "out")
    model.generate("x", **DRAWN)
    assert model.capabilities().quantize == 4


@pytest.mark.parametrize("group_size", [32, 64])
def test_group_sizes(checkpoint: Callable[[str], Path], tmp_path: Path, group_size: int) -> None:
    list(convert(checkpoint("even"), tmp_path / "out", quantize=4, group_size=group_size))
    opened = Checkpoint.open(tmp_path / "out")
    packings = {tensor.packing for tensor in opened["transformer"].tensors.values()} - {None}
    assert {packing.group_size for packing in packings if packing} == {group_size}
    ZImage.load(tmp_path / "out").generate("x", **DRAWN)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"quantize": 7}, "quantize must be one of"),
        ({"quantize": 4, "group_size": 48}, "group size of 4-bit weights must be 32 or 64 or 128"),
        ({"quantize": "mxfp4", "group_size": 64}, "group size of mxfp4 weights must be 32"),
        ({"group_size": 64}, "say how many bits"),
        ({"only": "tokenizer"}, "only must be one of"),
        ({"quantize": 4, "group_size": 128}, "multiple of 128"),
        ({"only": "vae", "quantize": 4}, "has no effect on the vae alone"),
        ({"only": "transformer", "quantize": 4, "text_encoder": 8}, "has no effect on the trans"),
        ({"only": "vae", "group_size": 64}, "say how many bits"),
        ({"quantize": 0}, "quantize must be one of"),
        ({"quantize": 4, "text_encoder": "banana"}, "quantize must be one of"),
        ({"base": "turbo"}, "a base has no effect"),
    ],
)
def test_what_cannot_be(
    checkpoint: Callable[[str], Path], tmp_path: Path, options: dict[str, Any], match: str
) -> None:
    with pytest.raises(RequestError, match=match):
        list(convert(checkpoint("even"), tmp_path / "out", **options))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("quantize", [None, 4])
def test_the_plan_is_what_is_written(
    checkpoint: Callable[[str], Path], tmp_path: Path, quantize: int | None
) -> None:
    plan = Conversion.plan(checkpoint("even"), quantize=quantize)
    list(convert_checkpoint(plan, tmp_path / "out"))
    for part in COMPONENTS:
        entries = read_folder(tmp_path / "out" / part).values()
        assert plan.size(part) == sum(entry.stop - entry.start for entry in entries)


def test_one_part_alone(source: Path, tmp_path: Path) -> None:
    told = list(convert(source, tmp_path / "out", only="vae"))
    assert {event.component for event in told} == {"vae"}
    assert sorted(os.listdir(tmp_path / "out")) == ["README.md", MANIFEST, "vae"]
    assert [*verify_checkpoint(tmp_path / "out")][-1] == "vae"
    list(convert(source, tmp_path / "out", only="vae", force=True))


def test_some_parts_and_a_base(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """A folder with two parts of three, quantized: the rest comes from the base."""
    source, some = checkpoint("even"), tmp_path / "some"
    list(convert(source, some, quantize=8, dtype="float32"))
    for name in ("vae", "tokenizer", "scheduler"):
        shutil.rmtree(some / name)
    list(convert(some, tmp_path / "out", dtype="float32", base=source))
    models = ZImage.load(tmp_path / "out"), ZImage.load(source, quantize=8)
    a, b = (model.generate("x", **DRAWN) for model in models)
    assert mx.array_equal(a.latents, b.latents)


def test_the_text_encoder_alone_may_be_quantized(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    list(convert(checkpoint("even"), tmp_path / "out", text_encoder=4))
    assert ZImage.load(tmp_path / "out").capabilities().quantize is None
    opened = Checkpoint.open(tmp_path / "out")
    assert any(tensor.packing for tensor in opened["text_encoder"].tensors.values())


def test_folders_that_are_links(source: Path, tmp_path: Path) -> None:
    folder = copy(source, tmp_path / "ck")
    for part in ("tokenizer", "vae"):
        shutil.move(folder / part, tmp_path / part)
        (folder / part).symlink_to(tmp_path / part)
    (folder / "tokenizer/around").symlink_to(folder)  # and round in a circle
    list(convert(folder, tmp_path / "out"))
    ZImage.load(tmp_path / "out").generate("x", **DRAWN)


def test_the_same_folder_under_another_name(source: Path, tmp_path: Path) -> None:
    folder = copy(source, tmp_path / "ck")
    (tmp_path / "link").symlink_to(folder)
    for out in (tmp_path / "link", tmp_path / "link/inner"):
        with pytest.raises(RequestError, match="must not overlap"):
            list(convert(folder, out, force=True))
    ZImage.load(folder)


def test_scales_that_float16_cannot_hold(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """Carried over, not quantized anew: the cast is what makes them infinite."""
    list(convert(checkpoint("even"), tmp_path / "q8", quantize=8))
    [file] = shards(tmp_path / "q8/transformer")
    arrays = mx.load(str(file))
    assert isinstance(arrays, dict)
    key = next(key for key in arrays if key.endswith(".scales"))
    arrays[key] = mx.full(arrays[key].shape, 1e6, mx.bfloat16)
    mx.save_safetensors(str(file), arrays)
    with pytest.raises(CheckpointError, match=r"or exceed F16; try bfloat16"):
        list(convert(tmp_path / "q8", tmp_path / "out", dtype="float16"))
    assert os.listdir(tmp_path) == ["q8"]


@pytest.mark.parametrize("what", ["weights", "config", "missing"])
def test_verify_finds_what_was_changed(source: Path, tmp_path: Path, what: str) -> None:
    out = tmp_path / "out"
    list(convert(source, out))
    file = shards(out / "vae")[0]
    if what == "weights":
        raw = bytearray(file.read_bytes())
        raw[-1] ^= 1
        file.write_bytes(raw)
    elif what == "config":
        edit_json(out / "transformer/config.json", lambda data: data.update(rope_theta=255.0))
    else:
        file.unlink()
    with pytest.raises(CheckpointError, match=r"is not the file that was written|lacks vae"):
        list(verify_checkpoint(out))


@pytest.mark.parametrize("content", ["{}", '{"files": {}}', '{"files": []}', '{"files": null}'])
def test_a_manifest_that_lists_nothing(source: Path, tmp_path: Path, content: str) -> None:
    out = tmp_path / "out"
    list(convert(source, out))
    (out / MANIFEST).write_text(content)
    with pytest.raises(CheckpointError, match="lists no files"):
        list(verify_checkpoint(out))


def test_a_file_that_the_manifest_does_not_list(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    list(convert(source, out))
    (out / "vae/extra.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"extra\.safetensors is not listed"):
        list(verify_checkpoint(out))


def test_verify_needs_a_manifest(source: Path) -> None:
    with pytest.raises(CheckpointError, match=f"has no {MANIFEST}, so convert has not written it"):
        list(verify_checkpoint(source))


def test_a_source_that_changes(source: Path, tmp_path: Path) -> None:
    folder = copy(source, tmp_path / "ck")
    plan = Conversion.plan(folder)
    file = shards(folder / "vae")[0]
    file.write_bytes(file.read_bytes())
    os.utime(file, (1, 1))
    with pytest.raises(CheckpointError, match="was changed while it was being read"):
        list(convert_checkpoint(plan, tmp_path / "out"))
    assert os.listdir(tmp_path) == ["ck"]
