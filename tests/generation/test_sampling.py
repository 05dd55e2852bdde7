"""Samplers and schedules through the public face, on random checkpoints and on the demo."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage import CheckpointError, Request, RequestError, Result, Step, ZImage
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.generation.sampling import NAMES
from mlx_zimage.request import DRAWING_SAMPLERS
from mlx_zimage.sampling.noise import torch_cpu
from mlx_zimage.sampling.schedule import SCHEDULES
from tests.twinflow import write_twinflow
from tools.train_demo.reading import read

SMALL: dict[str, Any] = {"width": 48, "height": 32, "steps": 3, "seed": 3}
ORDINARY = [name for name in NAMES if name != "twinflow"]
PROMPTS = ["a red fox", "a house"]


@pytest.fixture(scope="module")
def model(checkpoint: Callable[[str], Path]) -> ZImage:
    return ZImage.load(checkpoint("small"), dtype="float32")


@pytest.fixture(scope="module")
def demo() -> ZImage:
    return ZImage.load("demo")


@pytest.fixture(scope="module")
def twinflow(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> ZImage:
    folder = write_twinflow(checkpoint("even"), tmp_path_factory.mktemp("tf") / "ck")
    return ZImage.load(folder, dtype="float32")


def _latents(model: ZImage, prompt: Any = "a red fox", **options: Any) -> np.ndarray:
    results = model.generate(prompt, **{**SMALL, **options})
    results = [results] if isinstance(results, Result) else results
    return np.concatenate([np.array(result.latents) for result in results])


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ORDINARY)
@pytest.mark.parametrize("schedule", [None, *SCHEDULES])
def test_the_demo_draws_what_is_asked_for(demo: ZImage, sampler: str, schedule: str | None) -> None:
    image = demo.generate(
        "a red circle on a blue background",
        seed=7,
        steps=8,
        sampler=sampler,
        schedule=schedule,
        width=96,
        height=96,
    ).image
    reading = read(image)
    assert reading.background == "blue"
    assert [(thing.colour, thing.shape) for thing in reading.found] == [("red", "circle")]


def test_samplers_differ(model: ZImage) -> None:
    latents = {name: _latents(model, sampler=name) for name in ORDINARY}
    assert np.array_equal(latents["euler"], _latents(model))
    names = list(latents)
    for i, name in enumerate(names):
        for other in names[:i]:
            assert not np.allclose(latents[name], latents[other], atol=1e-4)


@pytest.mark.parametrize("sampler", ORDINARY)
def test_the_request_makes_it_again(model: ZImage, sampler: str) -> None:
    options = {**SMALL, "sampler": sampler, "schedule": "beta", "shift": 2.0}
    result = model.generate("a red fox", **{**options, "seed": None})
    assert result.request.sampler == sampler and isinstance(result.request.seed, int)
    again = model.generate(Request.from_json(result.request.to_json()))
    assert isinstance(again, Result) and mx.array_equal(again.latents, result.latents)


@pytest.mark.parametrize("sampler", ORDINARY)
def test_seeds_of_a_batch_are_their_pictures(model: ZImage, sampler: str) -> None:
    both = _latents(model, PROMPTS, seed=[4, 9], sampler=sampler)
    for row, (prompt, seed) in enumerate(zip(PROMPTS, (4, 9), strict=True)):
        alone = _latents(model, prompt, seed=seed, sampler=sampler)
        assert np.abs(both[row] - alone[0]).max() < 1e-4


def test_with_guidance_and_levels(model: ZImage) -> None:
    for sampler in ORDINARY:
        options = {"sampler": sampler, "guidance": 2.0, "negative_prompt": "blue", "steps": None}
        assert np.isfinite(_latents(model, schedule=[1.0, 0.7, 0.2], **options)).all()


def test_ancestral_noise_is_not_the_first_noise(model: ZImage) -> None:
    """With one step there is none; the next seed's noise differs from the seed's own."""
    assert np.array_equal(
        _latents(model, steps=1), _latents(model, steps=1, sampler="euler_ancestral")
    )
    first, second = (torch_cpu(seed, 384) for seed in (3, 4))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2


def test_latents_with_a_sampler_that_draws(model: ZImage) -> None:
    latents = np.ones((1, 16, 4, 6), np.float32)
    runs = [
        model.generate("x", latents=latents, steps=3, sampler="euler_ancestral", seed=seed)
        for seed in (1, 1, 2)
    ]
    assert mx.array_equal(runs[0].latents, runs[1].latents)
    assert not mx.array_equal(runs[0].latents, runs[2].latents)
    drawn = model.check("x", latents=latents, sampler="euler_ancestral")
    assert isinstance(drawn.seed, int) and drawn.noise == "torch-cpu"
    for sampler in (None, "euler", "res_multistep", "dpmpp_2m"):
        with pytest.raises(RequestError, match="seed has no effect with latents"):
            model.check("x", latents=latents, sampler=sampler, seed=1)


def test_the_largest_seed(model: ZImage) -> None:
    assert np.isfinite(_latents(model, seed=2**64 - 1, sampler="euler_ancestral")).all()


def test_a_shift_of_its_own(model: ZImage) -> None:
    assert np.array_equal(_latents(model, shift=3.0), _latents(model))
    assert not np.array_equal(_latents(model, shift=1.0), _latents(model))
    events = model.stream("x", **{**SMALL, "shift": 1.0, "schedule": "simple", "steps": 2})
    assert [e.sigma for e in events if isinstance(e, Step)] == [0.5, 0]


def test_filled_in_fields(model: ZImage) -> None:
    request = model.check("x")
    assert (request.sampler, request.schedule, request.shift) == ("euler", None, None)
    assert {"euler_ancestral", "twinflow"} == {*DRAWING_SAMPLERS}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"sampler": "heun"},
            "sampler must be euler, euler_ancestral, res_multistep, dpmpp_2m or twinflow, "
            "not 'heun'",
        ),
        (
            {"schedule": "karras"},
            "schedule must be 'legacy', 'simple', 'sgm_uniform', 'normal', 'beta', a list of noise "
            "levels, or left out, not 'karras'",
        ),
        ({"schedule": ["simple", 1.0, 0.5]}, "schedule must be a name or at most 1000 noise"),
        ({"shift": 0}, "shift must be a number from 0.01 to 100, not 0"),
        ({"sampler": "twinflow"}, "sampler 'twinflow' needs a TwinFlow checkpoint, and this one"),
    ],
)
def test_refused(model: ZImage, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        model.check("x", **options)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_twinflow_is_the_default_where_it_can_be(twinflow: ZImage) -> None:
    request = twinflow.check("x")
    assert (request.sampler, request.steps, request.guidance) == ("twinflow", 4, 0)
    plain = twinflow.check("x", sampler="res_multistep")
    assert (plain.sampler, plain.steps) == ("res_multistep", 8)
    events = list(twinflow.stream("x", width=32, height=32, steps=2, seed=1))
    sigmas = [event.sigma for event in events if isinstance(event, Step)]
    assert sigmas == pytest.approx([0.6, 0])
    assert isinstance(events[-1], Result)


def test_the_second_embedder_acts_on_twinflow_alone(
    checkpoint: Callable[[str], Path], twinflow: ZImage
) -> None:
    plain = ZImage.load(checkpoint("even"), dtype="float32")
    assert np.array_equal(_latents(plain), _latents(twinflow, sampler="euler"))
    transformer = Checkpoint.open(twinflow._checkpoint.path)["transformer"].load(mx.float32)
    with_target, without = (transformer.modulate([0.4], t)[0].final for t in ([0.0], None))
    assert np.abs(np.array(with_target - without)).max() > 1e-3


def test_twinflow_in_batches_and_every_memory(twinflow: ZImage) -> None:
    both = _latents(twinflow, PROMPTS, seed=[4, 9])
    for row, (prompt, seed) in enumerate(zip(PROMPTS, (4, 9), strict=True)):
        assert np.abs(both[row] - _latents(twinflow, prompt, seed=seed)[0]).max() < 1e-4
    path = twinflow._checkpoint.path
    for memory in ("staged", "low"):
        other = ZImage.load(path, dtype="float32", memory=memory)
        assert np.array_equal(_latents(other, PROMPTS, seed=[4, 9]), both)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_twinflow_in_16_bit(twinflow: ZImage, dtype: Any) -> None:
    model = ZImage.load(twinflow._checkpoint.path, dtype=dtype)
    exact, rough = _latents(twinflow), _latents(model)
    assert np.linalg.norm(exact - rough) / np.linalg.norm(exact) < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 8}, "sampler 'twinflow' takes 2 to 4 steps, not 8; ask for"),
        ({"guidance": 1.0}, "sampler 'twinflow' works without guidance"),
        ({"schedule": "beta"}, "schedule has no effect with sampler 'twinflow'"),
        ({"shift": 3.0}, "shift has no effect with sampler 'twinflow'"),
    ],
)
def test_refused_by_twinflow(twinflow: ZImage, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        twinflow.check("x", **options)


def test_twinflow_in_a_file_of_comfyuis_nodes(
    checkpoint: Callable[[str], Path], tmp_path: Path, twinflow: ZImage
) -> None:
    folder = write_twinflow(checkpoint("even"), tmp_path / "ck", "extended_weights.t_embedder_2.")
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    opened = Checkpoint.open(file, base=checkpoint("even"))
    assert opened.transformer.has_target_time
    expected = Checkpoint.open(twinflow._checkpoint.path)["transformer"].needed
    assert opened["transformer"].needed.keys() == expected.keys()


def test_half_a_second_embedder_is_refused(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = write_twinflow(checkpoint("even"), tmp_path / "ck")
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors: Any = mx.load(str(file))
    del tensors["t_embedder_2.mlp.2.weight"]
    mx.save_safetensors(str(file), tensors)
    with pytest.raises(CheckpointError, match=r"lacks tensor 't_embedder_2.mlp.2.weight'"):
        Checkpoint.open(folder)
