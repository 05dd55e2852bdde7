"""Orders laid out as requests."""

from typing import Any

import numpy as np
import pytest

from mlx_zimage import Lora, Request, RequestError, ZImage
from mlx_zimage.server.failures import Refusal, refusal_of
from mlx_zimage.server.orders import Order
from mlx_zimage.server.plans import make_plan

FIELDS = {"prompt": "a red circle", "steps": 1, "seed": 5}


@pytest.fixture(scope="module")
def model() -> ZImage:
    return ZImage.load("demo")


def seeds(plan: Any) -> list[Any]:
    return [request.seed for request in plan.requests]


def test_count_raises_the_seed(model: ZImage) -> None:
    plan = make_plan(Order(FIELDS, count=3), model)
    assert seeds(plan) == [5, 6, 7]
    assert plan.count == 3
    assert all(request.width == 128 for request in plan.requests)  # every field is filled in


def test_seeds_begin_again_after_the_last(model: ZImage) -> None:
    plan = make_plan(Order({**FIELDS, "seed": 2**64 - 1}, count=2), model)
    assert seeds(plan) == [2**64 - 1, 0]


def test_several_prompts(model: ZImage) -> None:
    fields = {"prompt": ["a red circle", "a blue star"], "steps": 1, "seed": [3, 9]}
    plan = make_plan(Order(fields, count=2), model)
    assert seeds(plan) == [(3, 9), (4, 10)]
    assert plan.count == 4


def test_pictures_of_given_latents_are_one(model: ZImage) -> None:
    latents = Request("x", latents=np.zeros((1, 16, 16, 16), np.float32)).to_dict()["latents"]
    fields = {"prompt": "a red circle", "latents": latents}
    with pytest.raises(Refusal, match="count has no effect with latents"):
        make_plan(Order(fields, count=2), model)


def test_a_sweep_groups_cells_by_loras(model: ZImage) -> None:
    axes = (("seed", (1, 2)), ("lora:style", (0, 0.5)))
    order = Order({"prompt": "a red circle", "steps": 1}, loras=(Lora("other", 0.3),), sweep=axes)
    plan = make_plan(order, model)
    assert [[(lora.source, lora.scale) for lora in group.loras] for group in plan.groups] == [
        [("other", 0.3), ("style", 0.0)],
        [("other", 0.3), ("style", 0.5)],
    ]
    assert plan.sheet is not None
    assert plan.sheet.rows == ("seed 1", "seed 2")
    assert plan.sheet.columns == ("style 0", "style 0.5")
    assert seeds(plan) == [1, 2, 1, 2]
    assert plan.sheet.places == (0, 2, 1, 3)
    assert order.names == ["other", "style"]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ((("steps", (1, 2)), ("steps", (3, 4))), "name a field, and the LoRAs, once"),
        ((("lora:a", (0, 1)), ("lora:b", (0, 1))), "name a field, and the LoRAs, once"),
        ((("steps", (1, 1)),), "steps 1 twice"),
        ((("steps", ("x",)),), "steps must be"),
        ((("nothing", (1,)),), "no field"),
        ((("lora:a", ("strong",)),), "a LoRA's scale must be"),
    ],
)
def test_sweeps_that_are_refused(model: ZImage, axes: Any, message: str) -> None:
    with pytest.raises((Refusal, RequestError), match=message) as refused:
        make_plan(Order({"prompt": "a red circle"}, sweep=axes), model)
    assert refusal_of(refused.value).status == 400
