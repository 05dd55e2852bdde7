"""The slot of linear layers: empty it changes nothing, and it takes objects and modules."""

from typing import Any

import mlx.core as mx
import pytest
from mlx import nn

from mlx_zimage.models.layers.linear import Linear
from tests.measures import relative_error

X = mx.random.normal((2, 5, 64), key=mx.random.key(1))


class Doubled(nn.Module):
    """A module without parameters, which is an empty dict."""

    def __call__(self, x: mx.array, layer: Any) -> mx.array:
        return 2 * layer.product(x)


class Trained(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = mx.ones((2, 64)), mx.zeros((128, 2))

    def __call__(self, x: mx.array, layer: Any) -> mx.array:
        return layer.product(x) + x @ self.down.T @ self.up.T


@pytest.fixture(params=[True, False], ids=["bias", "no bias"])
def layer(request: pytest.FixtureRequest) -> Linear:
    layer = Linear(64, 128, bias=request.param)
    layer.weight = mx.random.normal((128, 64), key=mx.random.key(0))
    if request.param:
        layer.bias = mx.random.normal((128,), key=mx.random.key(2))
    return layer


def _layers(layer: Linear) -> list[Any]:
    packing = {"group_size": 64, "bits": 8, "mode": "affine"}
    return [
        layer,
        layer.to_quantized(**packing),
        layer.to_quantized(**packing, rotation="hadamard-32"),
    ]


def test_an_empty_slot_changes_no_bit(layer: Linear) -> None:
    for each in _layers(layer):
        before = each(X)
        assert each.adapter is None
        parameters = dict(each.parameters())
        each.adapter = lambda x, at: 2 * at.product(x)
        each.adapter = Doubled()
        each.adapter = None
        assert each.adapter is None
        assert dict(each.parameters()).keys() == parameters.keys()
        assert mx.array_equal(each(X), before)
    plain = nn.Linear(64, 128)
    plain.update(layer.parameters())
    if "bias" in layer:
        assert mx.array_equal(layer(X), plain(X))


@pytest.mark.parametrize("adapter", [Doubled(), lambda x, at: 2 * at.product(x)])
def test_an_adapter_changes_the_product_and_not_the_bias(layer: Linear, adapter: Any) -> None:
    """The error is at most 9.6e-8."""
    for each in _layers(layer):
        bias = each.bias if "bias" in each else 0
        expected = 2 * (each(X) - bias) + bias
        each.adapter = adapter
        assert each.adapter is adapter
        assert relative_error(each(X), expected) < 3e-7


def test_a_module_in_the_slot_can_be_trained(layer: Linear) -> None:
    for each in _layers(layer):
        each.freeze()
        each.adapter = Trained()
        assert each.trainable_parameters().keys() == {"adapter"}
        loss = nn.value_and_grad(each, lambda x: (each(x) ** 2).sum())  # noqa: B023
        _, gradients = loss(X)
        assert gradients["adapter"].keys() == {"down", "up"}
        assert mx.abs(gradients["adapter"]["up"]).max().item() > 1


def test_rows_are_the_weights_that_run(layer: Linear) -> None:
    """The error is at most 2.4e-7."""
    for each in _layers(layer):
        rows = each.rows(3, 50)
        assert rows.dtype == mx.float32
        assert relative_error(X @ rows.T, each.product(X)[..., 3:50]) < 1e-6
