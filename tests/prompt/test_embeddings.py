"""Prompts' embeddings are kept, the last ones up to so many bytes."""

import mlx.core as mx

from mlx_zimage.prompt.embeddings import Embeddings


def test_the_ones_not_asked_for_make_room() -> None:
    kept = Embeddings(room=1000)
    for text in "abc":
        kept.put(text, mx.zeros((10, 10)))  # 400 bytes each
    assert [kept.get(text) is None for text in "abc"] == [True, False, False]
    assert kept.get("b") is not None
    kept.put("d", mx.zeros((10, 10)))
    assert [kept.get(text) is None for text in "bcd"] == [False, True, False]
    kept.put("e", mx.zeros((100, 10)))  # larger than all the room
    assert [kept.get(text) is None for text in "bcde"] == [True] * 4
    kept.put("f", mx.zeros((10, 10)))
    kept.clear()
    assert kept.get("f") is None
