"""Options that `serve` and `mcp` share."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from . import options as o
from .parsing import UsageError
from .values import bits

TOKEN = "MLX_ZIMAGE_TOKEN"
"""The environment variable with the token: the command line is seen by every user of a machine."""
OutputFolder = Annotated[
    Path | None,
    o.option(
        "Output",
        "--output-folder",
        help="Where pictures are kept. Default: Z-Image in the folder Pictures, or at home.",
        metavar="FOLDER",
    ),
]
IdleUnload = Annotated[
    float,
    o.option(
        "Work",
        "--idle-unload",
        help="Seconds without work after which the weights are freed; 0 keeps them.",
        metavar="SECONDS",
    ),
]


def shared_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings about the model and its pictures."""
    names = ("dtype", "memory", "revision", "preview_decoder")
    model = {name: options[name] for name in names if options[name] is not None}
    model |= {"quantize": bits(options["q"]), "keep_copy": not options["no_cache"]}
    source = "turbo" if options["model"] is None else options["model"]
    if not source:
        raise UsageError("the model must be a name, a Hub repo id, a folder or a file, not ''")
    return {
        "source": source,
        "model": model,
        "lora_folder": options["lora_folder"],
        "output_folder": options["output_folder"] or _pictures(),
        "idle_unload": options["idle_unload"],
    }


def token_from(text: str | None) -> str | None:
    """Return the token that an option or the environment holds."""
    return text or os.environ.get(TOKEN) or None


def _pictures() -> Path:
    """Return the folder that keeps pictures, where none is named."""
    pictures = Path.home() / "Pictures"
    return (pictures if pictures.is_dir() else Path.home()) / "Z-Image"
