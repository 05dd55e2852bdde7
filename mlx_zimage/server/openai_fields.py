"""Fields of OpenAI's images API, read into an order."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from .. import Request
from .encoding import Encoding
from .failures import Refusal
from .orders import Order, read_loras
from .service import Facts

MOST = 10
"""Pictures of one request, as OpenAI has it."""
MOST_PARTIAL = 3
OTHERS = re.compile(r"(gpt-image|chatgpt-image|dall-e)[\w.-]*", re.IGNORECASE)
"""Names of OpenAI's models, which many clients send whatever the server has."""
OWN = ("prompt", "width", "height", "image", "mask")
EXTENSIONS = tuple(field.name for field in fields(Request) if field.name not in OWN)
"""Fields of our request that clients may add under their own names."""
SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")


@dataclass(frozen=True)
class Asked:
    """A request of OpenAI's form, read."""

    order: Order
    encoding: Encoding
    as_url: bool
    stream: bool
    partial_images: int


def read_fields(body: Mapping[str, Any], facts: Facts, *, any_model: bool) -> Asked:
    """Read a request. Unknown fields are ignored, as clients send many; null means left out."""
    given = {name: value for name, value in body.items() if value is not None}
    check_model(given.get("model"), facts, any_model=any_model)
    prompt = given.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise Refusal(400, "prompt must be a text", "invalid_value", "prompt")
    if given.get("background") == "transparent":
        text = "background must be opaque or auto: this model draws no transparency"
        raise Refusal(400, text, "invalid_value", "background")
    request = {name: given[name] for name in EXTENSIONS if name in given}
    request |= {"prompt": prompt, **_size(given.get("size"), facts)}
    count = _integer(given, "n", 1, 1, MOST)
    quality = _integer(given, "output_compression", 100, 0, 100)
    encoding = Encoding(_text(given, "output_format", "png"), quality)
    response_format = _text(given, "response_format", "b64_json")
    if response_format not in ("b64_json", "url"):
        text = "response_format must be b64_json or url"
        raise Refusal(400, text, "invalid_value", "response_format")
    return Asked(
        Order(request, count, read_loras(given.get("loras"))),
        encoding,
        response_format == "url",
        _flag(given, "stream"),
        _integer(given, "partial_images", 0, 0, MOST_PARTIAL),
    )


def read_form_text(name: str, text: str) -> Any:
    """Return what a field of a form stands for: its numbers and booleans arrive as text."""
    if name in ("prompt", "model", "negative_prompt", "size", "user"):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, int | float | bool | list | dict) else text


def check_model(name: Any, facts: Facts, *, any_model: bool) -> None:
    """Refuse a model that is not the open one, by any of the names that clients know it by."""
    if name in (None, "") or any_model:
        return
    if isinstance(name, str) and (name in facts.aliases or OTHERS.fullmatch(name)):
        return
    text = f"there is no such model here; the model is {facts.name}"
    raise Refusal(404, text, "model_not_found", "model")


def _size(value: Any, facts: Facts) -> dict[str, int]:
    if value in (None, "", "auto"):
        return {}
    match = SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise Refusal(400, "size must be WIDTHxHEIGHT or auto", "invalid_value", "size")
    width, height, multiple = int(match[1]), int(match[2]), facts.capabilities.side_multiple
    near = [max(multiple, round(side / multiple) * multiple) for side in (width, height)]
    if near != [width, height]:
        text = f"both sides of size must be multiples of {multiple}; near is {near[0]}x{near[1]}"
        raise Refusal(400, text, "invalid_value", "size")
    return {"width": width, "height": height}


def _integer(given: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = given.get(name, default)
    if type(value) is not int or not least <= value <= most:
        raise Refusal(400, f"{name} must be {least} to {most}", "invalid_value", name)
    return value


def _text(given: Mapping[str, Any], name: str, default: str) -> str:
    value = given.get(name, default)
    if not isinstance(value, str):
        raise Refusal(400, f"{name} must be a text", "invalid_value", name)
    return value


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise Refusal(400, f"{name} must be true or false", "invalid_value", name)
    return value
