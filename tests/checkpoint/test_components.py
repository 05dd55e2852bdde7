"""A component is a row of the table: a made-up one is opened, loaded, streamed, quantized,
estimated and converted without another line."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx import nn

from mlx_zimage import CheckpointError, Conversion, ZImage, convert_checkpoint, verify_checkpoint
from mlx_zimage.checkpoint.checkpoint import Checkpoint, official_shapes
from mlx_zimage.checkpoint.components import COMPONENTS, Component
from mlx_zimage.checkpoint.files import read_files
from mlx_zimage.memory.store import Store
from mlx_zimage.models.activations import Workload
from mlx_zimage.models.layers.linear import Linear
from mlx_zimage.quantization.recipe import Quantization
from mlx_zimage.weights.formats.names import Names
from tests.checkpoint.broken import copy, edit_json, shards
from tests.make_checkpoint import random_tensor

WORKING = 123_456_789  # bytes


@dataclass(frozen=True)
class SharpenerConfig:
    width: int
    layers: int

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> "SharpenerConfig":
        return cls(data["width"], data["layers"])


class SharpenerBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.linear = Linear(width, width)

    def __call__(self, x: mx.array) -> mx.array:
        return x + self.linear(x)


class Sharpener(nn.Module):
    def __init__(self, config: SharpenerConfig):
        super().__init__()
        self.blocks = [SharpenerBlock(config.width) for _ in range(config.layers)]
        self.head = Linear(config.width, config.width)

    def __call__(self, x: mx.array) -> mx.array:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def _official(tensors: dict[str, Any]) -> Any:
    return ((key.replace("layer_", "blocks."), tensor) for key, tensor in tensors.items())


SHARPENER = Component(
    name="sharpener",
    phase="decode",
    read_config=SharpenerConfig.from_dict,
    build=Sharpener,
    activations=lambda config, workload, dtype, is_quantized: WORKING,
    names=Names(("sharp.",), ("layer_0.linear.weight",), _official),
    required=False,
    unquantized=("head",),
    blocks=("blocks",),
)


@pytest.fixture(autouse=True)
def row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMPONENTS, SHARPENER.name, SHARPENER)


@pytest.fixture
def folder(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A checkpoint with a sharpener in it."""
    out = copy(checkpoint("even"), tmp_path / "ck")
    (out / "sharpener").mkdir()
    config = {"width": 64, "layers": 3}
    (out / "sharpener/config.json").write_text(json.dumps(config))
    shapes = official_shapes(Sharpener(SharpenerConfig(**config)))
    arrays = {key: mx.array(random_tensor(key, shape)) for key, shape in shapes.items()}
    mx.save_safetensors(str(out / "sharpener/diffusion_pytorch_model.safetensors"), arrays)
    return out


def _output(module: Any) -> mx.array:
    return module(mx.random.normal((2, 64), key=mx.random.key(0)))


def test_opened_and_loaded(folder: Path, checkpoint: Callable[[str], Path]) -> None:
    stored = Checkpoint.open(folder)["sharpener"]
    module = stored.load(mx.float32)
    weight = random_tensor("blocks.1.linear.weight", (64, 64))
    assert mx.array_equal(module.blocks[1].linear.weight, mx.array(weight))
    assert "sharpener" not in Checkpoint.open(checkpoint("even")).components


def test_checked(folder: Path) -> None:
    edit_json(folder / "sharpener/config.json", lambda config: config.update(layers=4))
    with pytest.raises(CheckpointError, match="sharpener lacks tensor 'blocks\\.3\\.linear"):
        Checkpoint.open(folder)


def test_streamed(folder: Path) -> None:
    stored = Checkpoint.open(folder)["sharpener"]
    resident, streamed = stored.load(mx.float32), stored.load(mx.float32, streamed=True)
    assert mx.array_equal(_output(resident), _output(streamed))


def test_quantized(folder: Path) -> None:
    stored = Checkpoint.open(folder)["sharpener"]
    packings = stored.packings(Quantization.parse(8))
    assert set(packings) == {f"blocks.{n}.linear" for n in range(3)}
    exact, packed = stored.load(mx.float32), stored.load(mx.float32, Quantization.parse(8))
    assert isinstance(packed.blocks[0].linear, nn.QuantizedLinear)
    assert isinstance(packed.head, Linear)
    assert mx.allclose(_output(exact), _output(packed), atol=0.05)
    assert not mx.array_equal(_output(exact), _output(packed))


def test_estimated(folder: Path, checkpoint: Callable[[str], Path]) -> None:
    workload = Workload(64, 64)
    with_it, without = (
        Store(Checkpoint.open(path), memory="staged").estimate(workload)
        for path in (folder, checkpoint("even"))
    )
    weights = 4 * (64 * 64 + 64) * 4
    assert with_it.decode - without.decode == WORKING + weights
    assert (with_it.encode, with_it.denoise) == (without.encode, without.denoise)


@pytest.mark.parametrize("quantize", [None, 8])
def test_converted(folder: Path, tmp_path: Path, quantize: int | None) -> None:
    conversion = Conversion.plan(folder, quantize=quantize, dtype="float32")
    assert conversion.components == ("text_encoder", "transformer", "vae", "sharpener")
    events = list(convert_checkpoint(conversion, tmp_path / "out"))
    assert events[-1].component == "sharpener" and events[-1].done == events[-1].total
    assert [*verify_checkpoint(tmp_path / "out")][-1] == "sharpener"
    before, after = Checkpoint.open(folder)["sharpener"], Checkpoint.open(tmp_path / "out")
    asked = None if quantize is None else Quantization.parse(quantize)
    outputs = [
        _output(before.load(mx.float32, asked)),
        _output(after["sharpener"].load(mx.float32)),
    ]
    assert mx.array_equal(*outputs)
    alone = Conversion.plan(folder, only="sharpener")
    list(convert_checkpoint(alone, tmp_path / "alone"))
    assert [path.name for path in sorted((tmp_path / "alone").iterdir())] == [
        "README.md",
        "mlx_zimage.json",
        "sharpener",
    ]


def test_in_another_programs_file(folder: Path, tmp_path: Path) -> None:
    (file,) = shards(folder / "sharpener")
    arrays = mx.load(str(file))
    assert isinstance(arrays, dict)
    foreign = {f"sharp.{k.replace('blocks.', 'layer_')}": a for k, a in arrays.items()}
    mx.save_safetensors(str(tmp_path / "x.safetensors"), foreign)
    assert read_files([tmp_path / "x.safetensors"])["sharpener"].keys() == arrays.keys()


def test_a_generation_takes_no_notice(folder: Path, checkpoint: Callable[[str], Path]) -> None:
    options: dict[str, Any] = {"width": 32, "height": 32, "steps": 1, "seed": 1}
    a, b = (ZImage.load(path).generate("x", **options) for path in (folder, checkpoint("even")))
    assert mx.array_equal(a.latents, b.latents)
