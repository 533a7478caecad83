"""What becomes of every request when it is over: it is counted, and told to the access log."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from app.domain.access import Subject
from app.runtime import logs
from app.runtime.request_ids import REQUEST_ID, request_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from app.runtime.metrics import Metrics

_UNKNOWN: Final = Subject()
# No API of ours takes a secret in a query. Whoever puts one there must not find it in the log.
_SECRET: Final = re.compile(r"(?i)(password|token|secret|authorization)=[^&]*")


def peer_address(scope: Mapping[str, Any]) -> str:
    """The address of whoever is at the other end of the connection; empty on a Unix socket."""
    client = scope.get("client")
    return client[0] if client else ""


class Observer:
    """Gives requests their ids and tells metrics and access log about them. `scope` is an ASGI HTTP scope.

    `address_of` tells the client's address of a scope.
    """

    def __init__(
        self, metrics: Metrics, address_of: Callable[[Mapping[str, Any]], str] = peer_address
    ) -> None:
        self._metrics = metrics
        self._address_of = address_of

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
            logs.access(_entry(scope, self._address_of(scope), status, seconds, sent))


def _entry(scope: Mapping[str, Any], address: str, status: int, seconds: float, sent: int) -> logs.Access:
    headers = scope["headers"]
    subject: Subject = scope.get("registry.subject") or _UNKNOWN
    return logs.Access(
        request_id=REQUEST_ID.get(),
        method=scope["method"],
        path=_target(scope),
        protocol=f"HTTP/{scope['http_version']}",
        status=status,
        sent=sent,
        seconds=seconds,
        client=address,
        agent=(_header(headers, b"user-agent") or b"").decode("latin-1"),
        referer=_without_secrets((_header(headers, b"referer") or b"").decode("latin-1")),
        user=subject.name,
        auth_type=subject.kind,
        projects=subject.projects,
    )


def _target(scope: Mapping[str, Any]) -> str:
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return _without_secrets((b"?".join((path, query)) if query else path).decode("latin-1"))


def _without_secrets(url: str) -> str:
    path, mark, query = url.partition("?")
    return path + mark + _SECRET.sub(r"\1=***", query) if mark else url


def _header(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> bytes | None:
    for name, value in headers:
        if name == wanted:
            return value
    return None
