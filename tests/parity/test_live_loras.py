"""Adapters beside the programs that made the formats: diffusers with PEFT, and LyCORIS' modules."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.lora.adapter import Adapter
from mlx_zimage.lora.attach import Attached
from mlx_zimage.lora.targets import targets
from tests.lora import writers
from tests.lora.writers import Sample, flat
from tests.make_checkpoint import KINDS, models, official_shapes, random_tensors
from tests.measures import relative_error

from . import limits
from .test_live_models import forward_error

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),
]
Measure = Callable[[str, float, float], None]
Weights = Mapping[str, np.ndarray]

# The families that diffusers 0.42.1 loads without loss; tests/lora/ holds the others to formulas.
DIFFUSERS = [
    "peft",
    "peft, metadata",
    "peft, rslora",
    "peft, folder",
    "peft, bias",
    "peft, dora",
    "peft, dora as diffusers saves it",
    "ai-toolkit",
    "ai-toolkit, alpha",
    "ai-toolkit, lokr",
    "bare, default",
    "musubi",
    "kohya, dense",
    "kohya, diagonal",
    "kohya, both",
    "onetrainer, diffusers",
]
LYCORIS = [
    "ai-toolkit, lokr",
    "lycoris, lokr, full",
    "lycoris, lokr, w2 decomposed",
    "lycoris, lokr, both decomposed",
    "lycoris, loha",
    "lycoris, locon",
    "lycoris, dora, rows",
    "lycoris, dora, columns",
    "lycoris, dora inside",
    "lycoris, oft",
    "lycoris, oft, rescaled",
    "lycoris, oft, constrained",
    "lycoris, boft",
    "lycoris, boft, rescaled",
    "lycoris, boft, constrained",
    "lycoris, glora",
    "lycoris, full",
]


@pytest.fixture(scope="module")
def weights() -> Weights:
    shapes = official_shapes(models(KINDS["small"])["transformer"])
    return {key: value.astype(np.float64) for key, value in random_tensors(shapes)}


def _sample(family: str, weights: Weights) -> Sample:
    return writers.sample(family, {key: value.shape for key, value in weights.items()})


def _load_theirs(folder: Path, file: Path) -> tuple[Any, Callable[[], Any]]:
    """Return diffusers' transformer with an adapter, and what merges that into its weights."""
    import torch
    from diffusers import ZImagePipeline, ZImageTransformer2DModel
    from diffusers.utils import logging
    from transformers.utils import logging as transformers_logging

    logging.set_verbosity_error()
    for module in (logging, transformers_logging):
        module.disable_progress_bar()
    model = ZImageTransformer2DModel.from_pretrained(folder / "transformer", dtype=torch.float32)
    if file.is_dir():
        from peft import PeftModel

        wrapped = PeftModel.from_pretrained(model, str(file))
        return model.eval(), wrapped.merge_and_unload
    parts = dict.fromkeys(("scheduler", "vae", "text_encoder", "tokenizer"))
    pipe = ZImagePipeline(transformer=model, **parts)
    pipe.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name="lora")

    def merge() -> Any:
        pipe.fuse_lora()
        pipe.unload_lora_weights()
        return model

    return model.eval(), merge


@pytest.mark.parametrize("family", DIFFUSERS)
def test_against_diffusers(
    family: str,
    weights: Weights,
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    measure: Measure,
) -> None:
    """Load a file here and there: the velocities agree, and so do the weights as written."""
    sample = _sample(family, weights)
    file = sample.write(tmp_path / "lora")
    model, merge = _load_theirs(checkpoint("small"), file)
    opened = Checkpoint.open(checkpoint("small"))
    attached = Attached([(Adapter.open(file, targets(opened)).changes, 1.0)])
    base = opened["transformer"].load(mx.float32)
    ours = attached.attach("transformer", base)
    for caption, size, time in ((7, (8, 12), 0.3), (33, (4, 4), 0.9)):
        error = forward_error(ours, model, [caption], *size, time)
        measure("transformer with a LoRA, one forward", error, limits.ADAPTED)
        assert forward_error(base, model, [caption], *size, time) > 0.1
    if family == "peft, bias":
        return  # PEFT cannot merge a bias into a layer that has none
    theirs = {key: value.double().numpy() for key, value in merge().state_dict().items()}
    merged = sample.merged(weights)
    assert theirs.keys() == weights.keys() >= merged.keys()
    for key, unchanged in weights.items():
        if key in merged:
            error = relative_error(theirs[key] - unchanged, merged[key] - unchanged)
            measure("LoRA files as written, against PEFT", error, limits.LORA_FILES)
        else:
            assert np.array_equal(theirs[key], unchanged), key


@pytest.mark.parametrize("family", LYCORIS)
def test_writer_against_lycoris(family: str, weights: Weights, measure: Measure) -> None:
    """Run LyCORIS' own modules: their outputs less the base's are our writer's deltas."""
    import torch
    from lycoris.logging import logger

    logger.setLevel("ERROR")
    sample = _sample(family, weights)
    merged = sample.merged(weights)
    tensors = {key: torch.from_numpy(t.values).float() for key, t in sample.tensors.items()}
    x = torch.from_numpy(np.random.RandomState(0).standard_normal((5, 384)))
    modules = [key[: -len(".weight")] for key in merged if key.endswith(".weight")]
    for module in modules:
        delta = merged[f"{module}.weight"] - weights[f"{module}.weight"]
        rows = x[:, : delta.shape[1]]
        linear = _linear(weights, module)
        with torch.no_grad():
            base = linear(rows.float())
            _apply(tensors, module, linear)
            effect = (linear(rows.float()) - base).double().numpy()
        error = relative_error(effect, rows.numpy() @ delta.T)
        measure("LoRA files as written, against LyCORIS", error, limits.LYCORIS)


def _linear(weights: Weights, module: str) -> Any:
    import torch

    weight, bias = weights[f"{module}.weight"], weights.get(f"{module}.bias")
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight))
        if bias is not None:
            linear.bias.copy_(torch.from_numpy(bias))
    return linear


def _apply(tensors: Mapping[str, Any], module: str, linear: Any) -> None:
    """Put LyCORIS' module for these tensors in front of a linear layer."""
    from lycoris.modules import get_module
    from lycoris.modules.base import LycorisBaseModule

    start = f"lycoris_{flat(module)}"
    start = start if any(key.startswith(start) for key in tensors) else f"diffusion_model.{module}"
    kind, parameters = get_module(dict(tensors), start)
    scale = tensors.get(f"{start}.dora_scale")
    if scale is not None and scale.shape[0] == 1:  # its loader knows magnitudes by row alone
        original = kind.__init__

        def by_column(self: LycorisBaseModule, *values: Any, **options: Any) -> None:
            original(self, *values, **options, wd_on_out=False)

        assert "wd_on_out" in inspect.signature(original).parameters
        kind = type(kind.__name__, (kind,), {"__init__": by_column})
    kind.make_module_from_state_dict(start, linear, *parameters).apply_to()
