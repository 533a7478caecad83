"""One client's connection: every answer has the status that it must have, and is whole."""

from __future__ import annotations

import http.client
import socket
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SECONDS: Final = 60
_SHOWN_BYTES: Final = 300


@dataclass(frozen=True)
class Answer:
    """What came back. The names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Talk:
    """Asks a server on a connection that stays, and counts the answers by status."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        self.statuses: Counter[int] = Counter()

    def close(self) -> None:
        self._connection.close()

    def ask(
        self,
        expected: int,
        method: str,
        target: str,
        body: bytes | Iterable[bytes] | None = None,
        **headers: str,
    ) -> Answer:
        """The answer, whose status must be `expected`. `headers` with underscores for hyphens.

        A body in parts is sent in chunks, without a length before it.
        """
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        in_parts = body is not None and not isinstance(body, bytes)
        if in_parts:
            sent["Transfer-Encoding"] = "chunked"
        self._connection.request(method, target, body, sent, encode_chunked=in_parts)
        response = self._connection.getresponse()
        answer = Answer(
            response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        )
        self.statuses[answer.status] += 1
        assert answer.status == expected, (
            f"{method} {target}: {answer.status}, not {expected}: {answer.body[:_SHOWN_BYTES]!r}"
        )
        if method != "HEAD" and answer.status not in {204, 304}:
            stated = answer.headers["content-length"]
            assert stated == str(len(answer.body)), (
                f"{method} {target}: {len(answer.body)} bytes, stated {stated}"
            )
        return answer

    def break_off(self, method: str, target: str, length: int, body: bytes, **headers: str) -> None:
        """On a connection of its own, send a part of a body of `length` bytes and leave."""
        with self._apart() as connection:
            connection.sendall(_head(method, target, Content_Length=str(length), **headers) + body)

    def leave_during(self, target: str, length: int) -> None:
        """On a connection of its own, begin a download and leave after `length` bytes of it."""
        with self._apart() as connection:
            connection.sendall(_head("GET", target))
            while length > 0 and (block := connection.recv(min(length, 65536))):
                length -= len(block)

    def _apart(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), SECONDS)


def _head(method: str, target: str, **headers: Any) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: registry.test"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()
