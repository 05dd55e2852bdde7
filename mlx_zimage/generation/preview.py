"""Previews: small pictures of what a step expects to become, without the VAE.

A linear map from latents to colours costs nothing next to a step. For Flux's VAE it is known; a
checkpoint may bring its own as vae/preview.json; for any other VAE it is fitted once, when the
first preview is asked for. A `TinyFile` of TAEF1 draws better ones, of the full size.
"""

import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import mlx.core as mx
import numpy as np
from PIL import Image

from .. import checks
from ..checkpoint.checkpoint import Checkpoint, official_shapes
from ..checks import path_text
from ..device import give_back
from ..dtypes import DTYPES
from ..errors import CheckpointError, RequestError
from ..files import read_json
from ..images.pixels import to_image
from ..images.preview import FLUX, ColourMap, fit
from ..memory.store import Store
from ..models.autoencoder import Autoencoder, AutoencoderConfig
from ..models.layers.convolution import store_flipped
from ..models.tiny_decoder import FACTOR, TinyDecoder
from ..weights.formats import refuse_pickle
from ..weights.safetensors import FLOATS, Entry, read_header

FILE = "preview.json"
"""A checkpoint's own map, beside its VAE's config."""
FLUX_WIDTHS = (128, 256, 512, 512)
BATCH = 16  # patches that are decoded at once to fit a map


def is_flux(config: AutoencoderConfig) -> bool:
    """Return whether a VAE has the scale, the shift and the widths of Flux's.

    No hash of its weights is compared: one that was trained on from Flux's keeps its latents'
    meaning, and has the same map.
    """
    scales = round(config.scaling_factor, 4), round(config.shift_factor or 0.0, 4)
    widths = config.block_out_channels
    return scales == (0.3611, 0.1159) and config.latent_channels == 16 and widths == FLUX_WIDTHS


@dataclass(frozen=True)
class TinyFile:
    """A checked safetensors file of TAEF1's decoder, whose weights are not read yet."""

    path: Path
    entries: dict[str, Entry]  # by the decoder's keys
    channels: int

    @classmethod
    def open(cls, value: object) -> "TinyFile":
        """Check a file by its header: madebyollin's layout, or diffusers'."""
        path = checks.path("preview_decoder", value)
        name = f"preview_decoder {path_text(path)}"
        if not path.is_file():
            what = "is a folder; name the file in it" if path.is_dir() else "does not exist"
            raise CheckpointError(f"{name} {what}")
        refuse_pickle(path)
        entries = _decoder_keys(read_header(path))
        first = entries.get("layers.0.weight")
        channels = first.shape[1] if first is not None and len(first.shape) == 4 else 16
        expected = official_shapes(TinyDecoder(channels))
        wrong = [
            k for k, shape in expected.items() if k not in entries or entries[k].shape != shape
        ]
        if wrong or len(entries) != len(expected):
            key = next(iter(wrong), next((k for k in entries if k not in expected), ""))
            raise CheckpointError(
                f"{name} is no decoder of TAEF1: its tensor '{key}' is missing, unknown or of "
                "another shape; give taef1_decoder.safetensors, or diffusers' file of "
                "madebyollin/taef1"
            )
        for entry in entries.values():
            if entry.dtype not in FLOATS:
                raise CheckpointError(
                    f"{entry.where} must be one of {', '.join(FLOATS)}, not {entry.dtype}"
                )
        return cls(path, entries, channels)

    def check(self, checkpoint: Checkpoint) -> None:
        """Refuse a model whose latents this decoder cannot read."""
        vae = checkpoint.vae
        if (vae.latent_channels, vae.scale_factor) != (self.channels, FACTOR):
            raise RequestError(
                f"preview_decoder {path_text(self.path)} is for latents of {self.channels} "
                f"channels and {FACTOR} pixels, and this model's have {vae.latent_channels} and "
                f"{vae.scale_factor}"
            )

    def load(self, dtype: mx.Dtype) -> TinyDecoder:
        """Read the weights."""
        model = TinyDecoder(self.channels)
        names = {entry.name: key for key, entry in self.entries.items()}
        first = next(iter(self.entries.values()))
        arrays = first.file.read(self.entries.values())
        turned = [
            (names[n], (a.transpose(0, 2, 3, 1) if a.ndim == 4 else a).astype(dtype))
            for n, a in arrays.items()
        ]
        mx.eval([array for _, array in turned])
        model.load_weights(turned, strict=True)
        store_flipped(model)
        return model


def _decoder_keys(entries: dict[str, Entry]) -> dict[str, Entry]:
    """Return the decoder's tensors by diffusers' keys; its layers lack the flat layout's first."""
    prefix = "decoder."
    if any(key.startswith(prefix) for key in entries):
        return {k.removeprefix(prefix): e for k, e in entries.items() if k.startswith(prefix)}
    keys = {}
    for key, entry in entries.items():
        number, _, rest = key.partition(".")
        keys[f"layers.{int(number) - 1}.{rest}" if number.isdecimal() else key] = entry
    return keys


class Previewer:
    """Draws previews of one model's latents. What it needs is read at the first of them."""

    def __init__(self, checkpoint: Checkpoint, store: Store, tiny: TinyFile | None = None):
        if tiny is not None:
            tiny.check(checkpoint)
        self._checkpoint, self._store, self._tiny = checkpoint, store, tiny
        self._decoder: TinyDecoder | None = None
        self._map: ColourMap | None = None
        self._lock = threading.Lock()

    def draw(self, latents: np.ndarray) -> Image.Image:
        """Return a picture of clean latents (C, h, w) in the sampler's scale."""
        with self._lock:  # a preview may be asked for by another thread than the run's
            if self._tiny is not None:
                if self._decoder is None:
                    self._decoder = self._tiny.load(DTYPES[self._store.dtype])
                return to_image(self._decoder.decode(mx.array(latents[None]))[0])
            if self._map is None:
                self._map = colour_map(self._checkpoint, self._store)
        return self._map.picture(latents, self._checkpoint.vae.scale_factor)

    def clear(self) -> None:
        """Free the decoder's weights; the next preview reads them again."""
        with self._lock:
            self._decoder = None


def colour_map(checkpoint: Checkpoint, store: Store) -> ColourMap:
    """Return the map of a checkpoint's VAE: its own, Flux's, or one that is fitted now."""
    stored = checkpoint["vae"]
    file = stored.config_file.with_name(FILE)
    if file.is_file():
        return ColourMap.from_dict(read_json(file), checkpoint.vae.latent_channels, str(file))
    return FLUX if is_flux(checkpoint.vae) else fitted_map(checkpoint, store)


def fitted_map(checkpoint: Checkpoint, store: Store) -> ColourMap:
    """Fit a map to a VAE. One that no run holds is read for the moment, and freed again."""
    vae = store.get("vae") if "vae" in store else checkpoint["vae"].load(mx.float32)
    colours = fit(partial(_decoded, vae), checkpoint.vae.latent_channels)
    if not store.shares:
        del vae
        give_back()
    return colours


def _decoded(vae: Autoencoder, latents: np.ndarray) -> np.ndarray:
    pixels = []
    for start in range(0, len(latents), BATCH):
        batch = vae.decode(mx.array(latents[start : start + BATCH])).astype(mx.float32)
        pixels.append(np.array(batch))
    return np.concatenate(pixels)
