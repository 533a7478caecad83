"""How an application is served: values, not settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ssl import SSLContext

DRAIN_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Manner:
    """`drain_seconds` is what requests under way have when the server stops; `h2c` is HTTP/2 without TLS."""

    drain_seconds: float = DRAIN_SECONDS
    tls: SSLContext | None = None
    h2c: bool = False
