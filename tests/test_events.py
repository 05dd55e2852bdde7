"""Events: short reprs, and messages that quote only the beginning of what was lost."""

import pickle

import mlx.core as mx
import pytest
from PIL import Image

from mlx_zimage import Request
from mlx_zimage.events import Downloaded, Finished, Result, Started, Step, Truncated, Written

LONG = "the red circle in the ice " * 4000


def result(prompt: str | list[str] | None, **changes: object) -> Result:
    embeds = mx.ones((3, 4))
    request = Request(prompt, seed=7) if prompt else Request(prompt_embeds=embeds, seed=7)
    image = Image.new("RGB", (64, 32))
    return Result(image, mx.zeros((1, 16, 4, 8)), embeds, request, **changes)  # type: ignore[arg-type]


def test_defaults() -> None:
    assert Started("encode") == Started("encode", component="", job=0)
    assert Finished("load", 1.5, "vae").component == "vae"
    assert Downloaded("a", 1, 2).total == Written("vae", 1, 2).total == 2
    assert result("x").metadata == {}
    assert result("x").metadata is not result("x").metadata


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (result("a fox"), "Result(64 x 32, prompt='a fox', index=0, job=0)"),
        (result(["a", "b"], index=1, job=2), "Result(64 x 32, prompt='b', index=1, job=2)"),
        (result(None), "Result(64 x 32, prompt=None, index=0, job=0)"),
        (
            Step(1, 8, 0.25, 1.23456, mx.zeros((1, 16, 8, 8))),
            "Step(number=1, total=8, sigma=0.25, seconds=1.23, latents=<1x16x8x8 float32>, job=0)",
        ),
    ],
)
def test_repr_is_one_short_line(event: object, text: str) -> None:
    assert repr(event) == text


def test_long_texts_are_cut() -> None:
    event = Truncated(LONG, 512)
    assert event.lost == LONG
    for text in (repr(event), repr(result(LONG)), event.message):
        assert len(text) < 150
        assert "characters)" in text
    assert event.message.startswith(
        "the prompt is longer than 512 tokens; ignored: 'the red circle in the ice the red circle"
    )


def test_results_can_be_pickled() -> None:
    again = pickle.loads(pickle.dumps(result("x", metadata={"model": "demo"})))
    assert again.request == result("x").request
    assert again.metadata == {"model": "demo"}
    assert mx.array_equal(again.latents, mx.zeros((1, 16, 4, 8))).item()
    assert again.image.tobytes() == result("x").image.tobytes()
