"""A checkpoint in the official folder layout: checked when opened, loaded part by part.

Opening reads the configs and the headers of the weight files, so that a folder that lacks a shard,
a key or a config field fails at once, before a weight is read. Loading streams: one tensor at a
time is cast, turned and quantized, and what it came from is dropped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, cast

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from ..errors import CheckpointError
from ..models.autoencoder import Autoencoder, AutoencoderConfig
from ..models.text_encoder import TextEncoder, TextEncoderConfig, needed_for_encoding
from ..models.transformer import TransformerConfig, ZImageTransformer
from .quantize import Quantization
from .shards import FLOATS, Entry, find_weights, read_arrays, read_json

Part = Literal["text_encoder", "transformer", "vae"]
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Checkpoint:
    path: Path
    text_encoder: TextEncoderConfig
    transformer: TransformerConfig
    vae: AutoencoderConfig
    weights: dict[Part, dict[str, Entry]]  # only what a generation needs

    @classmethod
    def open(cls, path: Path) -> "Checkpoint":
        if not path.is_dir():
            raise CheckpointError(
                f"a checkpoint must be a folder in the official layout, and {path} is none"
            )
        text_encoder = TextEncoderConfig.from_dict(*_config(path, "text_encoder"))
        transformer = TransformerConfig.from_dict(*_config(path, "transformer"))
        vae = AutoencoderConfig.from_dict(*_config(path, "vae"))
        if transformer.cap_feat_dim != text_encoder.hidden_size:
            raise CheckpointError(
                f"{path}: the transformer takes captions {transformer.cap_feat_dim} wide, the "
                f"text encoder makes them {text_encoder.hidden_size} wide; they are of two models"
            )
        if transformer.in_channels != vae.latent_channels:
            raise CheckpointError(
                f"{path}: the transformer has {transformer.in_channels} latent channels, the VAE "
                f"{vae.latent_channels}; they are of two models"
            )
        encoder_weights = _prefixed(find_weights(path / "text_encoder"))
        weights: dict[Part, dict[str, Entry]] = {
            "text_encoder": {
                key: entry
                for key, entry in encoder_weights.items()
                if needed_for_encoding(key, text_encoder)
            },
            "transformer": find_weights(path / "transformer"),
            "vae": find_weights(path / "vae"),
        }
        checkpoint = cls(path, text_encoder, transformer, vae, weights)
        checkpoint._check("text_encoder", lambda: TextEncoder(text_encoder))
        checkpoint._check("transformer", lambda: ZImageTransformer(transformer))
        checkpoint._check("vae", lambda: Autoencoder(vae))
        return checkpoint

    @property
    def image_multiple(self) -> int:
        """Image sides must be divisible by it."""
        return self.vae.scale_factor * self.transformer.patch_size

    @property
    def scheduler_file(self) -> Path:
        return self.path / "scheduler" / "scheduler_config.json"

    @property
    def tokenizer_folder(self) -> Path:
        return self.path / "tokenizer"

    def load_text_encoder(self, dtype: mx.Dtype, quantization: Quantization | None) -> TextEncoder:
        model = _built(lambda: TextEncoder(self.text_encoder), quantization)
        return self._fill("text_encoder", model, dtype, quantization)

    def load_transformer(
        self, dtype: mx.Dtype, quantization: Quantization | None
    ) -> ZImageTransformer:
        model = _built(lambda: ZImageTransformer(self.transformer), quantization)
        return self._fill("transformer", model, dtype, quantization)

    def load_vae(self, dtype: mx.Dtype) -> Autoencoder:
        return self._fill("vae", _built(lambda: Autoencoder(self.vae)), dtype, None)

    def check_quantizable(self, quantization: Quantization) -> None:
        """Refuse widths that do not fit, before a weight is read."""
        _built(lambda: TextEncoder(self.text_encoder), quantization)
        _built(lambda: ZImageTransformer(self.transformer), quantization)

    def size(self, part: Part, dtype: mx.Dtype, quantization: Quantization | None) -> int:
        """Bytes the part takes in memory once loaded, to within the quantization's exceptions."""
        count = sum(entry.count for entry in self.weights[part].values())
        bits = 8.0 * dtype.size
        if quantization is not None and part != "vae":
            bits = quantization.bits_per_weight
        return int(count * bits / 8)

    def _fill(
        self, part: Part, model: Model, dtype: mx.Dtype, quantization: Quantization | None
    ) -> Model:
        filled: list[tuple[str, mx.array]] = []
        for key, array in read_arrays(self.weights[part]):
            turned = _turned(array.astype(dtype))
            tensors = quantization.pack(model, key, turned) if quantization else [(key, turned)]
            mx.eval([value for _, value in tensors])
            filled += tensors
        model.load_weights(filled, strict=True)
        return model

    def _check(self, part: Part, build: Callable[[], nn.Module]) -> None:
        """The keys, shapes and types in the files against the model's own."""
        try:
            model = _built(build)
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:
            file = self.path / part / "config.json"
            raise CheckpointError(
                f"{file} describes no model that can be built: {error}"
            ) from error
        parameters = cast(list[tuple[str, mx.array]], tree_flatten(model.parameters()))
        expected = {key: _official(value.shape) for key, value in parameters}
        folder, found = self.path / part, self.weights[part]
        if missing := [key for key in expected if key not in found]:
            raise CheckpointError(
                f"{folder} lacks {_some(missing)}; the files are incomplete or of another model"
            )
        if unknown := [key for key in found if key not in expected]:
            raise CheckpointError(
                f"{folder} holds {_some(unknown)}, unknown to this model; "
                "the files are of another model, or config.json is"
            )
        for key, entry in found.items():
            if entry.shape != expected[key]:
                raise CheckpointError(
                    f"{entry.file}: tensor '{key}' must have the shape {expected[key]}, "
                    f"not {entry.shape}; the file is of another model, or config.json is"
                )
            if entry.dtype not in FLOATS:
                raise CheckpointError(
                    f"{entry.file}: tensor '{key}' must be one of {', '.join(FLOATS)}, "
                    f"not {entry.dtype}; this kind of file cannot be read yet"
                )


def _built(build: Callable[[], Model], quantization: Quantization | None = None) -> Model:
    """A model whose weights are still to come."""
    model = build()
    if quantization is not None:
        quantization.prepare(model)
    return model


def _config(path: Path, part: Part) -> tuple[dict[str, object], str]:
    file = path / part / "config.json"
    return read_json(file), str(file)


def _prefixed(entries: dict[str, Entry]) -> dict[str, Entry]:
    """Text encoders saved without their language-model shell lack the official prefix."""
    if any(key.startswith("model.") for key in entries):
        return entries
    return {f"model.{key}": entry for key, entry in entries.items()}


def _turned(array: mx.array) -> mx.array:
    """Convolutions: (out, in, h, w) in files, (out, h, w, in) in MLX."""
    return mx.contiguous(array.transpose(0, 2, 3, 1)) if array.ndim == 4 else array


def _official(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in the file of a weight that has `shape` in MLX."""
    if len(shape) != 4:
        return shape
    out, h, w, channels = shape
    return (out, channels, h, w)


def _some(keys: list[str]) -> str:
    shown = ", ".join(f"'{key}'" for key in keys[:3])
    return f"{shown} and {len(keys) - 3} more tensors" if len(keys) > 3 else f"tensor {shown}"
