"""The modules' parameter names and shapes are the official checkpoint's, all of them."""

import json
from typing import Any

import pytest
from mlx import nn
from mlx.utils import tree_flatten

from mlx_zimage.models.autoencoder import Autoencoder, AutoencoderConfig
from mlx_zimage.models.text_encoder import TextEncoder, TextEncoderConfig, needed_for_encoding
from mlx_zimage.models.transformer import ZImageTransformer
from mlx_zimage.models.transformer_config import TransformerConfig
from tests.make_checkpoint import official_shapes
from tests.parity.official import OFFICIAL, key_list
from tests.prompt.texts import SHARED, needs_shared


def _config(part: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((OFFICIAL / f"{part}.json").read_text("utf-8"))
    return data


def _models() -> dict[str, nn.Module]:
    return {
        "transformer": ZImageTransformer(TransformerConfig.from_dict(_config("transformer"))),
        "text_encoder": TextEncoder(TextEncoderConfig.from_dict(_config("text_encoder")), True),
        "vae": Autoencoder(AutoencoderConfig.from_dict(_config("vae"))),
    }


@pytest.mark.parametrize(("part", "count"), [("transformer", 521), ("text_encoder", 398)])
def test_official_counts(part: str, count: int) -> None:
    assert len(key_list(part)) == count


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "vae"])
def test_keys_and_shapes(part: str) -> None:
    assert official_shapes(_models()[part]) == key_list(part)


def test_official_transformer_size() -> None:
    parameters = tree_flatten(_models()["transformer"].parameters())
    assert sum(value.size for _, value in parameters) == 6_154_908_736


def test_an_encoder_lacks_only_the_end() -> None:
    config = TextEncoderConfig.from_dict(_config("text_encoder"))
    keys = set(official_shapes(TextEncoder(config)))
    assert keys == {key for key in key_list("text_encoder") if needed_for_encoding(key, config)}
    gone = {key.split(".")[2] for key in set(key_list("text_encoder")) - keys if "layers" in key}
    assert gone == {"35"}


@needs_shared
@pytest.mark.parametrize(
    ("part", "index"),
    [
        ("transformer", "diffusion_pytorch_model.safetensors.index.json"),
        ("text_encoder", "model.safetensors.index.json"),
    ],
)
def test_official_index(part: str, index: str) -> None:
    data = json.loads((SHARED / "turbo" / part / index).read_text("utf-8"))
    assert set(data["weight_map"]) == set(key_list(part))


@needs_shared
@pytest.mark.parametrize("part", ["transformer", "text_encoder", "vae"])
def test_official_config(part: str) -> None:
    data = json.loads((SHARED / "turbo" / part / "config.json").read_text("utf-8"))
    assert data == _config(part)
