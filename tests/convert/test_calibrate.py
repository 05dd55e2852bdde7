"""Calibrated conversions: resumed to the same bytes, chosen by size, described, refused."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_zimage import (
    Calibrated,
    CheckpointError,
    OutOfMemoryError,
    RequestError,
    ZImage,
    verify_checkpoint,
)
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.checkpoint.family import MANIFEST
from mlx_zimage.convert import calibrate
from mlx_zimage.convert.calibrate import folder_of
from mlx_zimage.convert.plan import Conversion
from mlx_zimage.convert.publish import convert_checkpoint
from mlx_zimage.convert.report import check_reportable, measure_conversion
from mlx_zimage.events import finish
from mlx_zimage.models.layers.positions import text_tables
from mlx_zimage.quantization.block import calibrate_block, record
from mlx_zimage.weights.packing import Packing
from mlx_zimage.weights.tensor import stored

DRAWN = {"width": 32, "height": 32, "steps": 2, "seed": 1}
PROMPTS = "a red circle\n\n  蓝色方块 \na tall tower of books in a window\n"


@pytest.fixture(scope="module")
def source(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("even")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    file.write_text(PROMPTS, "utf-8")
    return file


def convert(source: Path, out: Path, **options: Any) -> Generator[Any, None, None]:
    force = options.pop("force", False)
    return convert_checkpoint(Conversion.plan(source, **options), out, force=force)


def _bytes(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


@pytest.fixture(scope="module")
def rotated(
    source: Path, prompts: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Any]]:
    """A conversion to 3 bits, rotated where that pays, and its events."""
    out = tmp_path_factory.mktemp("rotated") / "out"
    options = {"quantize": 3, "calibrate": True, "rotate": True, "prompts": prompts}
    return out, list(convert(source, out, **options))


def test_calibrates_every_layer_of_the_blocks_that_are_run(
    source: Path, rotated: tuple[Path, list[Any]]
) -> None:
    out, events = rotated
    told = [event for event in events if isinstance(event, Calibrated)]
    assert {(e.component, e.task) for e in told} == {
        ("text_encoder", "calibrating"),
        ("transformer", "drawing"),
        ("transformer", "calibrating"),
    }
    for task in ("drawing", "calibrating"):
        mine = [e for e in told if (e.component, e.task) == ("transformer", task)]
        assert [e.done for e in mine] == list(range(1, mine[-1].total + 1))
    assert os.listdir(out.parent) == ["out"]
    assert [*verify_checkpoint(out)][-1] == "vae"
    plain = Conversion.plan(source, quantize=3)
    before, after = Checkpoint.open(source), Checkpoint.open(out)
    for name in ("text_encoder", "transformer"):
        packings = stored(after[name].tensors)
        assert packings.keys() == plain.packings[name].keys()
        assert {(p.bits, p.group_size) for p in packings.values()} == {(3, 64)}
        for path in packings:
            key = f"{path}.weight"
            a, b = (ck[name].tensors[key].read().astype(mx.float32) for ck in (before, after))
            assert float((a - b).square().mean() / a.square().mean()) < 0.08, key
    manifest = json.loads((out / MANIFEST).read_text())["calibration"]
    assert (manifest["method"], manifest["prompts"], manifest["rotate"]) == ("gptq", 3, True)
    assert len(ZImage.load(out).generate("x", **DRAWN).latents) == 1


def test_verify_holds_the_recipe(rotated: tuple[Path, list[Any]], tmp_path: Path) -> None:
    out = shutil.copytree(rotated[0], tmp_path / "copy")
    manifest = json.loads((out / MANIFEST).read_text())
    manifest["recipe"]["transformer"]["bits"] = 4
    (out / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="transformer is not quantized as"):
        list(verify_checkpoint(out))


@pytest.mark.slow
def test_goes_on_from_finished_blocks_to_the_same_bytes(
    source: Path,
    prompts: Path,
    rotated: tuple[Path, list[Any]],
    tmp_path: Path,
) -> None:
    """Stopped ten times between events, and while a file was written."""
    expected = _bytes(rotated[0])
    out = tmp_path / "out"
    options = {"quantize": 3, "calibrate": True, "rotate": True, "prompts": prompts}
    for stop in (1, 2, 1, 3, 4, 8, 10, 1, 2, 3):  # the later ones skip what is done
        events = convert(source, out, **options)
        for _ in range(stop):
            assert isinstance(next(events), Calibrated)
        events.close()
        assert not out.exists()
    stopped = folder_of(out)
    blocks = sorted(path.name for path in stopped.iterdir())
    assert any(name.startswith("transformer.layers") for name in blocks)
    (stopped / "transformer.layers.0.part.safetensors").write_bytes(b"half")
    list(convert(source, out, **options))
    assert _bytes(out) == expected
    assert not stopped.exists()


def test_blocks_of_another_request_are_not_used(
    source: Path, prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    events = convert(source, out, quantize=4, calibrate=True, prompts=prompts)
    for _ in range(8):
        next(events)
    events.close()
    first = _bytes(folder_of(out))
    events = convert(source, out, quantize=5, calibrate=True, prompts=prompts)
    next(events)
    events.close()
    second = _bytes(folder_of(out))
    assert len(second) < len(first) and second["request"] != first["request"]


@pytest.mark.slow
def test_mixed_bits_reach_their_size(source: Path, prompts: Path, tmp_path: Path) -> None:
    conversion = Conversion.plan(source, mixed="3.5", prompts=prompts)
    planned = conversion.size("transformer")
    list(convert_checkpoint(conversion, tmp_path / "out"))
    packings = stored(Checkpoint.open(tmp_path / "out")["transformer"].tensors)
    assert packings.keys() == conversion.packings["transformer"].keys()
    assert len({packing.bits for packing in packings.values()}) > 1
    tensors = conversion.tensors("transformer")
    counts = {path: tensors[f"{path}.weight"].count for path in packings}
    spent = sum((packing.bits + 0.5) * counts[path] for path, packing in packings.items())
    assert 3.3 < spent / sum(counts.values()) <= 3.5
    size = (tmp_path / "out/transformer/diffusion_pytorch_model.safetensors").stat().st_size
    assert abs(size / planned - 1) < 0.05
    encoder = stored(Checkpoint.open(tmp_path / "out")["text_encoder"].tensors)
    assert {packing.bits for packing in encoder.values()} == {4}
    by_size = Conversion.plan(source, mixed=f"{planned / 1e6:.4f}MB")
    assert abs(by_size.size("transformer") / planned - 1) < 0.03


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibrate": True}, "calibrate is for quantizing; say how many bits"),
        ({"quantize": 4, "rotate": True}, "rotate has an effect only with calibrate=True or mixed"),
        ({"quantize": 4, "mixed": "3.5"}, "quantize must be left out where mixed='3.5' chooses"),
        ({"mixed": "much"}, "mixed must be a mean number of bits, as 3.5, or a size, as 3GB"),
        ({"mixed": "0"}, "mixed must be"),
        ({"mixed": "1.5"}, "mixed bits can take from"),
        ({"mixed": "1KB"}, "mixed must be"),
        ({"mixed": "1TB"}, "mixed must be"),
        ({"mixed": "90GB"}, "mixed bits can take from"),
        ({"mixed": "1MB"}, "mixed bits can take from"),
        ({"quantize": "mxfp4", "calibrate": True}, "calibrating is for a number of bits"),
        (
            {"quantize": 4, "calibrate": True, "rotate": True, "target": "mlx-vlm"},
            "leave out rotate",
        ),
        ({"quantize": 2}, "2 bits leave no picture unless calibrated"),
    ],
)
def test_refused_options(source: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message) as error:
        Conversion.plan(source, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0"),
        (b"\n \n", "has 0"),
        (b"\x00\x01prompt", "binary data"),
        (b"\xff\xfe\x00p", "cannot be read"),
        (b"x\n" * 513, "has 513"),
        (b"x" * (1 << 21), "more than a list may have"),
        (None, "cannot be read"),
    ],
)
def test_refused_prompts(source: Path, tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "prompts.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(RequestError, match=message) as error:
        Conversion.plan(source, quantize=4, calibrate=True, prompts=file)
    assert "\n" not in str(error.value) and "prompts.txt" in str(error.value)


def test_a_quantized_source_is_refused(rotated: tuple[Path, list[Any]]) -> None:
    with pytest.raises(RequestError, match="calibrating needs weights that are not quantized"):
        Conversion.plan(rotated[0], quantize=3, calibrate=True)


def test_too_little_disk_or_memory(
    source: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"quantize": 4, "calibrate": True, "prompts": prompts}
    monkeypatch.setattr(calibrate.device, "memory", lambda: 1000)
    with pytest.raises(OutOfMemoryError, match="calibrating holds about"):
        list(convert(source, tmp_path / "out", **options))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(CheckpointError, match=r"calibrating takes .* are free; make room"):
        list(convert(source, tmp_path / "out", **options))
    assert os.listdir(tmp_path) == []


def test_layers_that_share_an_input_are_recorded_once(source: Path) -> None:
    module = Checkpoint.open(source)["text_encoder"].load(mx.float32).model.layers[0]
    layers = ["self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.down_proj"]
    xs = [mx.random.normal((1, 9, 64), key=mx.random.key(i)) for i in range(2)]
    rope = text_tables(9, 16, 1e6)
    with record(module, layers) as recording:
        outputs = [module(x, rope) for x in xs]
    assert [inputs.layers for inputs in recording.inputs] == [layers[:2], [layers[2]], [layers[3]]]
    for x, y in zip(xs, outputs, strict=True):
        assert mx.array_equal(module(x, rope), y)  # the layers are back
    normed = mx.concatenate([module.input_layernorm(x)[0] for x in xs])
    packing = Packing("affine", 4, 64)
    arrays = calibrate_block(
        recording,
        dict.fromkeys(layers, (packing,)),
        lambda layer: mx.ones((64, 192 if "down" in layer else 64)),
        mx.bfloat16,
    )
    with record(module, layers) as recording:
        outputs = [module(x, rope) for x in xs]
    assert mx.allclose(mx.array(recording.inputs[0].take()), normed.T @ normed, rtol=1e-4)
    assert {key.rpartition(".")[2] for key in arrays} == {"weight", "scales", "biases", "error"}


@pytest.mark.slow
def test_a_report_compares_every_block(
    source: Path, rotated: tuple[Path, list[Any]], prompts: Path, tmp_path: Path
) -> None:
    """A copy of the source has no error; 3 bits have one in every block, and in the velocity."""
    plan = {"quantize": 3, "calibrate": True, "prompts": prompts}
    conversion = Conversion.plan(source, **plan)
    report = finish(measure_conversion(conversion, rotated[0]))
    assert {row.block for row in report.blocks} == {
        *(f"model.layers.{i}" for i in range(2)),
        *("context_refiner.0", "noise_refiner.0", "layers.0", "layers.1"),
    }
    assert all(0.005 < row.error < 0.6 and row.bits == 3 for row in report.blocks)
    assert report.velocity > 0.005 and report.captions > 0.005
    report.save(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["velocity"] == report.velocity
    assert len(report.table.splitlines()) == 4 + len(report.blocks)
    same = finish(measure_conversion(conversion, source))
    assert {row.error for row in same.blocks} == {0.0} and same.velocity == same.captions == 0
    with pytest.raises(RequestError, match="a report is on a full checkpoint that is quantized"):
        check_reportable(Conversion.plan(source))
    with pytest.raises(RequestError, match="a report compares with weights that are not"):
        check_reportable(Conversion.plan(rotated[0]))


@pytest.mark.slow
def test_killed_at_forty_moments(
    source: Path, prompts: Path, rotated: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    """SIGKILL at random times of a process that converts; the last run ends with the same bytes."""
    out = tmp_path / "out"
    script = (
        "import sys; from pathlib import Path\n"
        "from mlx_zimage import Conversion, convert_checkpoint\n"
        f"plan = Conversion.plan(Path({str(source)!r}), quantize=3, calibrate=True, rotate=True, "
        f"prompts=Path({str(prompts)!r}))\n"
        "print('begun', flush=True)\n"
        f"for _ in convert_checkpoint(plan, Path({str(out)!r}), force=True): pass\n"
    )
    random_ = random.Random(2)
    killed = 0
    while killed < 40:
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random_.uniform(0, 2.0))
        ended = process.poll() is not None
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        killed += 1
        if ended or out.exists():
            assert _bytes(out) == _bytes(rotated[0])
            shutil.rmtree(out)
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)
    assert _bytes(out) == _bytes(rotated[0])
    assert os.listdir(tmp_path) == ["out"]
