"""A cache of prompts' embeddings: the most recently used ones, limited in bytes."""

import threading
from collections import OrderedDict
from copy import copy

import mlx.core as mx

ROOM = 64_000_000  # bytes: 24 prompts of the most tokens, at the real width and 16 bit


class Embeddings:
    """The cache of one model, whose weights, dtype and tokenizer never change. Safe in threads.

    Where LoRAs change the text encoder, each choice of them is a key, with embeddings of its own.

    Arrays go in and out as new arrays on the same memory, so that a caller who assigns to one
    changes no other.
    """

    def __init__(self, room: int = ROOM):
        self._room = room
        self._key = ""
        self._arrays: OrderedDict[tuple[str, str], mx.array] = OrderedDict()
        self._lock = threading.Lock()

    def under(self, key: str) -> "Embeddings":
        """Return the same cache, of another text encoder."""
        view = copy(self)
        view._key = key
        return view

    def __contains__(self, text: str) -> bool:
        """Whether `get` would return an embedding. Unlike `get`, this does not count as a use."""
        with self._lock:
            return (self._key, text) in self._arrays

    def get(self, text: str) -> mx.array | None:
        """Return a prompt's embedding, or None, and mark it as used."""
        with self._lock:
            if (self._key, text) not in self._arrays:
                return None
            self._arrays.move_to_end((self._key, text))
            return mx.array(self._arrays[self._key, text])

    def put(self, text: str, embedding: mx.array) -> None:
        """Add an embedding, and drop those not used for longest where room is short."""
        stored = mx.array(embedding)
        mx.eval(stored)  # here, as other threads cannot use this thread's stream
        with self._lock:
            self._arrays[self._key, text] = stored
            while sum(array.nbytes for array in self._arrays.values()) > self._room:
                self._arrays.popitem(last=False)

    def clear(self) -> None:
        """Drop all embeddings."""
        with self._lock:
            self._arrays.clear()
