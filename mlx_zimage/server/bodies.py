"""Bodies of requests, read within limits of size and time, and JSON read strictly."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from .failures import Refusal

SECONDS = 60.0
"""The time that a whole body may take: a slow one holds memory and a connection."""
MOST_FILES, MOST_FIELDS = 24, 64
FIELD_BYTES = 256 << 10  # of a form's text


async def read_bytes(request: Request, limit: int) -> bytes:
    """Return a body; one that is larger, slower or packed is refused."""
    pieces: list[bytes] = []
    async for piece in _pieces(request, limit):
        pieces.append(piece)
    return b"".join(pieces)


async def read_json(request: Request, limit: int) -> dict[str, Any]:
    """Return a body that must be one JSON object."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, "the body must be application/json", "unsupported_media_type")
    data = await read_bytes(request, limit)
    return await asyncio.to_thread(parse_json, data) if len(data) > 1 << 16 else parse_json(data)


def parse_json(data: bytes) -> dict[str, Any]:
    """Read a JSON object; NaN, infinities and repeated names are refused."""
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse, object_pairs_hook=_once)
    except RecursionError as error:
        raise _invalid("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise _invalid("it is not UTF-8") from error
    except ValueError as error:
        raise _invalid(str(error)) from error
    if not isinstance(value, dict):
        raise Refusal(400, "the body must be a JSON object", "invalid_json")
    return value


@asynccontextmanager
async def read_form(request: Request, limit: int) -> AsyncIterator[FormData]:
    """Read a multipart form, whose files are closed when the block ends."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise Refusal(415, "the body must be multipart/form-data", "unsupported_media_type")
    parser = MultiPartParser(
        request.headers,
        _pieces(request, limit),
        max_files=MOST_FILES,
        max_fields=MOST_FIELDS,
        max_part_size=FIELD_BYTES,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, HTTPException, KeyError, ValueError) as error:
        text = getattr(error, "message", None) or getattr(error, "detail", None) or str(error)
        raise Refusal(400, f"the form cannot be read: {text}", "invalid_form") from error
    try:
        yield form
    finally:
        await form.close()


async def _pieces(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """Yield a body's bytes as they come."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "the body must not be compressed", "unsupported_encoding")
    declared = request.headers.get("content-length", "0")
    too_large = Refusal(413, f"the body may have at most {limit:,} bytes", "too_large")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
        raise too_large
    size, stream = 0, request.stream()
    deadline = asyncio.get_running_loop().time() + SECONDS
    while True:
        left = deadline - asyncio.get_running_loop().time()
        try:
            piece = await asyncio.wait_for(anext(stream), max(left, 0))
        except StopAsyncIteration:
            return
        except ClientDisconnect:
            raise Refusal(400, "the client left in the middle of the body", "left") from None
        except (asyncio.TimeoutError, TimeoutError):
            raise Refusal(408, "the body came too slowly", "too_slow") from None
        size += len(piece)
        if size > limit:
            raise too_large
        yield piece


def _invalid(why: str) -> Refusal:
    return Refusal(400, f"the body is no valid JSON: {' '.join(why.split())[:200]}", "invalid_json")


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object. Of two values of one name, two readers may each take another."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return value
