"""Feeds: what slow followers lose, and what they never lose."""

import asyncio
from typing import Any

import pytest

from mlx_zimage.server import feed
from mlx_zimage.server.feed import BACKLOG, BEAT, MOST, Feed, Follower, Happening


def _happening(number: int, type: str, **data: Any) -> Happening:
    return Happening(number, type, data)


def test_a_slow_follower_loses_older_steps_alone() -> None:
    async def read() -> list[Happening]:
        everything = Feed()
        follower = everything.join()
        for number in range(1000):
            everything.put(_happening(number, "step", job="a", reached=number))
            if number % 100 == 0:
                everything.put(_happening(number, "state", job="a"))
        follower.end()
        return [happening async for happening in follower.read()]

    happenings = asyncio.run(read())
    assert len([h for h in happenings if h.type == "state"]) == 10
    steps = [h.data["reached"] for h in happenings if h.type == "step"]
    assert steps[-1] == 999
    assert len(steps) <= BACKLOG
    assert [h.number for h in happenings] == sorted(h.number for h in happenings)


def test_steps_of_another_job_stay() -> None:
    async def read() -> list[Happening]:
        follower = Follower()
        follower.put(_happening(0, "step", job="b"))
        for number in range(1, 200):
            follower.put(_happening(number, "step", job="a"))
        follower.end()
        return [happening async for happening in follower.read()]

    assert [h.data["job"] for h in asyncio.run(read())].count("b") == 1


def test_a_follower_that_never_reads_is_cut_off() -> None:
    async def read() -> list[Happening]:
        everything = Feed()
        follower = everything.join()
        for number in range(MOST + 2):
            everything.put(_happening(number, "state", job=str(number)))
        return [happening async for happening in follower.read()]

    assert asyncio.run(read()) == []  # it ends at once; its memory is free


def test_a_quiet_stream_shows_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "BEAT_SECONDS", 0.001)

    async def read() -> list[str]:
        follower = Follower()
        types = []
        async for happening in follower.read(beats=True):
            types.append(happening.type)
            if len(types) == 2:
                follower.put(_happening(1, "state"))
                follower.end()
        return types

    assert asyncio.run(read()) == [BEAT, BEAT, "state"]
