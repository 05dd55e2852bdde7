"""Failures as HTTP says them: a status, one sentence, a code; one form for every API."""

import errno
from dataclasses import dataclass
from typing import Any

from .. import (
    CheckpointError,
    DeviceError,
    DownloadError,
    LoraError,
    OutOfMemoryError,
    RequestError,
    ZImageError,
)

NO_RETRY = {"x-should-retry": "false"}
"""A header that OpenAI's clients obey: a retry would draw the picture again."""
BUSY_SECONDS = 10
"""Seconds after which a full queue may be asked again."""


@dataclass
class Refusal(Exception):  # noqa: N818  # an answer, not always a fault
    """An answer other than the one that was asked for."""

    status: int
    message: str
    code: str = ""
    param: str | None = None  # the field of the request that it is about

    def __str__(self) -> str:
        return self.message

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the answer, in OpenAI's form; `detail` is what A1111's clients show."""
        return {"error": self.to_dict(), "detail": self.message}

    def to_dict(self) -> dict[str, Any]:
        return {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code or None,
        }

    @property
    def kind(self) -> str:
        """The error's type in OpenAI's words."""
        if self.status == 429:
            return "rate_limit_error"
        return "server_error" if self.status >= 500 else "invalid_request_error"

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the answer."""
        if self.status == 429:
            return {**NO_RETRY, "Retry-After": str(BUSY_SECONDS)}
        return NO_RETRY if self.status >= 500 or self.status in (408, 409) else {}


KINDS: tuple[tuple[type[BaseException], int, str], ...] = (
    (RequestError, 400, "invalid_value"),
    (OutOfMemoryError, 400, "does_not_fit"),
    (LoraError, 400, "invalid_lora"),
    (CheckpointError, 500, "model_failed"),
    (DownloadError, 500, "model_failed"),
    (DeviceError, 500, "device_failed"),
    (ZImageError, 500, "failed"),
)
"""The status and the code of each error of the library."""


def refusal_of(error: BaseException) -> Refusal:
    """Return the answer for an error of the library, or of the machine."""
    if isinstance(error, Refusal):
        return error
    text = " ".join(str(error).splitlines())
    for kind, status, code in KINDS:
        if isinstance(error, kind):
            return Refusal(status, text, code, _field(text) if kind is RequestError else None)
    if isinstance(error, OSError) and error.strerror:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return Refusal(507 if full else 500, error.strerror, "system_error")
    return Refusal(500, f"unexpected failure: {type(error).__name__}", "internal_error")


def cancelled() -> Refusal:
    """Return the answer for a job that somebody cancelled."""
    return Refusal(409, "the job was cancelled", "cancelled")


def _field(message: str) -> str | None:
    """Return the field that a message about a request begins with."""
    from dataclasses import fields

    from .. import Request

    first = message.split(" ", 1)[0].removesuffix("'s")
    return first if first in {field.name for field in fields(Request)} else None
