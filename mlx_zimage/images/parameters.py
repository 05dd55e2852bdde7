"""The `parameters` text that AUTOMATIC1111's web UI writes into pictures, and other programs read.

It holds the prompt, a line with the negative prompt, and a line of settings. It is written beside
our own metadata for people and other programs, and read from pictures that hold nothing else.
"""

import re
from collections.abc import Mapping
from typing import Any

NEGATIVE = "Negative prompt: "
SAMPLERS = {
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "res_multistep": "RES multistep",
    "dpmpp_2m": "DPM++ 2M",
    "twinflow": "TwinFlow",
}
"""Our samplers by the names that are shown in those programs."""
LONGEST = 100_000
"""Characters of a text that is read; a longer one was not written for people."""
# A picture may come from anyone: neither pattern begins a long search anew at each character.
TAG = re.compile(r"(?<!\s)\s*<lora:([^:<>]+):([^<>]*)>")
SETTING = re.compile(r'\s{0,9}(\w[\w /.+-]{0,63}):\s*("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)')


def write_parameters(metadata: Mapping[str, Any]) -> str:
    """Return the text for a picture's metadata."""
    request, index = metadata.get("request") or {}, metadata.get("index") or 0
    prompt = str(_of_picture(request.get("prompt"), index) or "")
    lines = [" ".join([prompt, *_tags(metadata.get("loras"))])]
    if negative := _of_picture(request.get("negative_prompt"), index):
        lines.append(f"{NEGATIVE}{negative}")
    sampler = str(request.get("sampler") or "euler")
    schedule = request.get("schedule")
    settings = {
        "Steps": request.get("steps"),
        "Sampler": SAMPLERS.get(sampler, sampler),
        "Schedule type": schedule if isinstance(schedule, str) else None,
        "CFG scale": f"{(request.get('guidance') or 0) + 1:g}",
        "Seed": _of_picture(request.get("seed"), index),
        "Size": f"{request.get('width')}x{request.get('height')}",
        "Model": metadata.get("model"),
        "Denoising strength": request.get("strength"),
        "Version": f"mlx-zimage {metadata.get('mlx_zimage')}",
    }
    shown = {name: value for name, value in settings.items() if value is not None}
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in shown.items()))
    return "\n".join(lines)


def read_parameters(text: str) -> tuple[dict[str, Any], list[str]]:
    """Return the fields of a request that such a text holds, and the settings it leaves out."""
    *prompt_lines, last = text.strip().split("\n")
    settings = {name.strip(): _unquoted(value) for name, value in SETTING.findall(last)}
    if "Steps" not in settings:
        prompt_lines, settings = [*prompt_lines, last], {}
    prompt, _, negative = "\n".join(prompt_lines).partition(NEGATIVE)
    unread = [f"LoRA {name} at {scale}" for name, scale in TAG.findall(prompt)]
    fields: dict[str, Any] = {"prompt": TAG.sub("", prompt).strip()}
    if negative.strip():
        fields["negative_prompt"] = negative.strip()
    names = {shown: name for name, shown in SAMPLERS.items()}
    for name, value in settings.items():
        size = re.fullmatch(r"([0-9]{1,9})x([0-9]{1,9})", value)
        if name == "Steps" and _is_whole(value):
            fields["steps"] = int(value)
        elif name == "Seed" and _is_whole(value):
            fields["seed"] = int(value)
        elif name == "Size" and size:
            fields |= {"width": int(size[1]), "height": int(size[2])}
        elif name == "CFG scale" and _is_number(value):
            fields["guidance"] = max(float(value) - 1, 0.0)
        elif name == "Sampler" and value in names:
            fields["sampler"] = names[value]
        else:
            unread.append(f"{name}: {value}")
    return fields, unread


def _tags(loras: Any) -> list[str]:
    """Return a tag for each LoRA, as those programs have in the prompt."""
    tags = []
    for lora in loras or ():
        name = re.sub(r".*[/\\]", "", str(lora["source"])).removesuffix(".safetensors")
        tags.append(f"<lora:{name}:{lora['scale']}>")
    return tags


def _of_picture(value: Any, index: int) -> Any:
    """Return the value of one picture, from one for all or a list with one for each."""
    if isinstance(value, list | tuple):
        return value[index] if index < len(value) else None
    return value


def _quoted(value: object) -> str:
    text = str(value)
    if not re.search(r'[,:\n"]', text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _unquoted(text: str) -> str:
    text = text.strip()
    if len(text) < 2 or not text.startswith('"') or not text.endswith('"'):
        return text
    return text[1:-1].replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\")


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,20})?", text) is not None


def _is_whole(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,20}", text) is not None
