"""`loras`: what LoRA files are and change, without loading a model."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import DownloadError, LoraError, LoraInfo, ZImageError, list_loras, read_lora
from . import options as o
from .progress import Reporter, reporter

CONFIG = "adapter_config.json"
MOST = 6
"""Parts without effect that are listed by name."""
NOTE = "1 is as trained; files name no range"

Names = Annotated[
    list[str],
    typer.Argument(
        help="LoRAs, named as for generate's --lora, or folders of LoRAs.", metavar="FILE|FOLDER"
    ),
]
Model = Annotated[
    str | None,
    o.option(
        "Model",
        "--model",
        help="The model that they must fit. Default: the published Z-Image, which need not be "
        "on this machine.",
        metavar="MODEL",
    ),
]


def loras(
    names: Names,
    model: Model = None,
    lora_folder: o.LoraFolder = None,
    download: o.Download = False,
    json: o.Json = False,
) -> None:
    """Show where LoRA files come from and what they change.

    Each file is judged as when it is loaded. A folder's LoRAs are listed, one a line.
    """
    report = reporter(json)
    failed = []
    for name in names:
        try:
            if _is_library(name):
                _show_folder(Path(name), model, report)
            else:
                info = read_lora(name, model=model, lora_folder=lora_folder, download=download)
                report.result("\n".join(_lines(info)), "lora", **info.to_dict())
        except (LoraError, DownloadError) as error:
            if len(names) == 1:
                raise
            failed.append(name)
            _show_unreadable(name, name, error, report)
    if failed:
        raise LoraError(f"{len(failed)} of {len(names)} cannot be used, such as {failed[0]}")


def _is_library(name: str) -> bool:
    """Return whether a name is that of a folder of LoRAs, not of one LoRA."""
    return os.path.isdir(name) and not os.path.isfile(os.path.join(name, CONFIG))


def _show_folder(path: Path, model: str | None, report: Reporter) -> None:
    listed = list_loras(path, model=model)
    if not listed:
        raise LoraError(f"{path} must hold LoRA files, and holds none")
    names = [_printable(str(file.relative_to(path))) for file, _ in listed]
    for name, (file, read) in zip(names, listed, strict=True):
        label = f"{name:{max(map(len, names))}}"
        if isinstance(read, LoraError):
            _show_unreadable(str(file), label, read, report)
        else:
            report.result(f"{label}  {_line(read)}", "lora", **read.to_dict())


def _show_unreadable(path: str, label: str, error: ZImageError, report: Reporter) -> None:
    reason = str(error).removeprefix(f"{path}: ").removeprefix(f"{path} ").removeprefix(f"{path}/")
    report.result(f"{label}  unusable: {reason}", "unusable", path=path, error=str(error))


def _line(info: LoraInfo) -> str:
    """Return the facts on one line."""
    modules = sum(hit for hit, _ in info.hit.values())
    plural = "module" if modules == 1 else "modules"
    words = ", ".join(info.metadata.trigger_words)
    words = f", {_printable(words)}" if words else ""
    return f"{info.family}, {_changes(info)}, {modules} {plural}, {_size(info)}{words}"


def _lines(info: LoraInfo) -> list[str]:
    """Return the facts as a table."""
    about = info.metadata
    skipped = [*info.skipped[:MOST]]
    if len(info.skipped) > MOST:
        skipped.append(f"and {len(info.skipped) - MOST} more")
    rows: list[tuple[str, Any]] = [
        ("file", info.path),
        ("family", info.family if about.program is None else f"{info.family} ({about.program})"),
        ("changes", _changes(info)),
        ("targets", ", ".join(f"{kind} {n} of {all}" for kind, (n, all) in info.hit.items())),
        ("strength", NOTE),
        ("trigger words", ", ".join(about.trigger_words) or "not named"),
        ("base model", about.base_model or "not named"),
        ("title", about.title),
        ("author", about.author),
        ("description", about.description),
        ("size", _size(info)),
        ("sha256", info.sha256),
        *(("without effect", text) for text in skipped),
    ]
    named = [(name, str(value)) for name, value in rows if value]
    width = max(len(name) for name, _ in named)
    return [f"{name:{width}}  {_printable(text)}" for name, text in named]


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)


def _changes(info: LoraInfo) -> str:
    parts = [" and ".join(info.kinds)]
    parts += [f"rank {_range(info.ranks)}"] if info.ranks else []
    parts += [f"alpha {_range(info.alphas)}"] if info.alphas else []
    parts += [f"scale {_range(info.scales)}"] if info.scales not in ((), (1.0,)) else []
    return ", ".join(parts)


def _range(numbers: tuple[float, ...]) -> str:
    low, high = f"{numbers[0]:g}", f"{numbers[-1]:g}"
    return low if low == high else f"{low} to {high}"


def _size(info: LoraInfo) -> str:
    return f"{info.size / 1e6:.1f} MB {'/'.join(info.dtypes)}"
