"""A checkpoint: opened and checked by its configs and file headers, before a weight is read.

It lies in a folder in the official layout; or in files of other programs, which take configs,
tokenizer, scheduler and missing components from a base checkpoint. A folder that lacks a shard, a
key or a config field fails when it is opened.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from ..errors import CheckpointError, RequestError, ZImageError
from ..files import read_json
from ..hub.locate import locate
from ..models.autoencoder import AutoencoderConfig
from ..models.text_encoder import TextEncoderConfig
from ..models.transformer_config import TransformerConfig
from ..quantization.recipe import Quantization
from ..weights.formats import read_component
from ..weights.safetensors import FLOATS
from ..weights.tensor import Packings, Tensors, stored
from . import assemble
from .components import COMPONENTS, Component
from .files import read_files
from .identity import identity

BASE = "turbo"
"""The checkpoint that files take the components they lack from, unless another is named."""
DEFAULT_SIDE = 1024  # pixels, where the VAE's config does not say what it was trained at


@dataclass(frozen=True)
class StoredComponent:
    """A component of an opened checkpoint: its config and its tensors, which are not read yet."""

    component: Component
    config: Any
    tensors: Tensors
    folder: Path  # for messages
    config_file: Path

    @cached_property
    def needed(self) -> Tensors:
        """The tensors that a generation uses."""
        needs = self.component.needs
        return {key: t for key, t in self.tensors.items() if needs(key, self.config)}

    def packings(self, quantization: Quantization | None) -> Packings:
        """Return how its layers are quantized when loaded: as asked for, else as stored."""
        if quantization is None:
            return stored(self.needed)
        return quantization.choose(self.needed, self.component.unquantized)

    def build(self) -> nn.Module:
        """Return its module, without weights."""
        module: nn.Module = self.component.build(self.config)
        return module

    def load(
        self,
        dtype: mx.Dtype,
        quantization: Quantization | None = None,
        *,
        streamed: bool = False,
    ) -> Any:
        """Return its module with weights. Streamed, its blocks stay on disk until they are used."""
        packings = self.packings(quantization)
        return assemble.load(
            self.component, self.build(), self.needed, packings, dtype, streamed=streamed
        )

    def check(self) -> None:
        """Hold the keys, shapes and types in the files against the module's own."""
        try:
            module = self.build()
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:
            raise CheckpointError(
                f"{self.config_file} describes no model that can be built: {error}"
            ) from error
        expected = official_shapes(module)
        if missing := [key for key in expected if key not in self.needed]:
            raise CheckpointError(
                f"{self.folder} lacks {_some(missing)}; "
                "the files are incomplete or of another model"
            )
        if unknown := [key for key in self.needed if key not in expected]:
            raise CheckpointError(
                f"{self.folder} holds {_some(unknown)}, unknown to this model; "
                "the files are of another model, or config.json is"
            )
        for key, tensor in self.needed.items():
            if tensor.shape != expected[key]:
                raise CheckpointError(
                    f"{tensor.where} must have the shape {expected[key]}, not {tensor.shape}; "
                    "the file is of another model, or config.json is"
                )
        for tensor in self.tensors.values():
            if not tensor.readable:
                raise CheckpointError(
                    f"{tensor.where} must be one of {', '.join(FLOATS)}, not {tensor.kind}; "
                    "this kind of file cannot be read yet"
                )


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint: `checkpoint["transformer"]` is one of its components."""

    path: Path  # the source, as it was named
    home: Path  # the folder with the configs, the tokenizer and the scheduler
    components: Mapping[str, StoredComponent]

    @classmethod
    def open(
        cls, path: Path, base: str | Path | None = None, beside: Sequence[Path] = ()
    ) -> "Checkpoint":
        """Open a folder in the official layout, or files that complete themselves from `base`.

        Components in the files `beside` take precedence over those of `path`.
        """
        tensors = _in_files(path, beside)
        home = _home(path, tensors, base)
        components = {}
        for name, component in COMPONENTS.items():
            file = home / name / "config.json"
            if not component.required and name not in tensors and not file.is_file():
                continue
            data = read_json(file)
            held = tensors.get(name)
            if held is None:
                held = read_component(home / name, data, component.names)
            official = component.official(held)
            components[name] = StoredComponent(
                component,
                component.complete(component.read_config(data, str(file)), official),
                official,
                path / name,
                file,
            )
        checkpoint = cls(path, home, components)
        checkpoint._check_widths()
        for stored_component in components.values():
            stored_component.check()
        return checkpoint

    def __getitem__(self, name: str) -> StoredComponent:
        return self.components[name]

    @property
    def text_encoder(self) -> TextEncoderConfig:
        return cast(TextEncoderConfig, self["text_encoder"].config)

    @property
    def transformer(self) -> TransformerConfig:
        return cast(TransformerConfig, self["transformer"].config)

    @property
    def vae(self) -> AutoencoderConfig:
        return cast(AutoencoderConfig, self["vae"].config)

    @property
    def image_multiple(self) -> int:
        """The pixels along the side of one image token: image sides are multiples of it."""
        return self.vae.scale_factor * self.transformer.patch_size

    @property
    def default_side(self) -> int:
        """The side of the picture that it makes unless told otherwise."""
        multiple = self.image_multiple
        return max((self.vae.sample_size or DEFAULT_SIDE) // multiple * multiple, multiple)

    @property
    def quantized(self) -> int | str | None:
        """How most of the transformer is stored, as one would ask for it with `quantize`."""
        packings = Counter(stored(self["transformer"].tensors).values())
        if not packings:
            return None
        (usual, _), *_ = packings.most_common(1)
        return usual.bits if usual.mode == "affine" else usual.mode

    @cached_property
    def identity(self) -> str:
        """A short hash of all weight files."""
        places = (
            t.place[0] for stored in self.components.values() for t in stored.tensors.values()
        )
        return identity(map(Path, places))

    @property
    def scheduler_file(self) -> Path:
        return self.home / "scheduler" / "scheduler_config.json"

    @property
    def tokenizer_folder(self) -> Path:
        return self.home / "tokenizer"

    def _check_widths(self) -> None:
        """Refuse components that cannot work together."""
        transformer, text_encoder, vae = self.transformer, self.text_encoder, self.vae
        if transformer.cap_feat_dim != text_encoder.hidden_size:
            raise CheckpointError(
                f"{self.path}: the transformer takes captions {transformer.cap_feat_dim} wide, the "
                f"text encoder makes them {text_encoder.hidden_size} wide; they are of two models"
            )
        if transformer.in_channels != vae.latent_channels:
            raise CheckpointError(
                f"{self.path}: the transformer has {transformer.in_channels} latent channels, the "
                f"VAE {vae.latent_channels}; they are of two models"
            )


def _in_files(path: Path, beside: Sequence[Path]) -> dict[str, Tensors]:
    """Return the components that do not come from a complete folder in the official layout."""
    configs = {name: path / name / "config.json" for name in COMPONENTS}
    in_layout = [name for name, file in configs.items() if file.is_file()]
    if not in_layout:
        return read_files([path, *beside])
    tensors = read_files(beside)
    absent = {n for n, c in COMPONENTS.items() if c.required and not (path / n).is_dir()}
    if absent - {*tensors}:  # a folder of some components, which a base completes
        for name in [name for name in in_layout if name not in tensors]:
            names = COMPONENTS[name].names
            tensors[name] = read_component(path / name, read_json(configs[name]), names)
    return tensors


def _home(path: Path, tensors: Mapping[str, Tensors], base: str | Path | None) -> Path:
    """Return the folder that configs, tokenizer, scheduler and missing components come from."""
    required = [name for name, component in COMPONENTS.items() if component.required]
    is_home = not tensors or all((path / name / "config.json").is_file() for name in required)
    if is_home:
        if base is not None:
            raise RequestError(f"a base has no effect: {path} has all that is needed")
        return path
    missing = [name for name in required if name not in tensors]
    source = f"{path} holds only {', '.join(sorted(tensors))}; the rest must come from a base"
    try:
        home = locate(base or BASE, weights=missing)
    except ZImageError as error:
        raise CheckpointError(f"{source}: {error}") from error
    if not home.is_dir():
        raise CheckpointError(f"{source} in the official layout, and {home} is not one")
    return home


def official_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the keys and shapes of a module's parameters as the official files have them."""
    parameters = cast(list[tuple[str, mx.array]], tree_flatten(module.parameters()))
    return {key: official_shape(array.shape) for key, array in parameters}


def official_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a weight's shape in its file: convolutions are (out, in, h, w) there."""
    if len(shape) != 4:
        return shape
    out, h, w, channels = shape
    return (out, channels, h, w)


def _some(keys: list[str]) -> str:
    shown = ", ".join(f"'{key}'" for key in keys[:3])
    return f"{shown} and {len(keys) - 3} more tensors" if len(keys) > 3 else f"tensor {shown}"
