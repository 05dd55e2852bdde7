"""A LoRA's header held against a model: every key is known and fits, or the file is refused."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ..checks import excerpt, path_text
from ..errors import LoraError
from ..weights.safetensors import Entry
from . import metadata
from .file import LoraFile
from .fit import fitting
from .group import Group
from .keys import Key, split
from .readers import Reader
from .targets import OF_TEXT_ENCODER, Targets

FOREIGN = (
    (r"single_transformer_blocks|single_blocks|double_blocks", "FLUX"),
    (r"joint_(transformer_)?blocks", "Stable Diffusion 3"),
    (
        r"(?:^|[._])(down_blocks|up_blocks|mid_block|(in|out)put_blocks|middle_block)[._]|lora_te2_",
        "Stable Diffusion or SDXL",
    ),
    (r"transformer_blocks.*(img_mlp|txt_mlp|img_mod|txt_mod)", "Qwen-Image"),
    (r"transformer_blocks", "Qwen-Image, FLUX or another model"),
    (r"(?:^|[._])blocks[._]\d+[._](self_attn|cross_attn|ffn)", "Wan"),
)
"""Names in the modules of other models."""
UNREADABLE = {
    "mid": "a Tucker decomposition, which is for convolutions",
    "lokr_t2": "a Tucker decomposition, which is for convolutions",
    "hada_t1": "a Tucker decomposition, which is for convolutions",
    "hada_t2": "a Tucker decomposition, which is for convolutions",
    "base_layer": "a tensor of the base model that was trained in place (PEFT's bias='all')",
    "on_input": "IA3, which scales inputs",
    "reshape_weight": "a weight of another shape, as control LoRAs have for other models",
    "b_norm": "a bias of a norm, and the norms of this model have none",
}
"""Roles that cannot be of this model, and why."""
WHOLE = ".weight"
"""The end of a checkpoint's keys."""
SECOND_EMBEDDER = "t_embedder_2"
SHOWN = 3  # names that a message quotes


@dataclass(frozen=True)
class Judged:
    """A file that fits a model: its modules, each with its reader, and what has no effect."""

    groups: tuple[tuple[Group, Reader | None], ...]
    skipped: tuple[str, ...]  # modules of a text encoder that the model does not have
    family: str


def judge(file: LoraFile, targets: Targets) -> Judged:
    """Hold a header against a model, before a weight is read."""
    keys, unknown = _keys(file)
    by_module: dict[str, list[Key]] = defaultdict(list)
    for key in keys:
        by_module[key.module].append(key)
    named = {module: targets.find(module) for module in by_module}
    lost = [module for module, found in named.items() if found is None]
    skipped = tuple(module for module in lost if module.startswith(OF_TEXT_ENCODER))
    _refuse_lost(file, [module for module in lost if not module.startswith(OF_TEXT_ENCODER)])
    if unknown:
        raise LoraError(
            f"{path_text(file.file)} holds {_some(unknown)}, which no kind of LoRA that is read has"
        )
    groups = [
        Group(
            module,
            _parts(file, by_module[module]),
            place,
            file.configs.get(place.targets[0].component),
        )
        for module, place in named.items()
        if place is not None
    ]
    if not groups:
        raise LoraError(
            f"{path_text(file.file)} changes nothing of this model: it holds {_some(skipped)} alone"
        )
    names = [group.named for group in groups]
    family = metadata.family(keys, names, file.texts, file.path.is_dir())
    return Judged(tuple((group, fitting(group)) for group in groups), skipped, family)


def _keys(file: LoraFile) -> tuple[list[Key], list[str]]:
    """Return the keys that end in a known tail, and the others."""
    keys, unknown = list[Key](), list[str]()
    for text in file.entries:
        key = split(text)
        if key is None:
            unknown.append(text)
        else:
            keys.append(key)
    if not keys:
        whole = [text for text in unknown if text.endswith(WHOLE)]
        if whole:
            raise LoraError(
                f"{path_text(file.file)} is no LoRA but a checkpoint: it holds {len(whole)} whole "
                f"weights, such as {excerpt(whole[0], 120)}; load it as the model"
            )
        raise LoraError(f"{path_text(file.file)} is no LoRA: it holds {_some(unknown)}")
    if len(adapters := sorted({key.adapter for key in keys} - {""})) > 1:
        raise LoraError(
            f"{path_text(file.file)} must hold one adapter, not {_some(adapters)}; "
            "save each to a file of its own"
        )
    return keys, unknown


def _refuse_lost(file: LoraFile, lost: list[str]) -> None:
    """Refuse modules that the model does not have."""
    if not lost:
        return
    name = path_text(file.file)
    for pattern, model in FOREIGN:
        if any(re.search(pattern, module[:500]) for module in lost):
            base = metadata.Metadata.read(file.texts).base_model
            named = "" if base is None else f" (it says {excerpt(base)})"
            raise LoraError(
                f"{name} is a LoRA for {model}{named}, as {excerpt(lost[0], 120)} shows; "
                "name one for Z-Image"
            )
    if any(SECOND_EMBEDDER in module for module in lost):
        raise LoraError(
            f"{name} changes {SECOND_EMBEDDER}, the second timestep embedder of TwinFlow, which "
            "this model lacks; load it with a TwinFlow checkpoint"
        )
    raise LoraError(
        f"{name} changes {_some(lost)}, which this model does not have; "
        "the file is for another model, or names modules in an unknown way"
    )


def _parts(file: LoraFile, keys: list[Key]) -> dict[str, Entry]:
    """Return a module's tensors by role."""
    parts: dict[str, Entry] = {}
    for key in keys:
        if key.role in UNREADABLE:
            raise LoraError(
                f"{path_text(file.file)}: {excerpt(key.text, 120)} is {UNREADABLE[key.role]}; "
                "it cannot be used here"
            )
        if key.role in parts:
            raise LoraError(
                f"{path_text(file.file)}: {excerpt(parts[key.role].name, 120)} and "
                f"{excerpt(key.text, 120)} are the same tensor under two names; remove one"
            )
        parts[key.role] = file.entries[key.text]
    return parts


def _some(names: Iterable[str]) -> str:
    """Return a few names for a message."""
    listed = list(names)
    shown = ", ".join(excerpt(name, 120) for name in listed[:SHOWN])
    return f"{shown} and {len(listed) - SHOWN} more" if len(listed) > SHOWN else shown
