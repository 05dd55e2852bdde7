"""A cache of prompts' embeddings: the most recently used ones, limited in bytes."""

import threading
from collections import OrderedDict

import mlx.core as mx

ROOM = 64_000_000  # bytes: 24 prompts of the most tokens, at the real width and 16 bit


class Embeddings:
    """The cache of one model, whose weights, dtype and tokenizer never change. Safe in threads.

    Arrays go in and out as new arrays on the same memory, so that a caller who assigns to one
    changes no other.
    """

    def __init__(self, room: int = ROOM):
        self._room = room
        self._arrays: OrderedDict[str, mx.array] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, text: str) -> bool:
        """Whether `get` would return an embedding. Unlike `get`, this does not count as a use."""
        with self._lock:
            return text in self._arrays

    def get(self, text: str) -> mx.array | None:
        """Return a prompt's embedding, or None, and mark it as used."""
        with self._lock:
            if text not in self._arrays:
                return None
            self._arrays.move_to_end(text)
            return mx.array(self._arrays[text])

    def put(self, text: str, embedding: mx.array) -> None:
        """Add an embedding, and drop those not used for longest where room is short."""
        copy = mx.array(embedding)
        mx.eval(copy)  # here, as other threads cannot use this thread's stream
        with self._lock:
            self._arrays[text] = copy
            while sum(array.nbytes for array in self._arrays.values()) > self._room:
                self._arrays.popitem(last=False)

    def clear(self) -> None:
        """Drop all embeddings."""
        with self._lock:
            self._arrays.clear()
