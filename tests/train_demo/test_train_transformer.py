"""A few seconds of training: it goes on where it stopped, and ends in a whole checkpoint."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage import ZImage
from tests.measures import relative_error

pytestmark = pytest.mark.parity

VAE_WIDTHS = [8, 8, 8, 8]


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a small VAE and the tokenizer lie, and the training will be small."""
    from diffusers import AutoencoderKL

    from tools.train_demo import architecture, train_reader, train_transformer
    from tools.train_demo.tokenizer import train_tokenizer

    changed = {"block_out_channels": VAE_WIDTHS, "shift_factor": 0.1, "scaling_factor": 1.5}
    vae = AutoencoderKL.from_config({**architecture.VAE, **changed})
    vae.save_pretrained(tmp_path / "vae")
    train_tokenizer(tmp_path / "tokenizer")
    train_reader.train(tmp_path, 2.0, "cpu", batch=8)
    monkeypatch.setattr(train_transformer, "POOL", 100)
    monkeypatch.setattr(train_transformer, "POOL_OTHER", 20)
    monkeypatch.setattr(train_transformer, "OTHERS", ((96, 128),))
    monkeypatch.setattr(
        train_transformer, "TRANSFORMER", {**architecture.TRANSFORMER, "n_layers": 1}
    )
    return tmp_path


def test_training_goes_on_and_ends_in_a_checkpoint(out: Path) -> None:
    import torch
    from diffusers import ZImagePipeline
    from safetensors.torch import load_file

    from tools.train_demo import train_transformer
    from tools.train_demo.assemble import assemble

    train_transformer.train(out, 3.0, "cpu", batch=2, compiled=False)
    first = load_file(out / "transformer-training.safetensors")
    train_transformer.train(out, float(first["seconds"]) + 3, "cpu", batch=2, compiled=False)
    second = load_file(out / "transformer-training.safetensors")
    assert 0 < int(first["step"]) < int(second["step"])

    assemble(out, out / "demo")
    ours = ZImage.load(out / "demo", dtype="float32")
    pipeline = ZImagePipeline.from_pretrained(out / "demo", dtype=torch.float32)
    theirs = pipeline.encode_prompt("red", do_classifier_free_guidance=False)[0]
    result = ours.generate("red", width=32, height=32, steps=1)
    mine = np.array(result.prompt_embeds.astype(mx.float32))
    assert relative_error(mine, theirs[0].detach().numpy()) < 1e-5
    assert not pipeline.text_encoder.model.layers[-1].mlp.down_proj.weight.any()


def test_batches_hold_prompts_of_as_many_blocks(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tools.train_demo import train_transformer

    monkeypatch.setattr(train_transformer, "LONG", 0.5)
    batches = train_transformer.Pool(out).batches(4, seed=0)
    seen = set()
    for _ in range(30):
        latents, prompts = next(batches)
        assert latents.shape[:2] == (4, 16)
        blocks = {-(-len(ids) // train_transformer.BLOCK) for ids in prompts}
        assert len(blocks) == 1
        seen |= {(tuple(latents.shape[2:]), *blocks)}
    assert seen == {((16, 16), 1), ((16, 16), 2), ((16, 12), 1), ((16, 12), 2)}


def test_attention_is_the_published_one() -> None:
    import torch
    from torch import nn

    from tools.train_demo import train_transformer

    demo = train_transformer.Demo.new("cpu")
    nn.init.normal_(demo.transformer.all_final_layer["2-1"].linear.weight, std=0.1)
    generator = torch.Generator().manual_seed(0)
    latents = list(torch.randn(3, 16, 1, 16, 12, generator=generator))
    words = list(torch.randn(3, 25, 128, generator=generator))
    times = torch.tensor([0.1, 0.5, 0.9])

    def answer() -> torch.Tensor:
        with torch.no_grad():
            return torch.stack(demo.transformer(latents, times, words, return_dict=False)[0])

    published = answer()
    for block in [*demo.transformer.layers, *demo.transformer.noise_refiner]:
        block.attention.set_processor(train_transformer.Attention())
    assert relative_error(answer().numpy(), published.numpy()) < 5e-6  # measured: 7e-7


def test_most_sigmas_are_those_of_the_eight_steps() -> None:
    import torch

    from tools.train_demo import train_transformer

    found = train_transformer.sigmas(1000, torch.Generator().manual_seed(0)).numpy()
    steps = {round(float(sigma), 5) for sigma in found[:700]}
    assert steps == {1.0, 0.95455, 0.9, 0.83333, 0.75, 0.64286, 0.5, 0.3}
    assert ((found > 0) & (found <= 1)).all()
    assert len(set(found[700:])) > 200


def test_what_the_reader_must_answer() -> None:
    from tools.train_demo import train_reader
    from tools.train_demo.scenes import Scene, Thing

    scene = Scene("blue", (Thing("R", "red", "small"),), ("top", "left"))
    none = train_reader.NONE
    assert train_reader.answers(scene) == [2, 0, 7 + 17, 0, 0, none, none, none]
    pair = Scene("red", (Thing("circle", "white", "medium"),) * 2, relation="above")
    assert train_reader.answers(pair) == [0, 10, 0, 4, 1, 0, 4, 1]
