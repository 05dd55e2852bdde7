"""The encode phase: prompts become captions, each distinct prompt once."""

import sys
import time
import warnings
from collections.abc import Generator, Sequence
from pathlib import Path

import mlx.core as mx

from ..events import Event, Finished, Started, Truncated
from ..memory.store import Store
from ..prompt.embeddings import Embeddings
from .load import load
from .run import Run

PACKAGE = str(Path(__file__).parents[1])


class PromptTruncatedWarning(UserWarning):
    """A prompt was longer than the model takes, and its end was ignored."""


def encode(
    runs: Sequence[Run], store: Store, embeddings: Embeddings
) -> Generator[Event, None, dict[str, mx.array]]:
    """Return the caption (length, width) of every prompt of these runs."""
    captions: dict[str, mx.array] = {}
    encoder = None
    for job, run in enumerate(runs):
        yield from _truncations(run, job)
        for text in run.tokens:
            if text not in captions and (caption := embeddings.get(text)) is not None:
                captions[text] = caption
        missing = [text for text in run.tokens if text not in captions]
        if not missing:
            continue
        if encoder is None:
            encoder = yield from load(store, "text_encoder", job)
        started = time.perf_counter()
        yield Started("encode", job=job)
        for text in missing:
            captions[text] = encoder(mx.array([run.tokens[text].ids]))[0]
            mx.eval(captions[text])
            embeddings.put(text, captions[text])
        yield Finished("encode", time.perf_counter() - started, job=job)
    if encoder is not None:
        del encoder
        store.release()
    return captions


def _truncations(run: Run, job: int) -> Generator[Event, None, None]:
    for tokens in run.tokens.values():
        if tokens.lost:
            event = Truncated(tokens.lost, len(tokens.ids), job)
            warnings.warn(event.message, PromptTruncatedWarning, _caller_level())
            yield event


def _caller_level() -> int:
    """Return the stack level of the first frame outside the package, for `warnings.warn`."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        level, frame = level + 1, frame.f_back
    return level
