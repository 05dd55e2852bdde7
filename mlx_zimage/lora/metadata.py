"""The text in a LoRA file's header: who made it, for which model, and what its scale is."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..checks import excerpt
from ..errors import LoraError
from .keys import Key
from .targets import COMPONENTS_CHANGED, Named

PEFT = "lora_adapter_metadata"
"""The entry in which diffusers keeps PEFT's config."""
COMMON = 0.9  # the share of captions that a trigger word stands in
MOST_WORDS = 8
TITLES = ("modelspec.title", "name", "ss_output_name")
MODELS = ("ss_base_model_version", "modelspec.architecture", "model", "base_model")
PEFT_TYPES = ("LORA", "LOHA", "LOKR", "OFT")
_PLAIN = re.compile(r"\^?(?:[\w.-]|\\\.)+\$?")
"""A pattern that is a name. PEFT takes any regular expression, and one could run for ever."""
UNREADABLE_STARTS = ("pissa", "olora", "corda", "lora_ga")
"""PEFT's ways to begin that change the base's weights as well."""


Patterns = tuple[tuple[str, float], ...]
"""Numbers for modules by name, or by the end of their names."""


@dataclass(frozen=True)
class Metadata:
    """Facts that a file states about itself; None where it states none."""

    base_model: str | None = None
    trigger_words: tuple[str, ...] = ()
    title: str | None = None
    author: str | None = None
    description: str | None = None
    program: str | None = None  # that trained it

    @classmethod
    def read(cls, texts: Mapping[str, str]) -> "Metadata":
        """Read the texts of a safetensors header."""
        return cls(
            _first(texts, *MODELS),
            _trigger_words(texts),
            _first(texts, *TITLES),
            _first(texts, "modelspec.author"),
            _first(texts, "modelspec.description"),
            _program(texts),
        )


@dataclass(frozen=True)
class PeftConfig:
    """PEFT's config of an adapter: all that its scale depends on."""

    kind: str = "LORA"
    alpha: float | None = None
    alphas: Patterns = ()
    rank: float | None = None
    ranks: Patterns = ()
    is_rank_stabilized: bool = False
    has_magnitudes: bool = False  # DoRA

    @classmethod
    def read(cls, values: Mapping[str, Any], where: str) -> "PeftConfig":
        """Read a config's values; those of other layers of PEFT are refused."""
        kind = values.get("peft_type", "LORA")
        if kind not in PEFT_TYPES:
            raise LoraError(
                f"{where}: 'peft_type' must be one of {', '.join(PEFT_TYPES)}, not {excerpt(kind)}"
            )
        start = values.get("init_lora_weights")
        if isinstance(start, str) and start.lower().startswith(UNREADABLE_STARTS):
            raise LoraError(
                f"{where}: 'init_lora_weights' is {excerpt(start)}, which changes the base model's "
                "weights too; convert the adapter to a plain LoRA with PEFT's save_pretrained"
            )
        if kind == "OFT":
            _check_rotation(values, where)
            return cls(kind)
        names = ("lora_alpha", "r") if kind == "LORA" else ("alpha", "r")
        alpha, rank = (_number(values[n], where, n) if n in values else None for n in names)
        alphas = _patterns(values, "alpha_pattern", where)
        ranks = _patterns(values, "rank_pattern", where) if kind == "LOKR" else ()
        is_stabilized = kind == "LORA" and values.get("use_rslora") is True
        is_dora = kind == "LORA" and values.get("use_dora") is True
        return cls(kind, alpha, alphas, rank, ranks, is_stabilized, is_dora)

    def scale(self, path: str, rank: int) -> float:
        """Return the scale of a module's update, whose tensors are of this rank."""
        alpha = next((n for name, n in self.alphas if _matches(name, path)), self.alpha)
        divisor: float = rank
        if self.kind == "LOKR":  # whole matrices have none
            divisor = next((n for name, n in self.ranks if _matches(name, path)), self.rank or rank)
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(divisor) if self.is_rank_stabilized else divisor)


def peft_configs(texts: Mapping[str, str], where: str) -> dict[str, PeftConfig]:
    """Return the configs that diffusers keeps in a file's header, by component."""
    if PEFT not in texts:
        return {}
    where = f"{where}: the metadata '{PEFT}'"
    try:
        values = json.loads(texts[PEFT])
    except (ValueError, RecursionError) as error:
        raise LoraError(f"{where} must be JSON, not {excerpt(texts[PEFT])}") from error
    if not isinstance(values, dict):
        raise LoraError(f"{where} must be a JSON object, not {excerpt(texts[PEFT])}")
    if "lora_alpha" in values:  # one config, not one for each component
        return dict.fromkeys(COMPONENTS_CHANGED, PeftConfig.read(values, where))
    by_component: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        component, _, field = name.partition(".")
        by_component.setdefault(component, {})[field] = value
    return {
        component: PeftConfig.read(by_component[component], where)
        for component in COMPONENTS_CHANGED
        if component in by_component
    }


def family(keys: list[Key], names: list[Named], texts: Mapping[str, str], is_folder: bool) -> str:
    """Return the program that wrote a file, or whose layout it has, as far as it shows."""
    program = (_program(texts) or "").lower()
    roles, adapters = {key.role for key in keys}, {key.adapter for key in keys} - {""}
    prefixes = {name.prefix for name in names}
    signs = (
        ("mlx-zimage", program.startswith("mlx-zimage")),
        ("PEFT", is_folder or PEFT in texts),
        ("ai-toolkit", "ai-toolkit" in program),
        ("mflux", "mflux" in program),
        ("OneTrainer", any(name.startswith("ot_") for name in texts)),
        ("LyCORIS", "lycoris_" in prefixes or "lycoris_config" in texts),
        ("OneTrainer", "lora_transformer_" in prefixes),
        ("kohya", bool(prefixes & {"lora_unet_", "lora_unet__"})),
        ("PEFT", any(prefix.startswith("base_model.") for prefix in prefixes)),
        ("DiffSynth", bool(adapters)),
        ("OneTrainer", "transformer." in prefixes and bool(roles & {"alpha", "dora_scale"})),
        ("PEFT", "transformer." in prefixes),
        ("ComfyUI", not all(name.is_official for name in names)),
        ("ai-toolkit", "diffusion_model." in prefixes),
    )
    return next((name for name, shows in signs if shows), "plain")


def _first(texts: Mapping[str, str], *names: str) -> str | None:
    """Return the first of these entries that says something, on one line."""
    for name in names:
        text = " ".join(texts.get(name, "").split())
        if text and text.lower() not in ("none", "null", "unknown"):
            return text
    return None


def _program(texts: Mapping[str, str]) -> str | None:
    if "mflux_version" in texts:
        return f"mflux {texts['mflux_version']}"
    software = _json(texts.get("software", ""))
    if isinstance(software, dict):
        words = [str(software[name]) for name in ("name", "version") if software.get(name)]
        return " ".join(words) or None
    return _first(texts, "software", "modelspec.implementation")


def _trigger_words(texts: Mapping[str, str]) -> tuple[str, ...]:
    """Return the phrase that a file names, else the tags that stand in nearly every caption."""
    if phrase := _first(texts, "modelspec.trigger_phrase", "trigger_word", "ss_trigger_words"):
        return (phrase,)
    folders = _json(texts.get("ss_tag_frequency", ""))
    counts: dict[str, int] = {}
    for tags in folders.values() if isinstance(folders, dict) else ():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            if type(count) is int:
                counts[tag.strip()] = counts.get(tag.strip(), 0) + count
    captions = _count(texts.get("ss_num_train_images", ""))
    if not captions or len(counts) < 2:  # a caption that is one sentence is counted as one tag
        return ()
    common = [tag for tag, count in counts.items() if tag and count >= COMMON * captions]
    return tuple(common[:MOST_WORDS])


def _count(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _check_rotation(values: Mapping[str, Any], where: str) -> None:
    """Refuse PEFT's rotations other than the one that this house and OneTrainer make."""
    for name, wanted in (("coft", False), ("use_cayley_neumann", True)):
        if values.get(name, wanted) is not wanted:
            raise LoraError(
                f"{where}: {name!r} must be {str(wanted).lower()}, not "
                f"{excerpt(values[name])}; a rotation made in another way is not read"
            )
    if (terms := values.get("num_cayley_neumann_terms", 5)) != 5:
        raise LoraError(f"{where}: 'num_cayley_neumann_terms' must be 5, not {excerpt(terms)}")


def _patterns(values: Mapping[str, Any], name: str, where: str) -> Patterns:
    numbers = values.get(name) or {}
    if not isinstance(numbers, dict):
        raise LoraError(f"{where}: {name!r} must be an object, not {excerpt(numbers)}")
    if unread := [pattern for pattern in numbers if not _PLAIN.fullmatch(pattern)]:
        raise LoraError(
            f"{where}: {name!r} must name modules, not {excerpt(unread[0])}; "
            "write out which modules it stands for"
        )
    return tuple((module, _number(number, where, name)) for module, number in numbers.items())


def _number(value: object, where: str, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise LoraError(f"{where}: {name!r} must be a number above 0, not {excerpt(value)}")
    return float(value)


def _matches(name: str, path: str) -> bool:
    """Return whether a pattern of PEFT names a module: in full, or by the end of its name."""
    plain = name.removesuffix("$").replace("\\.", ".")
    if plain.startswith("^"):
        return plain[1:] == path
    return path == plain or path.endswith(f".{plain}")
