"""Drawing many requests: as jobs that are long enough to share loaded components."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from .. import Event, Request, ZImage

TOGETHER = 32
"""Requests of one job. Where memory is staged, a job's pictures are saved at its end."""


def drawn(zimage: ZImage, requests: Sequence[Request]) -> Iterator[Event]:
    """Yield the events of all requests; `job` is the index of an event's request."""
    for start in range(0, len(requests), TOGETHER):
        with closing(zimage.stream_all(requests[start : start + TOGETHER])) as events:
            for event in events:
                yield replace(event, job=event.job + start)
