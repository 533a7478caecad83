"""Single requests, outside of what is measured: to seed, and to look at an answer before it is asked for in numbers."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import urlsplit

from benchmarks.errors import CaseError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

_SECONDS_MAX: Final = 300.0
_BLOCK_BYTES: Final = 1024 * 1024
_SHOWN_BYTES: Final = 300


@dataclass(frozen=True)
class Answer:
    """An answer; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Client:
    """One connection to one server; `headers` go with each request."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self._headers = dict(headers or {})
        host = urlsplit(url).netloc
        self._connection = HTTPConnection(host, timeout=_SECONDS_MAX, blocksize=_BLOCK_BYTES)

    def ask(
        self,
        method: str,
        url: str,
        *,
        expect: int,
        headers: Mapping[str, str] | None = None,
        body: bytes | IO[bytes] | None = None,
    ) -> Answer:
        """Send a request. `url` may be a path. Raises CaseError unless the answer's status is `expect`."""
        target = path_of(url)
        try:
            self._connection.request(method, target, body=body, headers={**self._headers, **(headers or {})})
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, HTTPException) as error:
            self._connection.close()
            raise CaseError(f"{method} {target}: {error or type(error).__name__}") from error
        if response.status != expect:
            said = content[:_SHOWN_BYTES].decode(errors="replace")
            raise CaseError(f"{method} {target}: {response.status} instead of {expect}: {said}")
        return Answer(
            response.status, {name.lower(): value for name, value in response.getheaders()}, content
        )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextmanager
def connected(url: str, headers: Mapping[str, str] | None = None) -> Generator[Client]:
    """A client for the length of the block."""
    client = Client(url, headers)
    try:
        yield client
    finally:
        client.close()


def with_digest(location: str, digest: str) -> str:
    """The URL that ends an upload."""
    return f"{location}{'&' if '?' in location else '?'}digest={digest}"


def path_of(url: str) -> str:
    """The URL without scheme and host."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path
