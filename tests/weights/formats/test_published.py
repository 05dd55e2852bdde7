"""The names we read are those that the published converters and GGUF's own tables know."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from . import foreign

import gguf  # isort: skip


@pytest.fixture
def source(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("small")


@pytest.mark.parity
def test_diffusers_reads_the_same_transformer(source: Path) -> None:
    import torch
    from diffusers.loaders.single_file_utils import (
        convert_z_image_transformer_checkpoint_to_diffusers as published,
    )

    ours = {k: torch.from_numpy(a) for k, a in foreign.transformer(source).items()}
    theirs = published({f"model.diffusion_model.{key}": array for key, array in ours.items()})
    expected = foreign.official(source, "transformer")
    assert theirs.keys() == expected.keys()
    assert all(np.array_equal(theirs[key].numpy(), array) for key, array in expected.items())


@pytest.mark.parity
def test_diffusers_reads_the_same_vae(source: Path) -> None:
    import torch
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint as published

    config = json.loads((source / "vae/config.json").read_text())
    ours = {k: torch.from_numpy(a) for k, a in foreign.vae(source).items()}
    theirs = published({f"first_stage_model.{key}": array for key, array in ours.items()}, config)
    expected = foreign.official(source, "vae")
    assert theirs.keys() == expected.keys()
    assert all(np.array_equal(theirs[key].numpy(), array) for key, array in expected.items())


def test_names_of_gguf(source: Path) -> None:
    from mlx_zimage.weights.formats.names import QWEN_RULES, replaced

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, 64)
    for key in foreign.text_encoder(source):
        path = key.removesuffix(".weight")
        theirs = names.get_name(path)
        assert theirs is not None, key
        assert replaced(f"{theirs}.weight", QWEN_RULES) == key
