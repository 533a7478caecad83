"""The id that a request carries through logs and answers: the client's own if it is one, else a new one."""

from __future__ import annotations

import re
from contextvars import ContextVar
from secrets import token_hex
from typing import Final

# Empty outside of requests.
REQUEST_ID: Final[ContextVar[str]] = ContextVar("request_id", default="")
_GIVEN: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")


def request_id(given: bytes | None) -> str:
    """The value of X-Request-ID if it can stand in a log line as it is; otherwise an id of our own."""
    if given is not None and _GIVEN.fullmatch(given) is not None:
        return given.decode()
    return token_hex(16)
