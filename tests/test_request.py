"""Requests: what is refused, and that JSON gives the same one back."""

import copy
import dataclasses
import itertools
import json
import pickle
import re
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage import Request, RequestError
from mlx_zimage.request import CHECKS, Options

NAN = float("nan")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("width", 0, "width must be a whole number from 1 to 8192, not 0"),
        ("height", -16, "height must be a whole number from 1 to 8192, not -16"),
        ("width", 10**9, "width must be a whole number"),
        ("width", 64.0, "width must be a whole number"),
        ("width", True, "width must be a whole number"),
        ("width", "64", "width must be a whole number"),
        ("steps", 0, "steps must be a whole number from 1 to 1000, not 0"),
        ("steps", -1, "steps must be"),
        ("seed", -1, "seed must be a whole number from 0 to 18446744073709551615, not -1"),
        ("seed", 2**64, "seed must be"),
        ("seed", [1, "2"], "seed must be"),
        ("guidance", NAN, "guidance must be a number from 0 to 1000, not nan"),
        ("guidance", float("inf"), "guidance must be a number from 0 to 1000"),
        ("guidance", -1, "guidance must be a number from 0 to 1000"),
        ("guidance", "high", "guidance must be a number from 0 to 1000"),
        ("cfg_normalization", NAN, "cfg_normalization must be"),
        ("cfg_truncation", -0.5, "cfg_truncation must be"),
        ("schedule", [], "schedule must be a name or at most 1000 noise levels"),
        ("schedule", [0.5, 0.9], "noise levels that fall from at most 1"),
        ("schedule", [1.0, 0.0], "to above 0"),
        ("schedule", [1.5, 0.5], "from at most 1"),
        ("schedule", [NAN], "schedule must be"),
        ("schedule", 3, "schedule must be"),
        ("noise", 3, "noise must be a string"),
        ("prompt", 3, "prompt must be a string, not 3"),
        ("prompt", "half \udcff", "prompt must be valid Unicode"),
        ("negative_prompt", ["\ud83e"], "negative_prompt must be valid Unicode"),
        ("prompt", [], "prompt must hold at least one string"),
        ("prompt", ["a", None], "prompt must be a string, not None"),
        ("negative_prompt", b"x", "negative_prompt must be a string"),
        ("latents", np.zeros((1, 16, 4)), "latents must have 4 dimensions"),
        ("latents", np.full((1, 1, 1, 1), NAN), "latents must be finite"),
        ("latents", "zeros", "latents must be an array of real numbers"),
        ("latents", np.ones((1, 1, 1, 1), complex), "latents must be an array of real numbers"),
        ("latents", [[1], [1, 2]], "latents must be an array of numbers"),
        ("guidance", 10**400, "guidance must be a number"),
        ("schedule", [10**400], "schedule must be"),
        ("schedule", [1.0, 1e-50], "schedule must be"),
        ("schedule", [0.5, 0.49999999999], "schedule must be"),
        ("schedule", ["1", "0.5"], "schedule must be"),
        ("schedule", {"a": 1}, "schedule must be"),
        ("schedule", [1e300], "schedule must be"),
        ("schedule", itertools.count(), "schedule must be"),
        ("schedule", np.array(0.5), "schedule must be"),
        ("guidance", "2", "guidance must be a number from 0 to 1000, not '2'"),
        ("guidance", True, "guidance must be a number from 0 to 1000, not True"),
        ("guidance", [2], "guidance must be a number from 0 to 1000, not [2]"),
        ("cfg_normalization", "1", "cfg_normalization must be a number"),
        ("cfg_truncation", 2, "cfg_truncation must be a number from 0 to 1 (1: guidance is on"),
        ("cfg_truncation", "0.5", "cfg_truncation must be a number from 0 to 1"),
        ("cfg_truncation", True, "cfg_truncation must be a number from 0 to 1"),
        ("seed", 1.5, "seed must be a whole number from 0 to 18446744073709551615, not 1.5"),
        ("seed", [], "seed must hold at least one whole number, not an empty list"),
        ("steps", True, "steps must be a whole number from 1 to 1000, not True"),
        pytest.param("width", 10**5000, "not a value of type int", id="many digits"),
        ("prompt", {"prompt": "x"}, "prompt must be a string, not a dict: {'prompt': 'x'}"),
        ("prompt", [["x"]], "prompt must be a string, not a list: ['x']"),
        ("noise", ["mlx"], "noise must be a string, not a list: ['mlx']"),
        ("latents", {"data": "AAAA"}, "an array must hold 'shape' and 'float32', and has no"),
        ("latents", np.full((1, 1, 1, 1), 1e300), "latents must be finite"),
        ("latents", None.__class__, "latents must be an array of real numbers"),
    ],
)
def test_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        Request.from_dict({"prompt": "x", field: value})


def test_refused_by_the_constructor() -> None:
    with pytest.raises(RequestError, match="prompt must be a string, not 1"):
        Request(1)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="a request has no field 'wdith'; did you mean width"):
        Request("x", wdith=3)  # type: ignore[call-arg]
    with pytest.raises(RequestError, match="a request has no field 'zzz'; see help"):
        Request("x").replace(zzz=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("data", [5, None, "x", [("prompt", "x")], {1: 2, "prompt": "x"}])
def test_requests_that_are_no_mapping(data: object) -> None:
    with pytest.raises(RequestError, match=r"a request (must be a mapping|has no field 1)"):
        Request.from_dict(data)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"prompt": 5.0, "seed": 1},
        {"prompt": ["x" * 6000, "\ud800" * 6000]},
        {"prompt": dict.fromkeys(range(6000), "\n")},
        {"prompt": "x", "noise": list("mlx" * 6000)},
        {"prompt": "x", "width": "1" * 6000},
        {"prompt": "x", "schedule": [2.0] * 6000},
        {"prompt": "x", "y\n" * 6000: 1},
    ],
)
def test_messages_are_one_short_line(options: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        Request(**options)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy_are_numbers() -> None:
    request = Request("x", width=np.int64(64), guidance=np.float32(2), schedule=np.array([1, 0.5]))
    assert (request.width, request.guidance, request.schedule) == (64, 2.0, (1.0, 0.5))
    assert Request("x", schedule=mx.array([1, 0.5])).schedule == (1.0, 0.5)


@pytest.mark.parametrize("embeds", [[], [np.zeros(3)], np.zeros((0, 4)), [[NAN]]])
def test_refused_embeddings(embeds: object) -> None:
    with pytest.raises(RequestError, match="prompt_embeds must"):
        Request.from_dict({"prompt_embeds": embeds})


def test_a_prompt_or_embeddings() -> None:
    with pytest.raises(RequestError, match="got neither"):
        Request()
    with pytest.raises(RequestError, match="got both"):
        Request(prompt="x", prompt_embeds=(np.ones((2, 4)),))


@pytest.mark.parametrize("field", ["negative_prompt", "seed"])
def test_one_for_all_or_one_each(field: str) -> None:
    values = ["a", "b", "c"] if field == "negative_prompt" else [1, 2, 3]
    assert Request.from_dict({"prompt": ["x", "y", "z"], field: values}).count == 3
    with pytest.raises(RequestError, match=f"{field} must be one for all or one for each of 2"):
        Request.from_dict({"prompt": ["x", "y"], field: values})


def test_more_seeds_than_prompts() -> None:
    with pytest.raises(RequestError, match=r"seed must be one for all or .* 1 picture, not 2"):
        Request("x", seed=[1, 2])


def test_latents_stand_in_for_a_seed() -> None:
    latents = np.zeros((1, 16, 2, 2))
    with pytest.raises(RequestError, match="seed has no effect with latents"):
        Request(prompt="x", latents=latents, seed=3)
    with pytest.raises(RequestError, match="noise has no effect"):
        Request(prompt="x", latents=latents, noise="mlx")
    with pytest.raises(RequestError, match="one for each of 2 pictures, not 1"):
        Request(prompt=("x", "y"), latents=latents)


def test_an_empty_prompt_is_a_prompt() -> None:
    assert Request(prompt="").prompts == ("",)


def test_unknown_fields() -> None:
    with pytest.raises(RequestError, match="a request has no field 'stpes'; did you mean steps"):
        Request.from_dict({"prompt": "x", "stpes": 3})


def test_what_a_request_gives_follows_from_its_lists() -> None:
    embeds = np.ones((3, 4))
    assert not Request("x").batched
    assert not Request(prompt_embeds=embeds).batched
    assert Request(["x"]).batched
    assert Request(prompt_embeds=[embeds]).batched
    assert [len(e) for e in Request(prompt_embeds=embeds).embeddings] == [3]
    assert Request("x").embeddings == ()


def test_replace() -> None:
    request = Request("x", width=64, latents=np.ones((1, 16, 2, 2)))
    changed = request.replace(prompt="y", width=None)
    assert (changed.prompt, changed.width) == ("y", None)
    assert changed.latents is not None
    assert dataclasses.replace(request, width=32).width == 32


def test_copies_by_pickle_are_equal_and_cannot_change() -> None:
    request = Request("x", latents=np.ones((1, 16, 2, 2)), cfg_truncation=0.5)
    for again in (pickle.loads(pickle.dumps(request)), copy.deepcopy(request)):
        assert again == request
        assert not again.latents.flags.writeable


def test_repr_is_short() -> None:
    assert repr(Request("a fox", seed=7)) == "Request(prompt='a fox', seed=7)"
    assert repr(Request(["a"])) == "Request(prompt=('a',))"
    request = Request(["fox " * 1000] * 9, latents=np.ones((9, 16, 64, 64)))
    assert repr(request).endswith("(+3,941 characters), ...), latents=<9x16x64x64 float32>)")
    assert len(repr(request)) < 500


def test_arrays_are_kept_as_float32_and_cannot_change() -> None:
    given = np.ones((1, 16, 2, 2))
    request = Request(prompt="x", latents=given)
    given[:] = 5
    assert request.latents is not None
    assert request.latents.dtype == np.float32
    assert request.latents.max() == 1
    assert not request.latents.flags.writeable


def test_mlx_arrays_of_any_float_are_taken() -> None:
    request = Request(prompt_embeds=(mx.ones((3, 4), mx.bfloat16),))
    assert request.embeddings[0].tolist() == [[1.0] * 4] * 3


def test_options_are_the_fields() -> None:
    fields = {field.name for field in dataclasses.fields(Request)}
    assert Options.__optional_keys__ == fields - {"prompt"}
    assert set(CHECKS) == fields


@pytest.mark.parametrize(
    "request_",
    [
        Request(prompt=""),
        Request(prompt='狐狸 🦊 "quoted"\n', seed=2**63 + 1, width=64, height=32, steps=4),
        Request(prompt=("a", "b"), seed=(1, 2), negative_prompt=("c", "d"), guidance=2.5),
        Request(prompt="x", schedule=(1.0, 0.3), noise="mlx"),
        Request(prompt="x", schedule="legacy", cfg_normalization=True, guidance=1),
        Request(prompt_embeds=np.ones((3, 4)), seed=1),
        Request(prompt_embeds=[np.ones((3, 4))], seed=1),
        Request(
            prompt_embeds=(np.random.rand(3, 4), np.random.rand(2, 4)),
            latents=np.random.rand(2, 16, 2, 2),
        ),
    ],
)
def test_json_gives_the_same_request_back(request_: Request) -> None:
    again = Request.from_json(request_.to_json())
    assert again == request_
    assert hash(again) == hash(request_)
    assert again.to_json() == request_.to_json()
    assert again.batched == request_.batched


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "[" * 100_000,
        '{"prompt": NaN}',
        '{"width": 3}',
        '{"prompt": "x", "latents": ' + "[" * 5000 + "]" * 5000 + "}",
        '{"prompt": ' + "[" * 900 + "]" * 900 + "}",
    ],
)
def test_broken_json(text: str) -> None:
    with pytest.raises(RequestError):
        Request.from_json(text)


@pytest.mark.parametrize(
    "array",
    [{}, {"shape": [2], "float32": "AAAA"}, {"shape": "x", "float32": ""}, {"float32": "%"}, "x"],
)
def test_broken_arrays_in_json(array: object) -> None:
    with pytest.raises(RequestError):
        Request.from_json(json.dumps({"prompt": "x", "latents": array}))
