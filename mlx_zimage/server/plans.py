"""Plans: orders laid out as requests that the model can carry out."""

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import Lora, LoraError, Request, Sweep, SweepAxis, ZImage
from .failures import Refusal
from .orders import LORA_AXIS, MOST_PICTURES, Order

SEEDS = 2**64
TEXTS = ("prompt", "negative_prompt")
"""Fields whose values in a sweep may be templates, such as "a {red|blue} star"."""
TITLE = 200  # characters


@dataclass(frozen=True)
class Group:
    """Requests that are drawn with the same LoRAs, as one job of the library."""

    loras: tuple[Lora, ...]
    requests: tuple[Request, ...]


@dataclass(frozen=True)
class Sheet:
    """The contact sheet that a sweep ends with."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    width: int  # cells of a row
    title: str
    places: tuple[int, ...]  # the cell of each picture, in the order of drawing


@dataclass(frozen=True)
class Plan:
    """An order with every field filled in."""

    groups: tuple[Group, ...]
    sheet: Sheet | None = None

    @property
    def requests(self) -> list[Request]:
        """The requests of all groups, in the order of drawing."""
        return [request for group in self.groups for request in group.requests]

    @property
    def count(self) -> int:
        """The number of pictures, without a sheet."""
        return sum(request.count for request in self.requests)

    @property
    def loras(self) -> tuple[Lora, ...]:
        """The LoRAs of the first pictures."""
        return self.groups[0].loras


def make_plan(order: Order, model: ZImage) -> Plan:
    """Lay out an order. What the model refuses of it is raised as the library says it."""
    if order.sweep:
        return _sweep(order, model)
    request = model.check(Request.from_dict(order.fields))
    _check_number(request.count * order.count)
    if order.count > 1 and request.seed is None:
        raise Refusal(
            400, "count has no effect with latents; leave it out", "invalid_value", "count"
        )
    requests = [_moved(request, number) for number in range(order.count)]
    return Plan((Group(order.loras, tuple(requests)),))


def _moved(request: Request, number: int) -> Request:
    """Return a request with seeds that are `number` higher."""
    if not number:
        return request
    seed = request.seed
    if isinstance(seed, tuple):
        return request.replace(seed=[(each + number) % SEEDS for each in seed])
    return request.replace(seed=((seed or 0) + number) % SEEDS)


def _check_number(number: int) -> None:
    if number > MOST_PICTURES:
        raise Refusal(
            400,
            f"a job may have at most {MOST_PICTURES} pictures, not {number:,}; send several",
            "too_many_pictures",
            "count",
        )


def _sweep(order: Order, model: ZImage) -> Plan:
    if order.count > 1:
        raise Refusal(400, "count and sweep exclude each other", "invalid_value", "count")
    names = [name for name, _ in order.sweep]
    kinds = ["loras" if name.startswith(LORA_AXIS) else name for name in names]
    if len({*kinds}) < len(kinds):
        raise Refusal(400, "sweep may name a field, and the LoRAs, once", "invalid_value", "sweep")
    axes = [_axis(name, values, order.loras) for name, values in order.sweep]
    _check_number(math.prod(len(axis.values) for axis in axes))
    fields = dict(order.fields)
    if "seed" not in names and fields.get("seed") is None and fields.get("latents") is None:
        fields["seed"] = secrets.randbelow(2**32)  # one for all, so that only the axes differ
    sweep = Sweep.plan({**fields, "loras": order.loras}, axes)
    groups, places = [], []
    for settings, cells in sweep.groups.items():
        requests = tuple(model.check(cell.request) for cell in cells)
        groups.append(Group(dict(settings)["loras"], requests))
        places += [cell.number for cell in cells]
    title = " / ".join(dict.fromkeys(p for g in groups for r in g.requests for p in r.prompts))
    labels = tuple(sweep.row_labels), tuple(sweep.column_labels)
    return Plan(tuple(groups), Sheet(*labels, sweep.width, title[:TITLE], tuple(places)))


def _axis(name: str, values: Sequence[Any], loras: Sequence[Lora]) -> SweepAxis:
    if name.startswith(LORA_AXIS):
        return _lora_axis(name.removeprefix(LORA_AXIS), values, loras)
    if name in TEXTS and all(isinstance(value, str) for value in values):
        return SweepAxis.of_texts(name, values)
    return SweepAxis.of(name, values)


def _lora_axis(name: str, scales: Sequence[Any], loras: Sequence[Lora]) -> SweepAxis:
    """Return the axis of a LoRA's scales, beside the other LoRAs of the order."""
    others = [lora for lora in loras if str(lora.source) != name]
    try:
        chosen = [Lora(name, scale) for scale in scales]
    except LoraError as error:
        raise Refusal(400, str(error), "invalid_lora", "sweep") from error
    values = tuple({"loras": (*others, lora)} for lora in chosen)
    return SweepAxis("loras", values, tuple(f"{lora.name} {lora.scale:g}" for lora in chosen))
