"""Pictures from pictures. How near they are to the published ones is held in tests/parity."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from mlx_zimage import Request, RequestError, Result, Started, Step, ZImage
from mlx_zimage.bench.measure import measure
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.generation.image import first_step
from mlx_zimage.memory.store import Store
from tests.measures import relative_error

Load = Callable[[str], Path]
RANDOM = np.random.RandomState(0)
PHOTO = np.kron(RANDOM.randint(0, 256, (5, 7, 3)), np.ones((16, 16, 1))).astype(np.uint8)  # 112x80
OTHER = np.ascontiguousarray(PHOTO[::-1])
SHORT: dict[str, Any] = {"steps": 4, "seed": 1}
MASK = np.zeros(PHOTO.shape[:2], np.uint8)
MASK[20:50, 30:70] = 255


@pytest.fixture
def model(checkpoint: Load) -> ZImage:
    return ZImage.load(checkpoint("small"), dtype="float32")


def pixels(result: Any) -> np.ndarray:
    assert isinstance(result, Result)
    return np.asarray(result.image)


def test_every_form_of_a_picture(model: ZImage, tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    Image.fromarray(PHOTO).save(file)
    first = pixels(model.generate("x", image=PHOTO, **SHORT))
    assert first.shape == (48, 80, 3)
    for image in (file, str(file), Image.fromarray(PHOTO), mx.array(PHOTO)):
        assert np.array_equal(pixels(model.generate("x", image=image, **SHORT)), first)


def test_transparency_lies_over_white(model: ZImage) -> None:
    clear = np.dstack([PHOTO, MASK])
    white = np.where(MASK[..., None] > 0, PHOTO, 255).astype(np.uint8)
    results = [model.generate("x", image=image, **SHORT) for image in (clear, white)]
    assert np.array_equal(*map(pixels, results))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fit": "pad", "width": 64, "height": 64},
        {"fit": "stretch", "width": 32, "height": 80},
        {"strength": 0.3, "guidance": 2.0},
        {"mask": MASK},
        {"mask": MASK, "fit": "pad", "width": 64, "height": 64, "mask_softness": 9},
        {"mask": MASK, "focus": 4, "width": 48, "height": 32},
        {"outpaint": (16, 0, 3, 0)},
        {"outpaint": (0, 8, 0, 8), "mask": MASK, "width": 64, "height": 64},
    ],
    ids=str,
)
def test_a_result_s_request_makes_the_same_picture(model: ZImage, options: Any) -> None:
    result = model.generate("x", image=PHOTO, **options, **SHORT)
    again = model.generate(Request.from_json(result.request.to_json()))
    assert isinstance(again, Result) and again.request == result.request
    assert np.array_equal(pixels(again), pixels(result))
    assert model.check("x", image=PHOTO, **options, **SHORT) == result.request
    assert model.check(result.request) == result.request


def test_a_photo_is_saved_at_the_size_that_is_used(model: ZImage) -> None:
    photo = np.kron(PHOTO, np.ones((8, 8, 1), np.uint8))
    request = model.check("x", image=photo, mask=MASK, **SHORT)
    assert request.image is not None and request.mask is not None
    assert not isinstance(request.image, tuple) and not isinstance(request.mask, tuple)
    assert request.image.size == request.mask.size == (request.width, request.height)


@pytest.mark.parametrize(
    ("source", "options", "size"),
    [
        ((64, 64), {}, (64, 64)),
        ((40, 50), {}, (32, 48)),
        ((7, 7), {}, (16, 16)),
        ((640, 480), {}, (80, 48)),
        ((640, 480), {"width": 96}, (96, 64)),
        ((640, 480), {"height": 96}, (128, 96)),
        ((640, 480), {"width": 32, "height": 32}, (32, 32)),
        ((48, 48), {"outpaint": (40, 0, 0, 0)}, (96, 48)),
        ((48, 48), {"outpaint": (0, 3, 0, 0)}, (48, 64)),
        ((480, 480), {"outpaint": (0, 0, 480, 0)}, (128, 64)),
    ],
)
def test_sizes(model: ZImage, source: Any, options: Any, size: Any) -> None:
    """The default of this checkpoint is 64 x 64 pixels."""
    image = np.zeros((source[1], source[0], 3), np.uint8)
    request = model.check("x", image=image, **options)
    assert (request.width, request.height) == size


def test_defaults(model: ZImage) -> None:
    request = model.check("x", image=PHOTO)
    assert (request.strength, request.fit, request.mask_softness) == (0.6, "crop", None)
    request = model.check("x", image=PHOTO, mask=MASK)
    assert (request.strength, request.fit) == (1.0, "crop")
    assert (request.mask_softness, request.keep_unmasked) == (0.0, True)
    assert model.check("x", image=PHOTO, outpaint=(1, 0, 0, 0)).strength == 1.0


@pytest.mark.parametrize(
    ("steps", "strength", "first"),
    [(8, 0.3, 5), (8, 0.6, 3), (9, 0.9, 0), (8, 1.0, 0), (8, 1e-9, 7), (50, 0.6, 20), (8, 0.0, 8)],
)
def test_steps_round_up(steps: int, strength: float, first: int) -> None:
    assert first_step(steps, strength) == first


@pytest.mark.parametrize("schedule", [None, "legacy", [1.0, 0.7, 0.4, 0.2]])
def test_strength_is_a_share_of_the_steps(model: ZImage, schedule: Any) -> None:
    steps = 5 if schedule == "legacy" else 4
    options: dict[str, Any] = {"image": PHOTO, "schedule": schedule, "steps": steps, "seed": 1}
    events = [e for e in model.stream("x", strength=0.5, **options) if isinstance(e, Step)]
    assert [(e.number, e.total) for e in events] == [(1, 2), (2, 2)]
    assert events[-1].sigma == 0


@pytest.mark.slow
def test_weak_changes_stay_near_the_image(checkpoint: Load) -> None:
    model = ZImage.load(checkpoint("demo"), dtype="float32")
    drawn = model.generate("a red circle on a blue background", seed=7)
    distances = []
    for strength in (0.15, 0.5, 1.0):
        result = model.generate(
            "a red star on a blue background", image=drawn.image, strength=strength, seed=3
        )
        distances.append(relative_error(pixels(result), pixels(drawn)))
    assert distances[0] < distances[1] < distances[2] * 1.2 and distances[0] < 0.5


def test_one_image_for_all_or_one_for_each(model: ZImage) -> None:
    """With a seed each, each picture is what it is alone."""
    both = model.generate(["x", "y"], image=[PHOTO, OTHER], seed=[1, 2], steps=3)
    for result, prompt, image, seed in zip(both, "xy", (PHOTO, OTHER), (1, 2), strict=True):
        alone = model.generate(prompt, image=image, seed=seed, steps=3)
        assert relative_error(result.latents, alone.latents) < 1e-5
    shared = model.generate(["x", "x"], image=PHOTO, seed=1, steps=3)
    assert relative_error(shared[0].latents, shared[1].latents) > 0.01  # the noise differs
    with pytest.raises(RequestError, match="image must be one for all or one for each of 2"):
        model.check(["x", "y"], image=[PHOTO] * 3)


def test_the_first_image_decides_the_size(model: ZImage) -> None:
    small = np.ascontiguousarray(PHOTO[:32, :48])
    request = model.check(["x", "y"], image=[small, PHOTO])
    assert (request.width, request.height) == (48, 32)


@pytest.mark.parametrize("kind", ["mlx", "torch-cuda:4090"])
def test_other_noise(model: ZImage, kind: str) -> None:
    a, b = (model.generate("x", image=PHOTO, noise=kind, **SHORT) for _ in range(2))
    assert np.array_equal(pixels(a), pixels(b))


REQUESTS = [
    Request("x", width=32, height=32, steps=2, seed=1),
    Request("x", image=PHOTO, steps=3, seed=2),
    Request(["x", "y"], image=[PHOTO, OTHER], mask=MASK, steps=2, seed=3),
    Request("z", image=PHOTO, mask=MASK, focus=2, steps=2, seed=4),
]


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["resident", "staged", "low"])
def test_mixed_jobs(checkpoint: Load, memory: Any) -> None:
    model = ZImage.load(checkpoint("small"), memory=memory, dtype="float32")
    events = list(model.stream_all(REQUESTS))
    results = [e for e in events if isinstance(e, Result)]
    assert [(r.job, r.index) for r in results] == [(0, 0), (1, 0), (2, 0), (2, 1), (3, 0)]
    loaded = [e.component for e in events if isinstance(e, Started) and e.phase == "load"]
    if memory != "resident":
        assert loaded == ["text_encoder", "vae", "transformer", "vae"]
    for result in results:
        alone = model.generate(REQUESTS[result.job])
        single = alone[result.index] if isinstance(alone, list) else alone
        assert np.array_equal(pixels(result), pixels(single))


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["resident", "staged"])
def test_the_estimate_counts_the_encoder(checkpoint: Load, memory: str) -> None:
    """Measured on a CPU: 0.97 to 1.06 of the estimate."""
    opened = Checkpoint.open(checkpoint("demo"))
    model = ZImage(opened, Store(opened, None, "float32", memory))
    options: dict[str, Any] = {"width": 192, "height": 192, "steps": 2, "seed": 0}
    plain = model.estimate("a red star", **options)
    request = Request("a red star", image=PHOTO, strength=0.5, **options)
    told = model.estimate(request)
    assert told.encode > 3 * plain.encode and told.decode == plain.decode
    gc.collect()
    before = mx.get_active_memory()
    stages = {
        stage.name: stage.peak - before for stage in measure(model, opened, request, 1).stages
    }
    assert 0.85 < stages["encode vae"] / told.encode < 1.15
    assert 0.85 < stages["denoise"] / told.denoise < 1.15
    assert 0.85 < stages["decode"] / told.decode < 1.15


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 0.5}, "strength has no effect without an image"),
        ({"fit": "pad"}, "fit has no effect without an image"),
        ({"mask": MASK}, "mask has no effect without an image"),
        ({"outpaint": (1, 1, 1, 1)}, "outpaint has no effect without an image"),
        ({"focus": 4}, "focus has no effect without an image"),
        ({"image": PHOTO, "strength": 0}, "strength must be above 0"),
        ({"image": PHOTO, "strength": 1.5}, "strength must be a number from 0 to 1"),
        ({"image": PHOTO, "strength": -0.1}, "strength must be a number from 0 to 1"),
        ({"image": PHOTO, "strength": float("nan")}, "strength must be a number from 0 to 1"),
        ({"image": PHOTO, "strength": 1e-30}, "strength must be above 0, not 1e-30: no step"),
        ({"image": PHOTO, "latents": np.zeros((1, 16, 8, 8))}, "image has no effect with latents"),
        ({"image": PHOTO, "fit": "zoom"}, "fit must be crop, pad or stretch"),
        ({"image": PHOTO, "width": 50}, "width must be a multiple of 16, not 50"),
        ({"image": []}, "image must hold at least one picture"),
        ({"image": "none.png"}, "image none.png cannot be read"),
        ({"image": PHOTO, "width": 8208, "height": 16}, "width must be a whole number"),
    ],
)
def test_refused_before_any_work(model: ZImage, options: Any, message: str) -> None:
    for judge in (model.check, model.estimate, model.stream):
        with pytest.raises(RequestError, match=message):
            judge("x", **options)
