"""Orders: what a client asks for, before it is judged against the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import Lora, LoraError
from .failures import Refusal

MOST_PICTURES = 100
"""Pictures of one job: longer work is several jobs, so that others get their turn."""


@dataclass(frozen=True)
class Order:
    """A request's fields, how many pictures of it, with which LoRAs, and what varies."""

    fields: Mapping[str, Any]  # in the form of `Request.to_dict`
    count: int = 1  # pictures of each prompt, with the seeds s, s + 1, ...
    loras: tuple[Lora, ...] = ()  # named as in the LoRA folder
    sweep: tuple[tuple[str, tuple[Any, ...]], ...] = ()  # a field, or lora:NAME, and its values

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> "Order":
        """Read the JSON of the native API. Unknown fields are refused when it is planned."""
        fields = dict(body)
        count = fields.pop("count", None)
        loras = read_loras(fields.pop("loras", None))
        sweep = tuple(map(_axis, _listed("sweep", fields.pop("sweep", None))))
        return cls(fields, _count(1 if count is None else count), loras, sweep)

    @property
    def names(self) -> list[str]:
        """The names of all LoRAs that it needs."""
        axes = [name for name, _ in self.sweep if name.startswith(LORA_AXIS)]
        return [
            *(str(lora.source) for lora in self.loras),
            *(n.removeprefix(LORA_AXIS) for n in axes),
        ]


LORA_AXIS = "lora:"
"""The beginning of a sweep's field that stands for the scale of a LoRA."""


def read_loras(value: Any) -> tuple[Lora, ...]:
    """Read the JSON of LoRAs, by their names in the server's folder."""
    return tuple(map(_lora, _listed("loras", value)))


def _listed(name: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise Refusal(400, f"{name} must be a list", "invalid_value", name)
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= MOST_PICTURES:
        raise Refusal(400, f"count must be 1 to {MOST_PICTURES} pictures", "invalid_value", "count")
    return value


def _lora(value: Any) -> Lora:
    if not isinstance(value, dict) or not {*value} <= {"name", "scale"} or "name" not in value:
        raise Refusal(
            400, 'loras must be a list of {"name": TEXT, "scale": NUMBER}', "invalid_value", "loras"
        )
    try:
        return Lora(value["name"], value.get("scale", 1.0))
    except LoraError as error:
        raise Refusal(400, str(error), "invalid_lora", "loras") from error


def _axis(value: Any) -> tuple[str, tuple[Any, ...]]:
    if isinstance(value, dict) and {*value} == {"field", "values"}:
        name, values = value["field"], value["values"]
        if isinstance(name, str) and isinstance(values, list) and values:
            return name, tuple(values)
    raise Refusal(
        400, 'sweep must be a list of {"field": NAME, "values": [...]}', "invalid_value", "sweep"
    )
