"""Latents and captions of a training run, computed once and kept on disk.

Each is a file named by what it depends on: the picture's bytes or the text, the size, the model's
weights and the type computed in. A run that is resumed, or begins anew for the same file, encodes
nothing again, and the VAE and the text encoder are dropped before training begins.
"""

import hashlib
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ..checks import path_text
from ..errors import RequestError
from ..files import write_atomically
from ..memory.store import Store
from ..prompt.tokenizer import PromptTokenizer
from .events import Encoded
from .pictures import Example


@dataclass(frozen=True)
class Prepared:
    """A folder of latents and captions of one model."""

    folder: Path
    model: str  # its identity, and the type it computes in

    def latents(self, example: Example) -> np.ndarray:
        """Return a picture's latents (C, h, w), the mean of the VAE's distribution, in float32."""
        return self._read(self._picture(example))

    def caption(self, text: str) -> mx.array:
        """Return a caption's embedding (length, width), in float32."""
        return mx.array(self._read(self._text(text)))

    def encode(
        self,
        examples: Sequence[Example],
        captions: Sequence[str],
        store: Store,
        tokenizer: PromptTokenizer,
        limit: int,
    ) -> Generator[Encoded, None, None]:
        """Write what is not there yet, as events."""
        files = {self._picture(example): example for example in examples}
        new = {file: example for file, example in files.items() if not file.is_file()}
        if new:
            vae = store.get("vae")
            for number, (file, example) in enumerate(new.items(), 1):
                unit = np.asarray(example.read(), np.float32) / np.float32(255)
                latents = vae.encode(mx.array(np.float32(2) * unit - np.float32(1))[None])
                self._write(file, latents[0])
                yield Encoded("pictures", number, len(new))
            del vae, latents
            store.release()
        texts = {self._text(text): text for text in captions}
        absent = {file: text for file, text in texts.items() if not file.is_file()}
        if absent:
            encoder = store.get("text_encoder")
            for number, (file, text) in enumerate(absent.items(), 1):
                ids = tokenizer.turn(text, limit).ids
                self._write(file, encoder(mx.array([ids]))[0])
                yield Encoded("captions", number, len(absent))
            del encoder
            store.release()

    def _picture(self, example: Example) -> Path:
        return self._place("latents", example.digest, *map(str, example.size))

    def _text(self, text: str) -> Path:
        return self._place("caption", text)

    def _place(self, *parts: str) -> Path:
        key = hashlib.sha256(json.dumps([self.model, *parts]).encode()).hexdigest()[:32]
        return self.folder / f"{key}.safetensors"

    def _write(self, file: Path, array: mx.array) -> None:
        values = np.array(array.astype(mx.float32))
        if not np.isfinite(values).all():
            raise RequestError("the model encodes to numbers that are not finite; use float32")
        data = save({"values": values})
        write_atomically(file, lambda out: out.write(data), overwrite=True)

    def _read(self, file: Path) -> np.ndarray:
        try:
            return load_file(file)["values"]
        except (OSError, KeyError, SafetensorError) as error:
            raise RequestError(
                f"{path_text(file)} cannot be read; remove it, and resume the run"
            ) from error
