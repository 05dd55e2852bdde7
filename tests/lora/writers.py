"""A writer of each family of adapter files, with the exact weights that each must make.

It shares no code with the package: names, forms and numbers are written down here again. `FAMILIES`
maps a name to a function that fills a `Sample` for a transformer's shapes.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import deltas
from .deltas import DOWN_UP, Merge
from .stored import Stored, store, write

Shapes = Mapping[str, tuple[int, ...]]
Form = Callable[..., Merge]
ATTENTION = ("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0")
FEED_FORWARD = ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3")
MODULATION = "adaLN_modulation.0"
OUTER = (
    "all_x_embedder.2-1",
    "all_final_layer.2-1.linear",
    "all_final_layer.2-1.adaLN_modulation.1",
    "cap_embedder.1",
    "t_embedder.mlp.0",
    "t_embedder.mlp.2",
)
COMFY = (
    ("attention.to_out.0", "attention.out"),
    ("attention.norm_q", "attention.q_norm"),
    ("attention.norm_k", "attention.k_norm"),
    ("all_x_embedder.2-1", "x_embedder"),
    ("all_final_layer.2-1", "final_layer"),
)


@dataclass
class Sample:
    """A file in the making: its tensors, and what each makes of which official tensors."""

    shapes: Shapes
    rng: np.random.Generator
    kind: str = "F32"
    tensors: dict[str, Stored] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] | None = None  # of a PEFT folder
    changes: list[tuple[tuple[str, ...], Merge]] = field(default_factory=list)

    def put(self, key: str, values: object, kind: str | None = None) -> np.ndarray:
        assert key not in self.tensors
        self.tensors[key] = store(values, kind or self.kind)
        return self.tensors[key].values

    def putter(self, start: str, kind: str | None = None) -> deltas.Put:
        """Return a form's `put` for a module: `start` ends with the dot before a tail."""

        def put(tail: str, values: object, kind: str | None = kind) -> np.ndarray:
            return self.put(start + tail, values, kind)

        return put

    def change(self, keys: str | Iterable[str], merge: Merge) -> None:
        self.changes.append(((keys,) if isinstance(keys, str) else tuple(keys), merge))

    def linears(self, *endings: str) -> list[str]:
        """Return the official paths of the linear layers, those with one of these endings."""
        paths = [key[: -len(".weight")] for key, shape in self.shapes.items() if len(shape) == 2]
        paths = [path for path in paths if f"{path}.weight" in self.shapes]
        return [path for path in paths if not endings or path.endswith(endings)]

    def blocks(self, first: str = "") -> list[str]:
        suffix = ".attention.to_q.weight"
        names = [key[: -len(suffix)] for key in self.shapes if key.endswith(suffix)]
        return [name for name in names if name.startswith(first)]

    def shape(self, module: str) -> tuple[int, int]:
        out, width = self.shapes[f"{module}.weight"]
        return out, width

    @property
    def keys(self) -> set[str]:
        """The official keys that are changed, biases that a layer gains among them."""
        return {key for keys, _ in self.changes for key in keys}

    def merged(
        self,
        weights: Mapping[str, np.ndarray],
        strength: float = 1.0,
        modules: Collection[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Return the changed tensors of a model with these weights, of these modules or of all."""
        result = {}
        for keys, merge in self.changes:
            if modules is not None and not {key.rpartition(".")[0] for key in keys} & {*modules}:
                continue
            parts = [_weight(weights, key) for key in keys]
            base = np.concatenate(parts)
            stops = np.cumsum([len(part) for part in parts])[:-1]
            merged = base + strength * (merge(base) - base)
            result |= dict(zip(keys, np.split(merged, stops), strict=True))
        return result

    def write(self, path: Path) -> Path:
        if self.config is None:
            return write(path.with_suffix(".safetensors"), self.tensors, self.metadata)
        path.mkdir()
        (path / "adapter_config.json").write_text(json.dumps(self.config))
        write(path / "adapter_model.safetensors", self.tensors, {"format": "pt"})
        return path


def _weight(weights: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    if key in weights:
        return np.asarray(weights[key], np.float64)
    module = key[: -len(".bias")]  # a bias that its layer gains
    return np.zeros(len(weights[f"{module}.weight"]))


def comfy(module: str) -> str:
    for official, other in COMFY:
        module = module.replace(official, other)
    return module


def flat(module: str) -> str:
    return module.replace(".", "_")


def _each(
    sample: Sample,
    form: Form,
    prefix: str,
    modules: Iterable[str],
    name: Callable[[str], str] = str,
    **options: Any,
) -> None:
    """Write one form for each module."""
    for module in modules:
        put = sample.putter(f"{prefix}{name(module)}.")
        merge = form(put, sample.rng, sample.shape(module), **options)
        sample.change(f"{module}.weight", merge)


def _block_linears(sample: Sample) -> list[str]:
    return sample.linears(*ATTENTION, *FEED_FORWARD)


def _mixed_ranks(sample: Sample, prefix: str, modules: Iterable[str], **options: Any) -> None:
    for number, module in enumerate(modules):
        _each(sample, deltas.low_rank, prefix, [module], rank=1 + number % 5, **options)


def peft(sample: Sample) -> None:
    """diffusers' own, without metadata: every rank at scale 1."""
    _mixed_ranks(sample, "transformer.", sample.linears())


def _config(sample: Sample, prefix: str, **options: Any) -> dict[str, Any]:
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "use_dora": False, "bias": "none"}
    return {f"{prefix}{key}": value for key, value in (config | options).items()}


def _with_patterns(sample: Sample, prefix: str, rslora: bool) -> dict[str, Any]:
    """Write ranks and alphas that differ by pattern, and return the config that says so."""
    modules = sample.linears(*ATTENTION, "feed_forward.w1")
    ranks = {"to_q": 2, "layers.1.attention.to_v": 3}
    alphas = {"^layers.1.attention.to_k": 7.0, "to_k": 1.0, "layers.1.attention.to_v": 5.0}
    for module in modules:
        rank = _by_pattern(ranks, module, 4)
        scale = _by_pattern(alphas, module, 6) / (rank**0.5 if rslora else rank)
        _each(sample, deltas.low_rank, prefix, [module], rank=rank, scale=scale)
    return {
        "use_rslora": rslora,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "target_modules": modules,
    }


def _by_pattern(patterns: Mapping[str, float], module: str, otherwise: float) -> Any:
    """Return the number of the first pattern that is a module's name or ends it."""
    named = [p for p in patterns if module == p.lstrip("^") or module.endswith(f".{p}")]
    return patterns[named[0]] if named else otherwise


def peft_metadata(sample: Sample, rslora: bool = False) -> None:
    options = _with_patterns(sample, "transformer.", rslora)
    config = _config(sample, "transformer.", **options)
    sample.metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(config)}


def peft_folder(sample: Sample) -> None:
    options = _with_patterns(sample, "base_model.model.", False)
    sample.config = _config(sample, "", **options)


def peft_bias(sample: Sample) -> None:
    """Biases of lora_B, for layers that have one and layers that gain one."""
    modules = sample.linears("attention.to_q", "feed_forward.w2", MODULATION)
    options: dict[str, Any] = {"lora_alpha": 8, "lora_bias": True, "target_modules": modules}
    config = _config(sample, "transformer.", **options)
    sample.metadata = {"lora_adapter_metadata": json.dumps(config)}
    for module in modules:
        _each(sample, deltas.low_rank, "transformer.", [module], rank=4, scale=2.0)
        bias = sample.rng.normal(0, 0.1, sample.shape(module)[0])
        change = 2.0 * sample.put(f"transformer.{module}.lora_B.bias", bias)
        sample.change(f"{module}.bias", partial(np.add, change))


def _dora(put: deltas.Put, rng: Any, shape: Any, *, dora: dict[str, Any], **options: Any) -> Merge:
    return deltas.decomposed(put, rng, shape, deltas.low_rank(put, rng, shape, **options), **dora)


def peft_dora(sample: Sample, tail: str = "lora_magnitude_vector.weight") -> None:
    modules = _block_linears(sample)
    options: dict[str, Any] = {"lora_alpha": 4, "use_dora": True, "target_modules": modules}
    config = _config(sample, "transformer.", **options)
    sample.metadata = {"lora_adapter_metadata": json.dumps(config)}
    magnitude = {"tail": tail, "flat": True}
    _each(sample, _dora, "transformer.", modules, rank=4, dora=magnitude)


def ai_toolkit(sample: Sample, alpha: float | None = None) -> None:
    modules = sample.linears(*ATTENTION, *FEED_FORWARD, MODULATION)
    sample.metadata = {"software": '{"name": "ai-toolkit"}', "name": "demo"}
    _each(sample, deltas.low_rank, "diffusion_model.", modules, rank=4, alpha=alpha)


def ai_toolkit_lokr(sample: Sample) -> None:
    """Both factors full, and an alpha of 9999999999, which float16 cannot hold."""
    for module in sample.linears(*ATTENTION, *FEED_FORWARD, MODULATION):
        small = smallest(sample.shape(module))
        _each(sample, deltas.kronecker, "diffusion_model.", [module], small=small, alpha=9999999999)


def smallest(shape: tuple[int, int]) -> tuple[int, int]:
    """Return the largest divisors up to the roots, as factor -1 does."""
    return tuple(max(d for d in range(1, int(n**0.5) + 1) if n % d == 0) for n in shape)  # type: ignore[return-value]


def ai_toolkit_dora(sample: Sample) -> None:
    magnitude = {"tail": "magnitude", "flat": True}
    _each(sample, _dora, "diffusion_model.", _block_linears(sample), rank=4, dora=magnitude)


def bare(sample: Sample, tails: tuple[str, str] = deltas.AB) -> None:
    _each(sample, deltas.low_rank, "", _block_linears(sample), rank=4, tails=tails)


def default_named(sample: Sample) -> None:
    bare(sample, ("lora_A.default.weight", "lora_B.default.weight"))


def musubi(sample: Sample) -> None:
    """Layers alone, as its defaults exclude the rest, with alphas that differ."""
    modules = [path for path in _block_linears(sample) if path.startswith("layers.")]
    sample.metadata = {"ss_base_model_version": "zimage", "modelspec.architecture": "Z-Image/lora"}
    options = {"name": flat, "rank": 4, "tails": DOWN_UP}
    for number, module in enumerate(modules):
        alpha = 1.0 + number % 3
        _each(sample, deltas.low_rank, "lora_unet_", [module], alpha=alpha, **options)


def _fused(sample: Sample, prefix: str, name: Callable[[str], str], form: Form, **o: Any) -> None:
    """Write one form for query, key and value of each block together."""
    for block in sample.blocks():
        keys = [f"{block}.{path}.weight" for path in ATTENTION[:3]]
        out, width = sample.shapes[keys[0]]
        put = sample.putter(f"{prefix}{name(f'{block}.attention.qkv')}.")
        sample.change(keys, form(put, sample.rng, (3 * out, width), **o))


def kohya_dense(sample: Sample) -> None:
    """Fused query, key and value of one rank, the other layers by Comfy's names."""
    others = sample.linears(ATTENTION[3], *FEED_FORWARD)
    options: dict[str, Any] = {"rank": 4, "alpha": 2.0, "tails": DOWN_UP}
    _fused(sample, "lora_unet_", flat, deltas.low_rank, **options)
    _each(sample, deltas.low_rank, "lora_unet_", others, name=lambda m: flat(comfy(m)), **options)


def kohya_diagonal(sample: Sample) -> None:
    """The conversion of a split file: block-diagonal, with three times the rank and alpha."""
    _fused(sample, "lora_unet_", flat, deltas.block_diagonal, rank=4, alpha=2.0)


def kohya_both(sample: Sample) -> None:
    """The same update twice, fused and split, and `out` beside `to_out_0`."""
    kohya_diagonal(sample)
    for key, fused in [*sample.tensors.items()]:
        module, tail = key.split(".", 1)
        for part, letter in enumerate("qkv"):
            to = f"{module.replace('_qkv', f'_to_{letter}')}.{tail}"
            values = fused.values
            if tail == "alpha":
                values = values / 3
            elif tail == DOWN_UP[0]:
                values = values[part * 4 : part * 4 + 4]
            else:
                rows = len(values) // 3
                values = values[part * rows : (part + 1) * rows, part * 4 : part * 4 + 4]
            sample.put(to, values)
    for module in sample.linears(ATTENTION[3]):
        options: dict[str, Any] = {"rank": 4, "alpha": 2.0, "tails": DOWN_UP, "name": flat}
        _each(sample, deltas.low_rank, "lora_unet_", [module], **options)
        for tail in (*DOWN_UP, "alpha"):
            sample.tensors[f"lora_unet_{flat(comfy(module))}.{tail}"] = sample.tensors[
                f"lora_unet_{flat(module)}.{tail}"
            ]


def diffusion_pipe(sample: Sample) -> None:
    """Comfy's names with dots, the outer layers among them."""
    others = sample.linears(ATTENTION[3], *FEED_FORWARD, MODULATION, *OUTER)
    _fused(sample, "diffusion_model.", str, deltas.low_rank, rank=4)
    _each(sample, deltas.low_rank, "diffusion_model.", others, name=comfy, rank=4)


def onetrainer_legacy(sample: Sample) -> None:
    """Rank 4 and alpha 1, as is; a magnitude for each input, which is its default."""
    modules = _block_linears(sample)
    options: dict[str, Any] = {"rank": 4, "alpha": 1.0, "tails": DOWN_UP}
    _each(sample, deltas.low_rank, "transformer.", modules[::2], **options)
    options["dora"] = {"axis": "columns"}
    _each(sample, _dora, "transformer.", modules[1::2], **options)


def onetrainer_diffusers(sample: Sample, axis: str) -> None:
    """Alpha folded into B; a magnitude by row as PEFT's, one by column as it was."""
    rows = {"tail": "lora_magnitude_vector.weight", "flat": True}
    dora = rows if axis == "rows" else {"axis": axis}
    _each(sample, _dora, "transformer.", _block_linears(sample), rank=4, dora=dora)


def onetrainer(
    sample: Sample,
    prefix: str,
    name: Callable[[str], str] = str,
    tails: tuple[str, str] = deltas.AB,
) -> None:
    """Its other layouts: Z-Image's layers stay split, and alpha and magnitude are kept."""
    modules = _block_linears(sample)
    options: dict[str, Any] = {"name": name, "rank": 4, "alpha": 1.0, "tails": tails}
    _each(sample, deltas.low_rank, prefix, modules[::2], **options)
    _each(sample, _dora, prefix, modules[1::2], dora={"axis": "rows"}, **options)


def onetrainer_oft(sample: Sample, prefix: str = "transformer.", kind: str = "BOOL") -> None:
    name = flat if prefix.endswith("_") else str
    options: list[dict[str, Any]] = [{}, {"shared": True}, {"scaled": kind}]
    for number, module in enumerate(_block_linears(sample)):
        choice = options[number % 3]
        _each(sample, deltas.input_rotation, prefix, [module], name=name, block=8, **choice)


LYCORIS: dict[str, tuple[Form, dict[str, Any]]] = {
    "lokr, full": (deltas.kronecker, {"small": (4, 4), "alpha": 9984.0}),
    "lokr, larger part first": (deltas.kronecker, {"small": (16, 8)}),  # as ai-toolkit may
    "lokr, w1 decomposed": (deltas.kronecker, {"small": (8, 8), "rank1": 2, "alpha": 3.0}),
    "lokr, w2 decomposed": (deltas.kronecker, {"small": (4, 4), "rank2": 3, "alpha": 1.0}),
    "lokr, both decomposed": (
        deltas.kronecker,
        {"small": (8, 8), "rank1": 2, "rank2": 2, "alpha": 1.0},
    ),
    "loha": (deltas.hadamard, {"rank": 3, "alpha": 2.0}),
    "loha, no alpha": (deltas.hadamard, {"rank": 5}),
    "locon": (deltas.low_rank, {"rank": 4, "alpha": 2.0, "tails": DOWN_UP}),
    "dora, rows": (_dora, {"rank": 4, "alpha": 2.0, "tails": DOWN_UP, "dora": {}}),
    "dora, columns": (
        _dora,
        {"rank": 4, "alpha": 2.0, "tails": DOWN_UP, "dora": {"axis": "columns"}},
    ),
    "oft": (deltas.output_rotation, {"block": 8}),
    "oft, rescaled": (deltas.output_rotation, {"block": 8, "rescale": True}),
    "oft, constrained": (deltas.output_rotation, {"block": 4, "constraint": 0.01}),
    "boft": (deltas.butterfly, {"most": 6}),
    "boft, rescaled": (deltas.butterfly, {"most": 6, "rescale": True}),
    "boft, constrained": (deltas.butterfly, {"most": 6, "constraint": 0.01}),
    "glora": (deltas.glora, {"rank": 4, "alpha": 2.0}),
    "glora, old": (deltas.glora, {"rank": 4, "alpha": 2.0, "old": True}),
    "full": (deltas.added, {"tail": "diff"}),
}


def lycoris(sample: Sample, form: str, prefix: str = "lycoris_") -> None:
    write_form, options = LYCORIS[form]
    name = flat if prefix.endswith("_") else str
    modules = sample.linears(*ATTENTION, *FEED_FORWARD, MODULATION)
    sample.metadata = {"lycoris_config": json.dumps({"algo": form.split(",", maxsplit=1)[0]})}
    _each(sample, write_form, prefix, modules, name=name, **options)


def lycoris_inner_dora(sample: Sample) -> None:
    """Magnitudes on top of LoKr and LoHa, on either axis."""

    def form(put: Any, rng: Any, shape: Any, inner: str, axis: str) -> Merge:
        write_form, options = LYCORIS[inner]
        return deltas.decomposed(put, rng, shape, write_form(put, rng, shape, **options), axis=axis)

    for number, module in enumerate(_block_linears(sample)):
        inner = ("lokr, full", "loha", "lokr, w2 decomposed")[number % 3]
        axis = ("rows", "columns")[number % 2]
        _each(sample, form, "lycoris_", [module], name=flat, inner=inner, axis=axis)


def norms_and_biases(sample: Sample) -> None:
    """LyCORIS' full algorithm: weights, biases and norms."""
    for module in ("layers.0.feed_forward.w3", f"layers.0.{MODULATION}", "cap_embedder.1"):
        _each(sample, deltas.added, "lycoris_", [module], name=flat, tail="diff")
        _add_bias(sample, f"lycoris_{flat(module)}.", module)
    for block in sample.blocks():
        for norm in ("attention_norm1", "ffn_norm2", "attention.norm_q"):
            key = f"{block}.{norm}.weight"
            if key in sample.shapes:
                put = sample.putter(f"lycoris_{flat(f'{block}.{norm}')}.")
                sample.change(key, deltas.added(put, sample.rng, sample.shapes[key], "w_norm"))


def _add_bias(sample: Sample, start: str, module: str) -> None:
    if f"{module}.bias" in sample.shapes:
        put, shape = sample.putter(start), (sample.shape(module)[0],)
        sample.change(f"{module}.bias", deltas.added(put, sample.rng, shape, "diff_b"))


def dense(sample: Sample) -> None:
    """.diff of weights, norms and a fused matrix; .diff_b with and without it; .set_weight."""
    put = sample.putter("diffusion_model.layers.0.attention.qkv.")
    out, width = sample.shape("layers.0.attention.to_q")
    keys = [f"layers.0.{path}.weight" for path in ATTENTION[:3]]
    sample.change(keys, deltas.added(put, sample.rng, (3 * out, width), "diff"))
    modules = [f"layers.1.{path}" for path in FEED_FORWARD]
    _each(sample, deltas.added, "diffusion_model.", modules, tail="diff")
    _add_bias(sample, f"diffusion_model.layers.0.{MODULATION}.", f"layers.0.{MODULATION}")
    _add_bias(sample, "diffusion_model.x_embedder.", "all_x_embedder.2-1")
    put = sample.putter("diffusion_model.layers.0.attention.out.")
    shape = sample.shape("layers.0.attention.to_out.0")
    replacing = deltas.replaced(put, sample.rng, shape, "set_weight")
    sample.change("layers.0.attention.to_out.0.weight", replacing)
    put = sample.putter("diffusion_model.layers.1.ffn_norm1.")
    norm = "layers.1.ffn_norm1.weight"
    sample.change(norm, deltas.added(put, sample.rng, sample.shapes[norm], "diff"))


def fused_loha(sample: Sample) -> None:
    """A LoHa trained on the fused matrix."""
    _fused(sample, "lora_unet_", flat, deltas.hadamard, rank=3, alpha=2.0)


def fused_dora(sample: Sample) -> None:
    """A magnitude for each row of the fused matrix."""
    options: dict[str, Any] = {"rank": 4, "alpha": 2.0, "tails": DOWN_UP, "dora": {}}
    _fused(sample, "lora_unet_", flat, _dora, **options)


def fused_lokr(sample: Sample) -> None:
    """Factors whose blocks of rows end where those of query, key and value do."""
    options: dict[str, Any] = {"small": (6, 4), "rank2": 2, "alpha": 1.0}
    _fused(sample, "lora_unet_", flat, deltas.kronecker, **options)


FAMILIES: dict[str, Callable[[Sample], None]] = {
    "peft": peft,
    "peft, metadata": peft_metadata,
    "peft, rslora": partial(peft_metadata, rslora=True),
    "peft, folder": peft_folder,
    "peft, bias": peft_bias,
    "peft, dora": peft_dora,
    "peft, dora as diffusers saves it": partial(peft_dora, tail="lora_magnitude_vector"),
    "ai-toolkit": ai_toolkit,
    "ai-toolkit, alpha": partial(ai_toolkit, alpha=2.0),
    "ai-toolkit, lokr": ai_toolkit_lokr,
    "ai-toolkit, dora": ai_toolkit_dora,
    "bare": bare,
    "bare, default": default_named,
    "musubi": musubi,
    "kohya, dense": kohya_dense,
    "kohya, diagonal": kohya_diagonal,
    "kohya, both": kohya_both,
    "diffusion-pipe": diffusion_pipe,
    "onetrainer, legacy": onetrainer_legacy,
    "onetrainer, diffusers": partial(onetrainer_diffusers, axis="rows"),
    "onetrainer, diffusers, columns": partial(onetrainer_diffusers, axis="columns"),
    "onetrainer, comfy": partial(onetrainer, prefix="diffusion_model."),
    "onetrainer, original": partial(onetrainer, prefix=""),
    "onetrainer, kohya": partial(onetrainer, prefix="lora_unet_", name=flat, tails=DOWN_UP),
    "onetrainer, mixture": partial(
        onetrainer, prefix="lora_transformer_", name=flat, tails=DOWN_UP
    ),
    "onetrainer, oft": onetrainer_oft,
    "onetrainer, oft, kohya": partial(onetrainer_oft, prefix="lora_unet_", kind="F32"),
    **{f"lycoris, {form}": partial(lycoris, form=form) for form in LYCORIS},
    "lycoris, dora inside": lycoris_inner_dora,
    "lycoris, norms and biases": norms_and_biases,
    "diff and set": dense,
    "fused loha": fused_loha,
    "fused dora": fused_dora,
    "fused lokr": fused_lokr,
}


def sample(family: str, shapes: Shapes, kind: str = "F32", seed: int = 0) -> Sample:
    """Return a family's file for a transformer's official shapes."""
    filled = Sample(shapes, np.random.default_rng([seed, *family.encode()]), kind)
    FAMILIES[family](filled)
    return filled
