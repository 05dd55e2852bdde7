"""The library's words in the command line's: options instead of fields and keywords."""

import re

OPTIONS = {
    "prompt": "--prompt",
    "negative_prompt": "--negative-prompt",
    "width": "--width",
    "height": "--height",
    "steps": "--steps",
    "seed": "--seed",
    "guidance": "--guidance",
    "cfg_normalization": "--cfg-normalization",
    "cfg_truncation": "--cfg-truncation",
    "schedule": "--schedule",
    "shift": "--shift",
    "sampler": "--sampler",
    "image": "--image",
    "fit": "--fit",
    "strength": "--strength",
    "mask": "--mask",
    "mask_softness": "--mask-softness",
    "keep_unmasked": "--keep-unmasked",
    "outpaint": "--outpaint",
    "focus": "--focus",
    "nag": "--nag",
    "variety": "--variety",
    "variation_of": "--variation-of",
    "variation_strength": "--variation-strength",
    "hires": "--hires",
    "hires_strength": "--hires-strength",
    "aspect": "--aspect",
    "preview_decoder": "--preview-decoder",
    "noise": "--noise",
    "latents": "--latents",
    "prompt_embeds": "--prompt-embeds",
    "quantize": "--q",
    "text_encoder": "--q-text-encoder",
    "group_size": "--group-size",
    "dtype": "--dtype",
    "memory": "--memory",
    "revision": "--revision",
    "download": "--download",
    "keep_copy": "--no-cache",
    "only": "--only",
    "base": "--base",
    "beside": "--with",
    "overwrite": "--overwrite",
    "force": "--force",
    "resume": "--resume",
    "calibrate": "--calibrate",
    "mixed": "--mixed",
    "rotate": "--rotate",
    "prompts": "--prompts",
    "batch": "--batch",
    "accumulate": "--accumulate",
    "resolution": "--resolution",
    "learning_rate": "--learning-rate",
    "warmup": "--warmup",
    "caption_dropout": "--caption-dropout",
    "levels": "--levels",
    "kind": "--kind",
    "rank": "--rank",
    "factor": "--factor",
    "targets": "--target",
    "save_every": "--save-every",
    "sample_every": "--sample-every",
    "sample_prompts": "--sample",
    "default_caption": "--caption",
    "host": "--host",
    "port": "--port",
    "queue": "--queue",
    "allow_host": "--allow-host",
    "allow_origin": "--allow-origin",
    "output_folder": "--output-folder",
    "idle_unload": "--idle-unload",
}
"""By the names that the library's messages use."""

_NAMES = "|".join(OPTIONS)
_LONG = "|".join(name for name in OPTIONS if "_" in name and name != "text_encoder")
_PATTERN = re.compile(
    rf"""
      ^(?P<subject>{_NAMES})(?=\ (?:must|has|have|needs|is\ for|cannot|may)\b)  # begins a message
    | \b(?P<keyword>{_NAMES})=(?P<value>'[^']*'|"[^"]*"|[\w.:-]+)        # memory='staged'
    | (?<!\w)(?:'[^']*'|"[^"]*")                                         # a value that is quoted
    | \b(?P<name>{_LONG})\b(?![./])                                      # negative_prompt
    """,
    re.VERBOSE,
)


def in_options(message: str) -> str:
    """Return a message of the library with the command line's options in place of its fields."""
    return _PATTERN.sub(_replaced, message)


def _replaced(match: "re.Match[str]") -> str:
    name = match["subject"] or match["keyword"] or match["name"]
    if name is None:
        return match[0]
    value = (match["value"] or "").strip("'\"")
    option = OPTIONS[name]
    return option if value in ("", "True", "False") else f"{option} {value}"
