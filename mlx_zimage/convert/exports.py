"""Checkpoints in the form that another program loads: mlx-vlm, mflux or diffusers.

mlx-vlm and diffusers read the official layout, so that their folders are ours under conditions.
mflux has keys, an order of convolutions and metadata of its own.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath

import mlx.core as mx

from ..checkpoint.components import COMPONENTS
from ..errors import RequestError
from ..weights.formats.names import replaced
from ..weights.packing import Packing
from ..weights.sizes import Output
from ..weights.tensor import Packings, Tensor, Tensors
from .write import Files

MFLUX_VERSION = "0.24.0"
"""The version whose form is written: mflux takes files that name one for its own."""
MFLUX_RULES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "transformer": (
        (r"^t_embedder\.mlp\.0\.", "t_embedder.linear1."),
        (r"^t_embedder\.mlp\.2\.", "t_embedder.linear2."),
        (r"^(all_final_layer\.2-1\.adaLN_modulation)\.1\.", r"\1.0."),
    ),
    "text_encoder": ((r"^model\.", ""),),
    "vae": (
        (r"^(encoder\.conv_(?:in|out))\.", r"\1.conv2d."),
        (r"^(decoder\.conv_in)\.", r"\1.conv."),
        (r"^(decoder\.conv_out)\.", r"\1.conv."),
        (r"^((?:en|de)coder\.conv_norm_out)\.", r"\1.norm."),
    ),
}
"""mflux's names for the official keys."""


@dataclass(frozen=True)
class Target:
    """Another program, and what it takes of a checkpoint."""

    name: str
    modes: tuple[str, ...]  # in which its layers may be quantized
    lacks: tuple[str, ...]  # beginnings of keys that it has no place for
    group: int | None = None  # the only size that its groups have


SECOND_TIME = "t_embedder_2."  # TwinFlow's
QUANT_CONVOLUTIONS = ("quant_conv.", "post_quant_conv.")
MLX = ("affine", "mxfp4", "mxfp8", "nvfp4")
MLX_VLM = Target("mlx-vlm", MLX, (SECOND_TIME, *QUANT_CONVOLUTIONS))
MFLUX = Target("mflux", ("affine",), (SECOND_TIME, *QUANT_CONVOLUTIONS), group=64)
DIFFUSERS = Target("diffusers", (), (SECOND_TIME,))
TARGETS: Mapping[str, Target] = {target.name: target for target in (MLX_VLM, MFLUX, DIFFUSERS)}


def target_of(name: str) -> Target:
    """Return a target by its name."""
    if name not in TARGETS:
        raise RequestError(f"a checkpoint is written for {_listed(TARGETS)}, not for {name!r}")
    return TARGETS[name]


def check(target: Target, packings: Mapping[str, Packings], tensors: Mapping[str, Tensors]) -> None:
    """Refuse a conversion whose result the target could not load, or would misread in silence."""
    for name, component in tensors.items():
        if strange := next((key for key in component if key.startswith(target.lacks)), None):
            raise RequestError(f"{target.name} has no place for the {name}'s '{strange}'")
        _check_kinds(target, name, {*packings[name].values()})


def _check_kinds(target: Target, name: str, kinds: Collection[Packing]) -> None:
    """Refuse packings of a component that the target does not know."""
    for kind in kinds:
        if kind.mode not in target.modes:
            raise RequestError(
                f"{target.name} loads {_rule(target)}, and the {name} is to be in {_shown(kind)}; "
                + ("quantize it in another way" if target.modes else "leave it unquantized")
            )
        if kind != kind.plain:
            raise RequestError(
                f"{target.name} knows no rotated or corrected layers, and the {name} is to have "
                "some; quantize it in another way"
            )
        if target.group not in (None, kind.group_size):
            raise RequestError(
                f"{target.name} packs in groups of {target.group}, and the {name} is to have "
                f"groups of {kind.group_size}"
            )
    if len(kinds) > 1:
        raise RequestError(
            f"{target.name} takes one number of bits and one group size for all of a component, "
            f"and the {name} is to have {len(kinds)} kinds; quantize it in another way"
        )


def _rule(target: Target) -> str:
    """Return what a program loads."""
    if not target.modes:
        return "16 or 32 bit alone"
    return _listed(["numbers of bits" if mode == "affine" else mode for mode in target.modes])


def _shown(kind: Packing) -> str:
    """Return how a person asks for a packing."""
    return f"{kind.bits} bits" if kind.mode == "affine" else kind.mode


def files_for(target: Target | None, component: str, packings: Packings) -> Files:
    """Return how a component's files are named and described."""
    stem = COMPONENTS[component].stem
    kinds = [kind for kind, _ in Counter(packings.values()).most_common()]
    if target is MFLUX:
        level = str(kinds[0].bits if kinds else None)
        about = {"quantization_level": level, "mflux_version": MFLUX_VERSION}
        return Files("model", numbered=True, header=about, about=about)
    if len(kinds) != 1 or kinds[0] != kinds[0].plain:
        return Files(stem)
    (kind,) = kinds
    about = {  # mlx-vlm reads how layers are quantized from an index of this name alone
        "quantization_level": str(kind.bits),
        "quantization_mode": kind.mode,
        "quantization_group_size": str(kind.group_size),
    }
    return Files(stem, about=about)


def outputs_for(target: Target | None, component: str, items: list[Output]) -> list[Output]:
    """Return a component's tensors under the target's names and in its order."""
    if target is not MFLUX:
        return items
    return [
        replace(
            item,
            key=replaced(item.key, MFLUX_RULES[component]),
            tensor=_channels_last(item.tensor),
        )
        for item in items
    ]


def takes(target: Target | None, file: PurePath) -> bool:
    """Return whether a file that holds no weights belongs into the target's folder."""
    return target is not MFLUX or file.parts[0] == "tokenizer"


def has_configs(target: Target | None) -> bool:
    """Return whether each component has a config.json; mflux knows the real model's sizes."""
    return target is not MFLUX


def _channels_last(tensor: Tensor) -> Tensor:
    """Return a convolution's weight as MLX has it, (out, h, w, in), and any other as it is."""
    if len(tensor.shape) != 4:
        return tensor
    out, channels, h, w = tensor.shape

    def rows(start: int, stop: int) -> mx.array:
        return tensor.rows(start, stop).transpose(0, 2, 3, 1)

    return replace(tensor, shape=(out, h, w, channels), rows=rows, entries=())


def _listed(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
