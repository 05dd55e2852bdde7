"""The trained adapters, and the layers that targets name."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_zimage import RequestError, TrainingOptions
from mlx_zimage.models.layers.linear import Linear
from mlx_zimage.models.transformer import ZImageTransformer
from mlx_zimage.models.transformer_config import TransformerConfig
from mlx_zimage.training.adapters import chosen, count, factors, make, shape_of
from tests.make_checkpoint import KINDS


@pytest.fixture(scope="module")
def model() -> ZImageTransformer:
    return ZImageTransformer(TransformerConfig.from_dict(KINDS["small"].transformer))


def test_targets(model: ZImageTransformer) -> None:
    """Blocks: three, and two of either refiner."""
    assert len(chosen(model, ("attention", "feed_forward"))) == 7 * 7
    ends = {path.rpartition(".")[2] for path in chosen(model, ("to_q", "to_k"))}
    assert ends == {"to_q", "to_k"}
    assert [*chosen(model, ("layers.1.feed_forward.w?",))] == [
        f"layers.1.feed_forward.w{n}" for n in (1, 2, 3)
    ]
    assert len(chosen(model, ("layers.*.attention",))) == 12  # no part of noise_refiner.*
    assert len(chosen(model, ("*",))) == 7 * 7 + 5 + 6  # adaLN in five blocks, six outside
    with pytest.raises(RequestError, match="'ayers' names none") as refusal:
        chosen(model, ("to_q", "ayers"))
    assert "to_out" in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", ["lora", "lokr"])
@pytest.mark.parametrize("bits", [None, 4])
def test_an_adapter_is_all_that_is_trained(kind: str, bits: int | None) -> None:
    """It begins without effect, and then adds what its dense form does."""
    generator = np.random.RandomState(0)
    layer = Linear(128, 96)
    layer.weight = mx.array(generator.standard_normal((96, 128)).astype(np.float32))
    layer.bias = mx.array(generator.standard_normal(96).astype(np.float32))
    if bits is not None:
        layer = layer.to_quantized(group_size=64, bits=bits, mode="affine")
    layer.freeze()
    x = mx.array(generator.standard_normal((2, 5, 128)).astype(np.float32))
    before = layer(x)
    options = TrainingOptions(kind=kind, rank=3)
    shape = shape_of(layer)
    assert shape == (96, 128)
    adapter = make({"path": shape}, options, {})["path"]
    layer.adapter = adapter
    assert mx.array_equal(layer(x), before)
    trained = dict(tree_flatten(layer.trainable_parameters()))
    assert {name.removeprefix("adapter.") for name in trained} == {*adapter}
    assert sum(array.size for array in trained.values()) == count(shape, options)
    for name, array in adapter.items():
        adapter[name] = mx.array(generator.standard_normal(array.shape).astype(np.float32))
    arrays = [np.array(a, np.float64) for a in adapter.values()]
    if kind == "lora":
        down, up = arrays
        delta = up @ down
    else:
        delta = np.kron(*arrays)
        assert [a.shape for a in arrays] == [(8, 8), (12, 16)]
    expected = np.array(x, np.float64) @ delta.T
    added = np.array(layer(x) - before, np.float64)
    error = np.abs(added - expected).max() / np.abs(expected).max()
    assert error < 2e-6  # measured 4.2e-7


def test_frozen_adapter_below() -> None:
    layer = Linear(8, 8, bias=False)
    x = mx.ones((1, 8))
    frozen = make({"p": (8, 8)}, TrainingOptions(rank=2), {"p": lambda x, layer: 3 * x})["p"]
    layer.adapter = frozen
    assert layer(x).tolist() == [[3.0] * 8]
    assert len(tree_flatten(frozen.trainable_parameters())) == 2


def test_factors() -> None:
    assert factors(3840, -1) == (60, 64) and factors(10240, -1) == (80, 128)
    assert factors(3840, 8) == (8, 480) and factors(97, 8) == (1, 97)
