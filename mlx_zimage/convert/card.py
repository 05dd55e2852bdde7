"""The model card of a converted folder: README.md by the Hub's conventions."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.family import MANIFEST
from ..files import digest, read_json, write_json
from ..hub.locate import DEMO, NAMES
from ..weights.tensor import Packings

CARD = "README.md"
CLOSING = f"`{MANIFEST}` holds the recipe and the SHA-256 of every file."
APACHE = "apache-2.0"
"""The licence of the published models and of the demo."""
TERMS = ("license", "license_name", "license_link")
NO_TEXTS = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")
"""Words that YAML takes for something else."""
LIBRARIES = {"mflux": "mflux", "diffusers": "diffusers"}
"""The library that a folder is for, where it is not MLX."""
USES = {
    "mflux": (
        "bash",
        'mflux-generate-z-image{turbo} --model {name} --prompt "a red fox in the snow"',
    ),
    "diffusers": (
        "python",
        "from diffusers import ZImagePipeline\n\n"
        'pipeline = ZImagePipeline.from_pretrained("{name}")\n'
        "picture = pipeline(\n"
        '    "a red fox in the snow", num_inference_steps={steps}, guidance_scale={guidance}\n'
        ').images[0]\npicture.save("fox.png")',
    ),
}
USE = ("bash", 'pip install mlx-zimage\nmlx-zimage generate "a red fox in the snow" --model {name}')


def card(
    checkpoint: Checkpoint,
    manifest: Mapping[str, Any],
    packings: Mapping[str, Packings],
    sizes: Mapping[str, int],
    name: str,
) -> str:
    """Return the card of a conversion whose folder or repo is called `name`."""
    base = base_model(checkpoint.path)
    target = manifest.get("target")
    about: dict[str, Any] = _terms(checkpoint, base)
    about |= {"library_name": LIBRARIES.get(target or "", "mlx"), "pipeline_tag": "text-to-image"}
    is_quantized = any(packings.values())
    if base is not None:
        about["base_model"] = base
        about |= {"base_model_relation": "quantized"} if is_quantized else {}
    forms = {part: form(packings[part], manifest["dtype"]) for part in packings}
    bits = [entry.split(",")[0].replace(" bits", "-bit") for entry in forms.values()]
    programs = [target] if target in LIBRARIES else ["mlx", *([target] if target else [])]
    tags = [*programs, "z-image", "mlx-zimage"]
    about["tags"] = [*tags, *dict.fromkeys(entry for entry in bits if entry.endswith("-bit"))]
    return "\n".join(
        [
            *_front_matter(about),
            *_text(manifest, base, forms, sizes, name),
            *_use(target, manifest["model"], name),
            "",
        ]
    )


def base_model(source: Path) -> str | None:
    """Return the repo that a source was fetched from, or was made from by its own card."""
    for place in (source, *source.parents):
        if place.parent.name == "snapshots":
            return place.parents[1].name.removeprefix("models--").replace("--", "/", 1)
    named = _metadata(source).get("base_model")
    return named if isinstance(named, str) else None


def form(packings: Packings, dtype: str) -> str:
    """Return in words how a component's layers are stored."""
    if not packings:
        return dtype
    kinds = sorted(
        {(packing.bits, packing.mode, packing.group_size) for packing in packings.values()}
    )
    if len(kinds) > 1:
        return f"{kinds[0][0]} to {kinds[-1][0]} bits, the others {dtype}"
    ((bits, mode, group),) = kinds
    how = f"{bits} bits" if mode == "affine" else f"{bits} bits, {mode}"
    return f"{how}, groups of {group}, the other layers {dtype}"


def _text(
    manifest: Mapping[str, Any],
    base: str | None,
    forms: Mapping[str, str],
    sizes: Mapping[str, int],
    name: str,
) -> list[str]:
    version, revision = manifest["versions"]["mlx-zimage"], manifest.get("revision")
    at = f" at revision `{revision}`" if revision else ""
    source = f"[{base}](https://huggingface.co/{base})" if base else f"`{manifest['source']}`"
    lines = [
        f"# {name.rpartition('/')[2]}",
        "",
        f"Z-Image ({manifest['model']}), converted with mlx-zimage {version} from {source}{at}.",
        "",
        "| component | weights | size |",
        "|---|---|---|",
        *(f"| {part} | {forms[part]} | {_size(size)} |" for part, size in sizes.items()),
        "",
    ]
    if calibration := manifest.get("calibration"):
        lines += [
            f"The weights were rounded by what the model computes with over "
            f"{calibration['prompts']} prompts.",
            "",
        ]
    if loras := [_merged(lora) for lora in manifest.get("loras") or ()]:
        lines += [f"Merged into the weights: {', '.join(loras)}.", ""]
    return [*lines, CLOSING, ""]


def record_errors(folder: Path, captions: float, velocity: float) -> None:
    """Write a conversion's measured errors into its card and its manifest."""
    manifest, file = read_json(folder / MANIFEST), folder / CARD
    text = (
        f"Measured against the source, relative L2: {captions:.2%} of the text encoder's output, "
        f"{velocity:.2%} of the transformer's with those captions.\n\n{CLOSING}"
    )
    file.write_text(file.read_text("utf-8").replace(CLOSING, text), "utf-8")
    manifest["report"] = {"captions": captions, "velocity": velocity}
    manifest["files"][CARD] = {"size": file.stat().st_size, "sha256": digest(file)}
    write_json(folder / MANIFEST, manifest)


def _merged(lora: Mapping[str, Any]) -> str:
    scale = lora.get("scale")
    at = f" at {scale:g}" if isinstance(scale, int | float) else ""
    return f"`{lora.get('source')}`{at}"


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _use(target: str | None, model: str, name: str) -> list[str]:
    language, code = USES.get(target or "", USE)
    turbo, steps, guidance = ("-turbo", 8, 0.0) if model == "turbo" else ("", 50, 4.0)
    text = code.format(name=name, turbo=turbo, steps=steps, guidance=guidance)
    return ["## Use", "", f"```{language}", text, "```"]


def _terms(checkpoint: Checkpoint, base: str | None) -> dict[str, Any]:
    """Return the licence that the source's card names; the published models' is known."""
    metadata = _metadata(checkpoint.path)
    named = {key: metadata[key] for key in TERMS if isinstance(metadata.get(key), str)}
    if not named and (base in NAMES.values() or checkpoint.path == DEMO):
        return {"license": APACHE}
    return named


def _metadata(source: Path) -> dict[str, Any]:
    """Return the front matter of a source's card, or nothing."""
    from huggingface_hub.repocard import metadata_load

    file = source / CARD
    try:
        return (metadata_load(file) or {}) if file.is_file() else {}
    except Exception:  # YAML's errors, and the library's own for what is no mapping
        return {}


def _front_matter(about: Mapping[str, Any]) -> list[str]:
    lines = ["---"]
    for key, value in about.items():
        if isinstance(value, list):
            lines += [f"{key}:", *(f"- {_scalar(item)}" for item in value)]
        else:
            lines.append(f"{key}: {_scalar(value)}")
    return [*lines, "---", ""]


def _scalar(value: str) -> str:
    """Return a text as YAML: in JSON's quotes, unless it is a plain word."""
    is_plain = re.fullmatch(r"[A-Za-z][\w./-]*", value, re.ASCII) and value.lower() not in NO_TEXTS
    return value if is_plain else json.dumps(value)
