"""Replaying a picture: the request that its file holds, and what differs from the model at hand."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .checks import excerpt, path_text
from .errors import LoraError, RequestError
from .images.files import picture_text, read_foreign_metadata, read_metadata
from .lora.library import Library
from .lora.source import Lora
from .request import Request

if TYPE_CHECKING:
    from .zimage import ZImage

SETTINGS = ("identity", "dtype", "quantize", "mlx_zimage", "mlx")
"""The settings that, beside the request, must be the same for the same bytes."""
RIVALS = {
    "prompt": ("prompt_embeds",),
    "prompt_embeds": ("prompt",),
    "seed": ("latents",),
    "noise": ("latents",),
    "latents": ("seed", "noise"),
}
"""Stored fields that give way to another that is changed, as a request takes one of them."""
GUIDED = ("negative_prompt", "cfg_normalization", "cfg_truncation")
"""Stored fields that give way where guidance is turned off."""


@dataclass(frozen=True)
class Replay:
    """A picture's request, read from its file."""

    request: Request
    index: int = 0  # the picture's position in that request
    metadata: Mapping[str, Any] = field(default_factory=dict)  # empty for another program's picture
    unread: tuple[str, ...] = ()  # settings of another program that have no equivalent here

    @property
    def loras(self) -> tuple[Lora, ...]:
        """The LoRAs that the picture was drawn with, as they were named."""
        return tuple(lora for lora, _ in _loras(self.metadata))

    def find_loras(self, folder: str | Path | None = None) -> list[Lora]:
        """Return those of its LoRAs that are on this machine, where they were or in a folder."""
        library, here = Library.open(folder), []
        for lora in self.loras:
            sources = [name for name in (lora.source, lora.name) if library.has(name)]
            here += [Lora(source, lora.scale) for source in sources[:1]]
        return here

    def differences(self, model: "ZImage") -> list[str]:
        """Return a line for each setting of the model that differs from the picture's."""
        now = model.describe()
        lines = [
            f"{name} is {now.get(name)}, and was {self.metadata[name]}"
            for name in SETTINGS
            if name in self.metadata and self.metadata[name] != now.get(name)
        ]
        return lines if not self.metadata else lines + self._lora_differences(model)

    def _lora_differences(self, model: "ZImage") -> list[str]:
        """Return a line for each LoRA that is missing, another file, of another scale, or new."""
        lines, others = [], {Lora(lora.source).name: lora for lora in model.loras}
        hashes = {lora.sha256: lora for lora in model.loras}
        for lora, sha256 in _loras(self.metadata):
            applied = hashes.get(sha256) or others.get(lora.name)
            if applied is None:
                lines.append(f"the LoRA {path_text(lora.source)} ({lora.scale:g}) is missing")
                continue
            others.pop(Lora(applied.source).name, None)
            if applied.sha256 != sha256:
                lines.append(f"the LoRA {path_text(applied.source)} is another file by its SHA-256")
            if applied.scale != lora.scale:
                name = path_text(applied.source)
                lines.append(f"the LoRA {name} acts with {applied.scale:g}, and did {lora.scale:g}")
        return [*lines, *(f"the LoRA {path_text(lora.source)} acts" for lora in others.values())]

    def agrees(self, request: Request) -> bool:
        """Return whether the picture answers a request: all of its fields are as stored."""
        stored = self.request.to_dict()
        return all(stored.get(name) == value for name, value in request.to_dict().items())


def _loras(metadata: Mapping[str, Any]) -> Iterator[tuple[Lora, str]]:
    """Yield the LoRAs that a picture's metadata list, each with its SHA-256."""
    listed = metadata.get("loras")
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, Mapping) and isinstance(entry.get("source"), str):
            with suppress(LoraError):  # a picture may come from anyone
                yield Lora(entry["source"], entry.get("scale", 1.0)), str(entry.get("sha256"))


def replay(path: str | Path | BinaryIO, **changes: Any) -> Replay:
    """Read the request of a picture, a file or an open one; `changes` replace its fields.

    Stored fields that cannot act beside the changes are left out: initial latents beside a new
    seed, or a negative prompt where guidance is turned off.

    Pictures of AUTOMATIC1111's web UI, and of programs that write its `parameters` text, are read
    as far as that goes.
    """
    try:
        metadata = read_metadata(path)
    except RequestError as error:
        foreign = read_foreign_metadata(path)
        if foreign is None:
            raise error
        fields, unread = foreign
        return Replay(_request(path, {**fields, **changes}), unread=tuple(unread))
    stored = metadata.get("request")
    if not isinstance(stored, Mapping):
        raise RequestError(f"{picture_text(path)} holds no request in its metadata")
    index = metadata.get("index", 0)
    request = _request(path, stored)
    if type(index) is not int or not 0 <= index < request.count:
        raise RequestError(f"{picture_text(path)} has the index {excerpt(index)}")
    return Replay(_changed(request, changes) if changes else request, index, metadata)


def _changed(request: Request, changes: Mapping[str, Any]) -> Request:
    given_way = {rival for name in changes for rival in RIVALS.get(name, ())}
    if "guidance" in changes and not changes["guidance"] and request.nag is None:
        given_way |= {*GUIDED}
    if "schedule" in changes and not isinstance(changes["schedule"], str):
        given_way.add("steps")  # as many as there are noise levels
    return request.replace(**{**dict.fromkeys(given_way), **changes})


def _request(path: str | Path | BinaryIO, fields: Mapping[str, Any]) -> Request:
    try:
        return Request.from_dict(fields)
    except RequestError as error:
        raise RequestError(f"{picture_text(path)}: {error}") from error
