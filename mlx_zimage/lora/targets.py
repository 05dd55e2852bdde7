"""The modules that a LoRA may change, by the names that every program gives them.

A name with underscores, as kohya's programs write it, cannot be split at them: `to_out_0` and
`feed_forward_w1` hold underscores of different kinds. It is looked up instead, among the names of
all modules. One name may stand for several modules: ComfyUI's `attention.qkv` is the three
matrices of an attention, one above the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property

from ..checkpoint.checkpoint import Checkpoint, official_shapes
from ..checkpoint.components import COMPONENTS
from ..checkpoint.published import CONFIGS

Shapes = Mapping[str, tuple[int, ...]]

COMPONENTS_CHANGED = ("transformer", "text_encoder")
PREFIXES = {
    "transformer": (
        "base_model.model.transformer.diffusion_model.",
        "base_model.model.transformer.",
        "base_model.model.diffusion_model.",
        "base_model.model.",
        "model.diffusion_model.",
        "diffusion_model.",
        "transformer.diffusion_model.",
        "transformer.",
        "pipe.dit.",
        "unet.",
        "",
    ),
    "text_encoder": (
        "base_model.model.text_encoder.",
        "text_encoders.qwen3_4b.transformer.",
        "text_encoders.qwen3_4b.",
        "text_encoder.",
    ),
}
"""Beginnings of dotted names. The empty one is for files of the transformer alone."""
UNDERSCORED = {
    "transformer": ("lora_unet__", "lora_unet_", "lora_transformer_", "lycoris_"),
    "text_encoder": ("lora_te1_", "lora_te_"),
}
"""Beginnings of names with underscores."""
OF_TEXT_ENCODER = ("lora_te", "text_encoder", "base_model.model.text_encoder")
"""Beginnings of names of a text encoder, of whatever model."""
COMFY = (
    ("all_x_embedder.2-1", "x_embedder"),
    ("all_final_layer.2-1", "final_layer"),
    (".attention.to_out.0", ".attention.out"),
    (".attention.norm_q", ".attention.q_norm"),
    (".attention.norm_k", ".attention.k_norm"),
)
"""The official name, and ComfyUI's, which is the one of the first release."""
FUSED = "attention.qkv"
PARTS = ("attention.to_q", "attention.to_k", "attention.to_v")
KINDS = (
    ("text encoder", ""),
    ("attention", ".attention.to_"),
    ("feed forward", ".feed_forward."),
    ("modulation", "adaLN_modulation"),
    ("norms", "norm"),
    ("embedders", ""),
)
"""Kinds of modules as people are told of them, and the part of a name that shows one."""


@dataclass(frozen=True)
class Target:
    """A module that can be changed: a matrix (rows, columns), or the weight of a norm (width,)."""

    component: str
    path: str  # the official name
    shape: tuple[int, ...]

    @property
    def kind(self) -> str:
        """The kind of module, for people."""
        if self.component == "text_encoder":
            return KINDS[0][0]
        if len(self.shape) == 1:
            return "norms"
        return next(kind for kind, sign in KINDS[1:] if sign in self.path)


@dataclass(frozen=True)
class Named:
    """The targets of a name: one, or the three of a fused matrix from the top down."""

    prefix: str
    targets: tuple[Target, ...]
    is_official: bool


@dataclass(frozen=True)
class Targets:
    """All that a LoRA may change of a model, by component and official name."""

    modules: Mapping[str, Mapping[str, Target]]

    @classmethod
    def of(cls, shapes: Mapping[str, Shapes]) -> "Targets":
        """Return the targets among components' tensors, by their official keys and shapes."""
        modules = {}
        for component, tensors in shapes.items():
            paths = {k.removesuffix(".weight"): k for k in tensors if k.endswith(".weight")}
            modules[component] = {
                path: Target(component, path, tuple(tensors[key]))
                for path, key in paths.items()
                if key != COMPONENTS[component].embedding and len(tensors[key]) <= 2
            }
        return cls(modules)

    def find(self, module: str) -> Named | None:
        """Return the targets that a module's name in a file stands for."""
        for component in self.modules:
            for prefix in PREFIXES[component]:
                if module.startswith(prefix):
                    named = self._dotted[component].get(module.removeprefix(prefix))
                    if named is not None:
                        return Named(prefix, *named)
            for prefix in UNDERSCORED[component]:
                if module.startswith(prefix):
                    named = self._underscored[component].get(module.removeprefix(prefix))
                    if named is not None:
                        return Named(prefix, *named)
        return None

    @property
    def counts(self) -> dict[str, int]:
        """The number of targets of each kind."""
        kinds = [target.kind for inner in self.modules.values() for target in inner.values()]
        return {kind: kinds.count(kind) for kind, _ in KINDS if kind in kinds}

    @cached_property
    def _dotted(self) -> dict[str, dict[str, tuple[tuple[Target, ...], bool]]]:
        return {component: _names(inner) for component, inner in self.modules.items()}

    @cached_property
    def _underscored(self) -> dict[str, dict[str, tuple[tuple[Target, ...], bool]]]:
        return {
            component: {name.replace(".", "_"): named for name, named in inner.items()}
            for component, inner in self._dotted.items()
        }


def targets(checkpoint: Checkpoint) -> Targets:
    """Return what a LoRA may change of an opened checkpoint."""
    return Targets.of(
        {
            name: {key: tensor.shape for key, tensor in checkpoint[name].needed.items()}
            for name in COMPONENTS_CHANGED
        }
    )


@cache
def official_targets() -> Targets:
    """Return what a LoRA may change of the published models; no checkpoint is needed."""
    shapes = {}
    for name in COMPONENTS_CHANGED:
        component = COMPONENTS[name]
        config = component.read_config(CONFIGS[name], name)
        shapes[name] = official_shapes(component.build(config))  # lazy: no array is computed
    return Targets.of(shapes)


def _names(modules: Mapping[str, Target]) -> dict[str, tuple[tuple[Target, ...], bool]]:
    """Return the dotted names of a component's modules, and whether each is the official one."""
    names: dict[str, tuple[tuple[Target, ...], bool]] = {}
    for path, target in modules.items():
        if target.component == "text_encoder":
            names[path.removeprefix("model.")] = ((target,), False)
            continue
        comfy = path
        for official, other in COMFY:
            comfy = comfy.replace(official, other)
        names[comfy] = ((target,), False)
        parts = [path.replace(PARTS[0], part) for part in PARTS]
        if path.endswith(PARTS[0]) and all(part in modules for part in parts):
            fused = path.replace(PARTS[0], FUSED)
            names[fused] = (tuple(modules[part] for part in parts), False)
    return names | {path: ((target,), True) for path, target in modules.items()}
