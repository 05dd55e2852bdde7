"""Feeds: happenings handed to any number of followers, none of which can hold up another.

Everything here belongs to the event loop.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

BACKLOG = 32
"""Happenings that wait for a slow follower before older steps are dropped."""
MOST = 2048
"""Happenings that wait for a follower before it is cut off; it may come back for a snapshot."""
BEAT_SECONDS = 15.0
"""Seconds after which a quiet stream shows that it lives."""
BEAT = "beat"


@dataclass(frozen=True)
class Happening:
    """Something that happened, as plain data."""

    number: int
    type: str
    data: dict[str, Any]


class Follower:
    """One reader of a feed, with what it has not read yet."""

    def __init__(self) -> None:
        self._waiting: deque[Happening] = deque()
        self._news = asyncio.Event()
        self._ended = False

    def put(self, happening: Happening) -> None:
        """Add a happening. A slow reader loses the steps that newer ones supersede."""
        if self._ended:
            return
        if len(self._waiting) >= BACKLOG and happening.type == "step":
            job = happening.data.get("job")
            kept = [h for h in self._waiting if h.type != "step" or h.data.get("job") != job]
            self._waiting = deque(kept)
        self._waiting.append(happening)
        if len(self._waiting) > MOST:
            self._waiting.clear()
            self._ended = True
        self._news.set()

    def end(self) -> None:
        """Let the reader read what waits, and then end."""
        self._ended = True
        self._news.set()

    async def read(self, *, beats: bool = False) -> AsyncGenerator[Happening, None]:
        """Yield what happens to the end; with `beats`, also that nothing did for a while."""
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self._ended:
                return
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), BEAT_SECONDS if beats else None)
            except (asyncio.TimeoutError, TimeoutError):
                yield Happening(0, BEAT, {})


class Feed:
    """Followers of one job, or of everything."""

    def __init__(self) -> None:
        self._followers: set[Follower] = set()

    def __len__(self) -> int:
        return len(self._followers)

    def join(self) -> Follower:
        follower = Follower()
        self._followers.add(follower)
        return follower

    def leave(self, follower: Follower) -> None:
        self._followers.discard(follower)

    def put(self, happening: Happening) -> None:
        for follower in self._followers:
            follower.put(happening)

    def end(self) -> None:
        for follower in self._followers:
            follower.end()
