"""The cache of prompts' embeddings."""

import mlx.core as mx

from mlx_zimage.prompt.embeddings import Embeddings


def test_the_least_recently_used_make_room() -> None:
    cache = Embeddings(room=1000)
    for text in "abc":
        cache.put(text, mx.zeros((10, 10)))  # 400 bytes each
    assert [cache.get(text) is None for text in "abc"] == [True, False, False]
    assert cache.get("b") is not None
    cache.put("d", mx.zeros((10, 10)))
    assert [cache.get(text) is None for text in "bcd"] == [False, True, False]
    cache.put("e", mx.zeros((100, 10)))  # larger than all the room
    assert [cache.get(text) is None for text in "bcde"] == [True] * 4
    cache.put("f", mx.zeros((10, 10)))
    cache.clear()
    assert cache.get("f") is None


def test_asking_what_is_there_is_no_use() -> None:
    cache = Embeddings(room=1000)
    cache.put("a", mx.zeros((10, 10)))
    cache.put("b", mx.zeros((10, 10)))
    assert "a" in cache
    assert "c" not in cache
    cache.put("c", mx.zeros((10, 10)))
    assert "a" not in cache


def test_assigning_to_a_returned_array_changes_no_other() -> None:
    cache = Embeddings()
    array = mx.zeros((2, 2))
    cache.put("a", array)
    array[:] = 1
    first = cache.get("a")
    assert first is not None
    first[:] = 2
    second = cache.get("a")
    assert second is not None
    assert second.tolist() == [[0, 0], [0, 0]]
