"""What prompts were encoded to: the last ones, up to so many bytes."""

import threading
from collections import OrderedDict

import mlx.core as mx

ROOM = 64_000_000  # bytes: 24 prompts of the most tokens, at the real width and 16 bit


class Embeddings:
    """By prompt. One model's own: its weights, their type and its tokenizer never change.

    Arrays go in and out as others on the same memory, so that assigning to one changes no other.
    """

    def __init__(self, room: int = ROOM):
        self._room = room
        self._kept: OrderedDict[str, mx.array] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, text: str) -> mx.array | None:
        with self._lock:
            if text not in self._kept:
                return None
            self._kept.move_to_end(text)
            return mx.array(self._kept[text])

    def put(self, text: str, embedding: mx.array) -> None:
        """The ones not asked for longest make room."""
        own = mx.array(embedding)
        mx.eval(own)  # on this thread's stream, which others do not have
        with self._lock:
            self._kept[text] = own
            while sum(kept.nbytes for kept in self._kept.values()) > self._room:
                self._kept.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
