"""A key of a LoRA file, split into the module it names and the role of its tensor.

Every program that trains LoRAs ends its keys in one of a few tails; TAILS gives each tail its role.
The text before the tail names a module, with a prefix and in names that `targets` looks up.
"""

import re
from dataclasses import dataclass

LONGEST = 500
"""Characters of a key; a longer one names nothing."""
_NAME = r"(?:\.(?!weight$|bias$)[^.]+)?"  # an adapter's name, as PEFT writes it
TAILS = {
    "down": rf"lora_A{_NAME}\.weight|lora_down\.weight|lora\.down\.weight|lora_A",
    "up": rf"lora_B{_NAME}\.weight|lora_up\.weight|lora\.up\.weight|lora_B",
    "up_bias": rf"lora_B{_NAME}\.bias",
    "mid": r"lora_mid\.weight",
    "magnitude": rf"lora_magnitude_vector{_NAME}(?:\.weight)?|magnitude",
    "dora_scale": "dora_scale",
    "alpha": "alpha",
    "oft_R": rf"oft_R{_NAME}\.weight",
    "scaled_oft": r"oft_R\.scaled_oft",
    "on_input": "on_input",
    "base_layer": r"base_layer\.(?:weight|bias)",
    **{
        name: name
        for group in (
            "lokr_w1 lokr_w1_a lokr_w1_b lokr_w2 lokr_w2_a lokr_w2_b lokr_t2",
            "hada_w1_a hada_w1_b hada_w2_a hada_w2_b hada_t1 hada_t2",
            "oft_blocks rescale diff diff_b set_weight reshape_weight w_norm b_norm",
        )
        for name in group.split()
    },
    **{name: rf"{name}\.weight" for name in ("a1", "a2", "b1", "b2")},
}
"""The role of a tensor, and the pattern of the tails that show it."""
NAMED = ("lora_A", "lora_B", "lora_magnitude_vector", "oft_R")
"""Tails that may hold an adapter's name."""
_KEY = re.compile(rf"(.+?)\.(?:{'|'.join(f'(?P<{role}>{tail})' for role, tail in TAILS.items())})")


@dataclass(frozen=True)
class Key:
    """A key: the module as the file names it, prefix included, and the role of its tensor."""

    text: str
    module: str
    role: str
    adapter: str = ""  # its name, where the key holds one


def split(text: str) -> Key | None:
    """Return a key's parts, or None where it ends in no known tail."""
    match = _KEY.fullmatch(text) if len(text) <= LONGEST else None
    if match is None or match.lastgroup is None:
        return None
    module, role = match[1], match.lastgroup
    words = text[len(module) + 1 :].split(".")
    inner = [word for word in words[1:] if word not in ("weight", "bias", "scaled_oft")]
    return Key(text, module, role, inner[0] if words[0] in NAMED and inner else "")
