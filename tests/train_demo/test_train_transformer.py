"""A few steps of the transformer's training: what it learns from, and the checkpoint it ends in."""

import itertools
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage import ZImage
from tests.measures import relative_error

pytestmark = pytest.mark.parity


def test_training_ends_in_a_checkpoint_that_training_can_begin_with(out: Path) -> None:
    import torch
    from diffusers import ZImagePipeline

    from tools.train_demo import train_transformer
    from tools.train_demo.assemble import assemble

    assert train_transformer.train(out, 3, batch=2, compiled=False)
    assemble(out, out / "demo")
    ours = ZImage.load(out / "demo", dtype="float32")
    pipeline = ZImagePipeline.from_pretrained(out / "demo", dtype=torch.float32)
    theirs = pipeline.encode_prompt("red", do_classifier_free_guidance=False)[0]
    result = ours.generate("red", width=32, height=32, steps=1)
    mine = np.array(result.prompt_embeds.astype(mx.float32))
    assert relative_error(mine, theirs[0].detach().numpy()) < 1e-5
    assert not pipeline.text_encoder.model.layers[-1].mlp.down_proj.weight.any()

    again = train_transformer.Demo.read(out / "demo", "cpu")
    trained = train_transformer.Training(out, "cpu", 2, None, compiled=False)
    for name, parameter in again.named_parameters():
        assert parameter.equal(trained.mean[name].bfloat16().float()), name


def test_batches_hold_prompts_of_as_many_blocks(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tools.train_demo import train_batches

    monkeypatch.setattr(train_batches, "LONG", 0.5)
    monkeypatch.setattr(train_batches, "MAIN_SHARE", 0.5)
    batches = train_batches.Batches(out, 4, "cpu")
    seen = set()
    for number in range(30):
        batch = batches[number]
        assert batch.clean.shape[:2] == (4, 16)
        assert batch.focus.shape[2:] == batch.clean.shape[2:]
        blocks = {-(-len(ids) // train_batches.BLOCK) for ids in batch.ids}
        assert len(blocks) == 1
        seen |= {(tuple(batch.clean.shape[2:]), *blocks)}
    assert seen == {((8, 8), 1), ((8, 8), 2), ((12, 8), 1), ((12, 8), 2)}
    again = batches[29]
    assert again.ids == batch.ids and again.clean.equal(batch.clean)


def test_things_weigh_as_much_as_the_picture() -> None:
    from tools.train_demo.scenes import Scene, Thing
    from tools.train_demo.train_batches import FOCUS, focus

    for size in ("small", "large"):
        weights = focus(Scene("red", (Thing("R", "white", size),), ("top", "left")), 128, 96)
        assert weights.shape == (12, 16)
        assert weights.mean() == pytest.approx(1, abs=1e-6)
        inside = weights > 1
        assert weights[inside].sum() == pytest.approx(
            weights.size * FOCUS + (1 - FOCUS) * inside.sum(), rel=1e-5
        )
        assert inside[3, 4] and not inside[11, 15]


def test_points_move_as_they_do_when_a_picture_is_drawn(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From noise, by the transformer's own answers, through the eight steps."""
    import torch

    from tools.train_demo import train_transformer
    from tools.train_demo.train_model import Demo, levels

    monkeypatch.setattr(train_transformer, "RESTARTED", 0)
    demo = Demo.new("cpu")
    torch.nn.init.normal_(demo.transformer.all_final_layer["2-1"].linear.weight, std=0.1)
    batch = train_transformer.Batches(out, 3, "cpu")[0]
    batch.dropped[:] = False
    under_way = train_transformer.Underway.begin(batch)
    torch.manual_seed(1)
    drawn = torch.randn(batch.clean.shape)
    under_way.x, under_way.sigma = drawn, torch.ones(3)
    for now, following in itertools.pairwise(levels().tolist()):
        assert 0 < under_way.turn(demo).item() <= 1
        with torch.no_grad():
            answer = demo.answer(drawn, torch.full((3,), now), batch.ids)
        drawn = drawn + (now - following) * answer
        assert relative_error(under_way.x.numpy(), drawn.numpy()) < 1e-5
    assert not under_way.sigma.any()


def test_attention_is_the_published_one() -> None:
    import torch
    from torch import nn

    from tools.train_demo.train_model import Attention, Demo

    demo = Demo.new("cpu")
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
        block.attention.set_processor(Attention())
    assert relative_error(answer().numpy(), published.numpy()) < 5e-6  # measured: 7e-7


def test_most_sigmas_are_those_of_the_eight_steps() -> None:
    import torch

    from tools.train_demo import train_transformer

    torch.manual_seed(0)
    drawn = train_transformer.sigmas(1000)
    steps = [1.0, 0.95455, 0.9, 0.83333, 0.75, 0.64286, 0.5, 0.3]
    assert train_transformer.levels().tolist() == pytest.approx([*steps, 0], abs=1e-5)
    at_steps = [min(abs(sigma - step) for step in steps) < 1e-5 for sigma in drawn.tolist()]
    assert 0.55 < np.mean(at_steps) < 0.65
    assert ((drawn > 0) & (drawn <= 1)).all()
    below = train_transformer.lower(torch.tensor([1.0, 0.97, 0.5, 0.31, 0.3, 0.1]))
    assert below.tolist() == pytest.approx([0.95455, 0.95455, 0.3, 0.3, 0, 0], abs=1e-5)


@pytest.mark.parametrize("shape", [(24, 48), (48, 24)])
def test_muon_is_torchs(shape: tuple[int, int]) -> None:
    """torch computes the direction in bfloat16: 1 % of it."""
    import torch

    from tools.train_demo.train_muon import Muon

    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
    optimizers = (
        Muon([{"params": [ours]}], lr=0.1),
        torch.optim.Muon([theirs], lr=0.1, weight_decay=0.0),
    )
    for _ in range(3):
        ours.grad = theirs.grad = torch.randn(shape)
        for optimizer in optimizers:
            optimizer.step()
    moved = (ours.detach() - 1).numpy(), (theirs.detach() - 1).numpy()
    assert relative_error(*moved) < 0.03  # measured: 0.016


def test_what_the_reader_must_answer() -> None:
    from tools.train_demo import train_reader
    from tools.train_demo.scenes import Scene, Thing

    scene = Scene("blue", (Thing("R", "red", "small"),), ("top", "left"))
    none = train_reader.NONE
    assert train_reader.answers(scene) == [2, 0, 7 + 17, 0, 0, none, none, none]
    pair = Scene("red", (Thing("circle", "white", "medium"),) * 2, relation="above")
    assert train_reader.answers(pair) == [0, 10, 0, 4, 1, 0, 4, 1]
