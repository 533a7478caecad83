"""What becomes of every request when it is over: it is counted, and told to the access log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.runtime import logs
from app.runtime.request_ids import REQUEST_ID, request_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from app.runtime.metrics import Metrics


class Observer:
    """Gives requests their ids and tells metrics and access log about them. `scope` is an ASGI HTTP scope."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def began(self, scope: Mapping[str, Any]) -> str:
        """A request has come. Returns its id, which everything logged on its behalf carries from here on."""
        identifier = request_id(_header(scope["headers"], b"x-request-id"))
        REQUEST_ID.set(identifier)
        return identifier

    def ended(
        self,
        scope: Mapping[str, Any],
        *,
        route: str,
        status: int,
        seconds: float,
        received: int,
        sent: int,
    ) -> None:
        """It is over. `received` and `sent` are the bodies' bytes."""
        self._metrics.request(route, scope["method"], status, seconds, received, sent)
        if logs.access_wanted():
            logs.access(_entry(scope, status, seconds, sent))


def _entry(scope: Mapping[str, Any], status: int, seconds: float, sent: int) -> logs.Access:
    headers = scope["headers"]
    client = scope.get("client")
    return logs.Access(
        request_id=REQUEST_ID.get(),
        method=scope["method"],
        path=_target(scope),
        protocol=f"HTTP/{scope['http_version']}",
        status=status,
        sent=sent,
        seconds=seconds,
        client=client[0] if client else "",
        agent=(_header(headers, b"user-agent") or b"").decode("latin-1"),
        referer=(_header(headers, b"referer") or b"").decode("latin-1"),
    )


def _target(scope: Mapping[str, Any]) -> str:
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return (b"?".join((path, query)) if query else path).decode("latin-1")


def _header(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> bytes | None:
    for name, value in headers:
        if name == wanted:
            return value
    return None
