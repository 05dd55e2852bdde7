"""Random weights in the real shapes."""

import json

import mlx.core as mx
import pytest

from mlx_zimage.bench.synthetic import synthetic
from mlx_zimage.checkpoint.components import COMPONENTS
from mlx_zimage.checkpoint.published import CONFIGS
from mlx_zimage.memory.estimate import WeightBytes
from mlx_zimage.quantization.recipe import Quantization
from tests.parity.official import OFFICIAL, key_list


@pytest.mark.parametrize("part", COMPONENTS)
def test_the_configs_are_the_official_ones(part: str) -> None:
    official = json.loads((OFFICIAL / f"{part}.json").read_text("utf-8"))
    assert CONFIGS[part] == {key: official[key] for key in CONFIGS[part]}


@pytest.mark.parametrize("part", COMPONENTS)
def test_the_keys_and_shapes_too(part: str) -> None:
    found = synthetic()[part].tensors
    assert {key: list(tensor.shape) for key, tensor in found.items()} == {
        key: list(shape) for key, shape in key_list(part).items()
    }


def test_fewer_layers() -> None:
    checkpoint = synthetic(layers=2)
    assert checkpoint.transformer.n_layers == 2
    assert checkpoint.text_encoder.num_hidden_layers == 3  # the last one is not run


def test_weights_have_memory_of_their_own() -> None:
    """And give it back: what is measured is what real weights would take."""
    checkpoint = synthetic(4, layers=1)
    transformer = checkpoint["transformer"]
    told = WeightBytes.of(transformer, mx.float32, transformer.packings(None))
    before = mx.get_active_memory()
    model = checkpoint["transformer"].load(mx.float32, None)
    loaded = mx.get_active_memory() - before
    model.drop_modulation()
    dropped = before + loaded - mx.get_active_memory()
    print(f"{loaded / told.total:.4f} of the weights, {dropped / told.modulation:.4f} given back")
    assert loaded == pytest.approx(told.total, rel=0.01)  # measured: 1.0000
    assert dropped == pytest.approx(told.modulation, rel=0.01)  # 1.0000


@pytest.mark.parametrize(
    "quantize",
    [3, 4, 8, *(pytest.param(name, marks=pytest.mark.slow) for name in ("mxfp4", "nvfp4"))],
)
def test_quantized_numbers_are_like_the_others(quantize: int | str) -> None:
    plain, packed = synthetic(layers=1), synthetic(quantize, layers=1)
    key = "layers.0.attention.to_q.weight"
    tensor = packed["transformer"].tensors[key]
    packing = Quantization.parse(quantize).packing
    assert tensor.packing == packing and tensor.packed_rows is not None
    back = packing.unpack(tensor.packed_rows(0, 8))
    exact = plain["transformer"].tensors[key].rows(0, 8)
    assert back.shape == exact.shape == (8, 3840)
    assert mx.std(exact).item() == pytest.approx(0.02, rel=0.01)
    away = mx.abs(back.astype(mx.float32) - exact).mean() / mx.abs(exact).mean()
    assert away.item() < 2.0**-packing.bits * 3
    assert packed["transformer"].tensors["t_embedder.mlp.0.weight"].packing is None
