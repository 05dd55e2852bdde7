"""The LoRAs that clients may name: those in one folder, by their names there."""

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .. import LoraError, LoraInfo, ZImage, list_loras
from .failures import Refusal
from .settings import Settings

ENDING = ".safetensors"
PEFT = "adapter_config.json"
"""The file that makes a folder a LoRA."""


class LoraShelf:
    """A folder's LoRAs, read again when its files change."""

    def __init__(self, settings: Settings):
        self._settings, self._lock = settings, threading.Lock()
        self._state: object = None
        self._listed: list[dict[str, Any]] = []

    def list(self, model: ZImage) -> list[dict[str, Any]]:
        """Return the name of each LoRA, with the facts about it or why it does not fit."""
        folder = self._settings.lora_folder
        if folder is None:
            return []
        with self._lock:
            state = _state(folder)
            if state != self._state:
                source = self._settings.source
                self._listed = [
                    {"name": _name(path, folder), **_about(info, path)}
                    for path, info in list_loras(folder, model=source)
                    if _is_inside(path, folder)
                ]
                self._state = state
            return self._listed

    def check(self, names: Iterable[str]) -> None:
        """Refuse a name that is not in the folder: a path, or a name on the Hub."""
        for name in names:
            folder = self._settings.lora_folder
            if folder is None:
                raise Refusal(400, "the server has no LoRA folder", "invalid_lora", "loras")
            if not self.has(name):
                raise Refusal(404, "there is no such LoRA here", "lora_not_found", "loras")

    def has(self, name: str) -> bool:
        """Return whether a name stands for a LoRA in the folder."""
        folder = self._settings.lora_folder
        if (
            folder is None
            or not name
            or "\0" in name
            or "\\" in name
            or {"", ".", ".."} & {*name.split("/")}
        ):
            return False
        path, file = folder / name, folder / f"{name.removesuffix(ENDING)}{ENDING}"
        try:
            is_peft = path.is_dir() and (path / PEFT).is_file()
            return (file.is_file() or is_peft) and _is_inside(path if is_peft else file, folder)
        except (OSError, ValueError):  # a name that is too long
            return False


def _state(folder: Path) -> tuple[Any, ...]:
    """Return what changes with the folder's files."""
    found = []
    for path in sorted(folder.rglob("*")):
        try:
            about = path.stat()
        except OSError:
            continue
        found.append((str(path), about.st_mtime_ns, about.st_size))
    return tuple(found)


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix().removesuffix(ENDING)


def _about(info: LoraInfo | LoraError, path: Path) -> dict[str, Any]:
    if isinstance(info, LoraError):  # without the folder, which is nobody's business
        return {"error": str(info).removeprefix(f"{path}: ").replace(str(path), path.name)}
    about = {"kinds": list(info.kinds), "ranks": list(info.ranks), "size": info.size}
    return {**about, "trigger_words": list(info.metadata.trigger_words)}
