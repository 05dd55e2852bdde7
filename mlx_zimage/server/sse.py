"""Event streams, as `EventSource` reads them."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from starlette.responses import StreamingResponse

from .feed import BEAT, Happening

ALIVE = ": alive\n\n"
"""A comment, which readers skip."""


def event_stream(happenings: AsyncGenerator[Happening, None]) -> StreamingResponse:
    """Return the response that sends happenings as they come."""
    return text_stream(_texts(happenings))


def text_stream(texts: AsyncIterator[str]) -> StreamingResponse:
    """Return the response that sends an event stream's text."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(texts, media_type="text/event-stream", headers=headers)


async def _texts(happenings: AsyncGenerator[Happening, None]) -> AsyncIterator[str]:
    """Yield each happening as an event's lines."""
    async with aclosing(happenings) as opened:
        async for happening in opened:
            if happening.type == BEAT:
                yield ALIVE
                continue
            data = json.dumps(happening.data, ensure_ascii=False)
            yield f"id: {happening.number}\nevent: {happening.type}\ndata: {data}\n\n"
