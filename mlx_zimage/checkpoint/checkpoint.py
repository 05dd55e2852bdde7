"""A checkpoint in the official folder layout: checked when opened, loaded part by part.

Opening reads the configs and the headers of the weight files, so that a folder that lacks a shard,
a key or a config field fails at once, before a weight is read. Loading streams: one tensor at a
time is cast, turned and quantized, and what it came from is dropped.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from ..errors import CheckpointError, RequestError, ZImageError
from ..files import read_json
from ..hub.locate import locate
from ..models.autoencoder import Autoencoder, AutoencoderConfig
from ..models.text_encoder import TextEncoder, TextEncoderConfig, needed_for_encoding
from ..models.transformer import ZImageTransformer
from ..models.transformer_config import TransformerConfig
from ..quantization.recipe import Packings, Quantization, pack, prepare, stored
from ..weights.formats import read_files
from ..weights.safetensors import FLOATS, find_weights, tensors
from ..weights.tensor import BATCH, PARTS, Packing, Part, Tensor
from .streaming import BLOCKS, EMBEDDING, Streamed, StreamedEmbedding, put, take_blocks

BASE = "turbo"
"""Where files that are not a whole checkpoint have the rest from, unless told."""
DEFAULT_SIDE = 1024  # pixels, where the VAE's config does not say what it was made for

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Checkpoint:
    path: Path
    home: Path  # the folder with the configs, the tokenizer and the scheduler
    text_encoder: TextEncoderConfig
    transformer: TransformerConfig
    vae: AutoencoderConfig
    weights: dict[Part, dict[str, Tensor]]

    @classmethod
    def open(
        cls, path: Path, base: str | Path | None = None, beside: Sequence[Path] = ()
    ) -> "Checkpoint":
        """A folder in the official layout; or other files, that have what they lack from `base`.

        The parts in the files `beside` go before those of a folder.
        """
        found = _given(path, beside)
        lacking = [part for part in PARTS if part not in found]
        is_home = not found or all((path / part / "config.json").is_file() for part in PARTS)
        if is_home and base is not None:
            raise RequestError(f"a base has no effect: {path} has all that is needed")
        home = path if is_home else _base(path, lacking, base or BASE)
        configs = {part: read_json(home / part / "config.json") for part in PARTS}
        where = {part: str(home / part / "config.json") for part in PARTS}
        text_encoder = TextEncoderConfig.from_dict(configs["text_encoder"], where["text_encoder"])
        transformer = TransformerConfig.from_dict(configs["transformer"], where["transformer"])
        vae = AutoencoderConfig.from_dict(configs["vae"], where["vae"])
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
        weights: dict[Part, dict[str, Tensor]] = {
            part: found.get(part) or tensors(find_weights(home / part), configs[part])
            for part in PARTS
        }
        weights["text_encoder"] = _prefixed(weights["text_encoder"])
        checkpoint = cls(path, home, text_encoder, transformer, vae, weights)
        for part in PARTS:
            checkpoint._check(part)
        return checkpoint

    @property
    def image_multiple(self) -> int:
        """Image sides must be divisible by it."""
        return self.vae.scale_factor * self.transformer.patch_size

    @property
    def default_side(self) -> int:
        """Of the picture that it makes when not told otherwise."""
        multiple = self.image_multiple
        return max((self.vae.sample_size or DEFAULT_SIDE) // multiple * multiple, multiple)

    @property
    def quantized(self) -> int | str | None:
        """What most of the transformer is stored as, in the words one asks for it in."""
        packings = Counter(stored(self.weights["transformer"]).values())
        if not packings:
            return None
        (usual, _), *_ = packings.most_common(1)
        return usual.bits if usual.mode == "affine" else usual.mode

    @property
    def scheduler_file(self) -> Path:
        return self.home / "scheduler" / "scheduler_config.json"

    @property
    def tokenizer_folder(self) -> Path:
        return self.home / "tokenizer"

    def load_text_encoder(
        self, dtype: mx.Dtype, quantization: Quantization | None, *, streamed: bool = False
    ) -> TextEncoder:
        """`streamed`: blocks and embeddings stay on disk until they are used, as in the next."""
        model = TextEncoder(self.text_encoder)
        return self._load("text_encoder", model, dtype, quantization, streamed)

    def load_transformer(
        self, dtype: mx.Dtype, quantization: Quantization | None, *, streamed: bool = False
    ) -> ZImageTransformer:
        model = ZImageTransformer(self.transformer)
        return self._load("transformer", model, dtype, quantization, streamed)

    def load_vae(self, dtype: mx.Dtype) -> Autoencoder:
        return self._load("vae", Autoencoder(self.vae), dtype, None)

    def needed(self, part: Part) -> dict[str, Tensor]:
        """What a generation uses of the part."""
        found = self.weights[part]
        if part == "text_encoder":
            return {k: t for k, t in found.items() if needed_for_encoding(k, self.text_encoder)}
        return found

    def packings(self, part: Part, quantization: Quantization | None) -> Packings:
        """As asked for, else as the files have them."""
        if quantization is None:
            return stored(self.needed(part))
        return quantization.choose(part, self.needed(part))

    def _empty(self, part: Part) -> nn.Module:
        """The part's model, without its weights."""
        if part == "text_encoder":
            return TextEncoder(self.text_encoder)
        return (
            ZImageTransformer(self.transformer) if part == "transformer" else Autoencoder(self.vae)
        )

    def _load(
        self,
        part: Part,
        model: Model,
        dtype: mx.Dtype,
        quantization: Quantization | None,
        streamed: bool = False,
    ) -> Model:
        packings = self.packings(part, quantization)
        prepare(model, packings)
        left = dict(self.needed(part))
        later: dict[str, Any] = {}  # what takes the place of blocks, by path
        for path in BLOCKS[part] if streamed else ():
            later[path] = []
            for number, block in enumerate(take_blocks(model, path)):
                own = f"{path}.{number}."
                mine = {key: left.pop(key) for key in [*left] if key.startswith(own)}
                read = partial(_filled, mine, packings, dtype, own)
                later[path].append(Streamed(block, read))
        if streamed and EMBEDDING in left:
            path = EMBEDDING.removesuffix(".weight")
            later[path] = StreamedEmbedding(left.pop(EMBEDDING), packings.get(path), dtype)
            put(model, path, nn.Identity())
        model.load_weights(_filled(left, packings, dtype), strict=True)
        for path, value in later.items():
            put(model, path, value)
        return model

    def _check(self, part: Part) -> None:
        """The keys, shapes and types in the files against the model's own."""
        try:
            model = self._empty(part)
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:
            file = self.home / part / "config.json"
            raise CheckpointError(
                f"{file} describes no model that can be built: {error}"
            ) from error
        parameters = cast(list[tuple[str, mx.array]], tree_flatten(model.parameters()))
        expected = {key: official_shape(value.shape) for key, value in parameters}
        folder, found = self.path / part, self.needed(part)
        if missing := [key for key in expected if key not in found]:
            raise CheckpointError(
                f"{folder} lacks {_some(missing)}; the files are incomplete or of another model"
            )
        if unknown := [key for key in found if key not in expected]:
            raise CheckpointError(
                f"{folder} holds {_some(unknown)}, unknown to this model; "
                "the files are of another model, or config.json is"
            )
        for key, tensor in found.items():
            if tensor.shape != expected[key]:
                raise CheckpointError(
                    f"{tensor.where} must have the shape {expected[key]}, not {tensor.shape}; "
                    "the file is of another model, or config.json is"
                )
        for tensor in self.weights[part].values():
            if not tensor.readable:
                raise CheckpointError(
                    f"{tensor.where} must be one of {', '.join(FLOATS)}, not {tensor.kind}; "
                    "this kind of file cannot be read yet"
                )


def _filled(
    tensors: Mapping[str, Tensor],
    packings: Packings,
    dtype: mx.Dtype,
    prefix: str = "",
    wanted: Callable[[str], bool] = lambda key: True,
) -> list[tuple[str, mx.array]]:
    """Read in the files' order, some side by side; keys without `prefix`."""
    filled: list[tuple[str, mx.array]] = []
    left = {key: tensor for key, tensor in tensors.items() if wanted(key)}
    for some in _batches(left):
        _read_ahead(some, packings, dtype)
        for key, tensor in some.items():
            path = key.removesuffix(".weight")
            if path in packings:
                made = _packed(path, tensor, packings[path], dtype)
            else:
                made = [(key, _turned(tensor.read().astype(dtype)))]
            mx.eval([array for _, array in made])
            filled += made
    return [(key.removeprefix(prefix), array) for key, array in filled]


def _batches(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    some: dict[str, Tensor] = {}
    for key, tensor in sorted(tensors.items(), key=lambda item: item[1].place):
        if some and sum(t.count for t in some.values()) + tensor.count > BATCH:
            yield some
            some = {}
        some[key] = tensor
    yield some


def _read_ahead(tensors: Mapping[str, Tensor], packings: Packings, dtype: mx.Dtype) -> None:
    """Those that stay as they are stored, so that no more is in memory than will be. What goes
    wrong here is told when each is read."""

    def stays(key: str, tensor: Tensor) -> bool:
        packing = packings.get(key.removesuffix(".weight"))
        cast = packing is None and FLOATS.get(tensor.kind) != dtype
        return tensor.packing == packing and not cast

    staying = [tensor for key, tensor in tensors.items() if stays(key, tensor)]
    with suppress(RuntimeError):
        mx.eval([array for tensor in staying for array in tensor.ahead()])


def _packed(
    path: str, tensor: Tensor, packing: Packing, dtype: mx.Dtype
) -> list[tuple[str, mx.array]]:
    """Quantized piece by piece: the whole of its numbers is never in memory."""
    pieces: list[list[mx.array]] = []
    for start, stop in [(0, tensor.shape[0])] if tensor.packing == packing else tensor.spans():
        pieces.append(pack(tensor, packing, dtype, start, stop))
        mx.eval(pieces[-1])
    filled = []
    for name, arrays in zip(packing.names, zip(*pieces, strict=True), strict=True):
        whole = mx.concatenate(list(arrays)) if len(arrays) > 1 else arrays[0]
        cast = whole.astype(dtype) if whole.dtype in FLOATS.values() else whole
        filled.append((f"{path}.{name}", cast))
    return filled


def _given(path: Path, beside: Sequence[Path]) -> dict[Part, dict[str, Tensor]]:
    """The parts that do not come from a folder with all three: from files, or from its own few."""
    there = [part for part in PARTS if (path / part / "config.json").is_file()]
    lacking = [part for part in PARTS if not (path / part).is_dir()]
    found = read_files(beside if there else [path, *beside])
    if there and {*lacking} - {*found}:
        for part in [part for part in there if part not in found]:
            config = read_json(path / part / "config.json")
            found[part] = tensors(find_weights(path / part), config)
    return found


def _base(path: Path, lacking: Sequence[Part], base: str | Path) -> Path:
    """Where configs, tokenizer, scheduler and missing parts come from."""
    held = ", ".join(part for part in PARTS if part not in lacking)
    needed = f"{path} holds {held} alone; the rest must come from a base"
    try:
        home = locate(base, parts=lacking)
    except ZImageError as error:
        raise CheckpointError(f"{needed}: {error}") from error
    if not home.is_dir():
        raise CheckpointError(f"{needed} in the official layout, and {home} is none")
    return home


def _prefixed(entries: dict[str, Tensor]) -> dict[str, Tensor]:
    """Text encoders saved without their language-model shell lack the official prefix."""
    if any(key.startswith("model.") for key in entries):
        return entries
    return {f"model.{key}": entry for key, entry in entries.items()}


def _turned(array: mx.array) -> mx.array:
    """Convolutions: (out, in, h, w) in files, (out, h, w, in) in MLX."""
    return mx.contiguous(array.transpose(0, 2, 3, 1)) if array.ndim == 4 else array


def official_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in the file of a weight that has `shape` in MLX."""
    if len(shape) != 4:
        return shape
    out, h, w, channels = shape
    return (out, channels, h, w)


def _some(keys: list[str]) -> str:
    shown = ", ".join(f"'{key}'" for key in keys[:3])
    return f"{shown} and {len(keys) - 3} more tensors" if len(keys) > 3 else f"tensor {shown}"
