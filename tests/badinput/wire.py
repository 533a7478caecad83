"""A real server as its attackers have it: raw bytes to it, all that it answers, and whether it is still well.

    with registry.survives():
        exchange = registry.send(b"GET / HTTP/1.1\\r\\n\\r\\n")
        assert exchange.statuses == [400] and exchange.closed

Everything has a deadline: a server that keeps a client waiting has failed the test.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import struct
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tests.badinput.support import QUEUES, differences, holdings
from tests.support.postgres import connected
from tests.support.processes import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from app.store.engine import Target
    from tests.support.served import Served

DEADLINE_SECONDS: Final = 20.0
# RFC 9112 wants these two for a transfer coding and a version that nobody speaks.
PRESCRIBED: Final = frozenset({501, 505})
_ACCESS_STATUS: Final = re.compile(r'^\S+ - - \[[^]]+\] "[^"]*" (\d{3}) ', re.MULTILINE)
_ENTRY: Final = re.compile(r"^(?=\d{4}-\d\d-\d\dT)", re.MULTILINE)
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ?[^\r\n]*\r\n")


@dataclass(frozen=True)
class Reply:
    """One answer of HTTP/1.1. The names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The entries of an OCI error document."""
        return json.loads(self.body)["errors"]


@dataclass
class Exchange:
    """What came back on one connection, and whether the server closed it."""

    replies: list[Reply] = field(default_factory=list[Reply])
    closed: bool = False
    rest: bytes = b""

    @property
    def statuses(self) -> list[int]:
        """Of the final answers: an interim one (1xx) is none."""
        return [reply.status for reply in self.replies if reply.status >= 200]


class Attacked:
    """A running registry, and how it is doing."""

    def __init__(self, served: Served, target: Target, certificate: Path | None = None) -> None:
        self.served = served
        self.target = target
        self._certificate = certificate

    @property
    def is_encrypted(self) -> bool:
        return self._certificate is not None

    @property
    def scheme(self) -> str:
        return "https" if self.is_encrypted else "http"

    def connect(self, protocol: str = "http/1.1") -> socket.socket:
        """A new connection; over TLS one that speaks `protocol`."""
        plain = socket.create_connection(("127.0.0.1", self.served.port), DEADLINE_SECONDS)
        if self._certificate is None:
            return plain
        context = ssl.create_default_context(cafile=self._certificate)
        context.set_alpn_protocols([protocol])
        secured = context.wrap_socket(plain, server_hostname="127.0.0.1")
        assert secured.selected_alpn_protocol() == protocol
        return secured

    def send(
        self, payload: bytes, *, answers: int | None = None, ends: bool = False, heads: Sequence[bool] = ()
    ) -> Exchange:
        """Send the bytes on a connection of their own and take what comes: `answers` of them, or until it is closed.

        `ends` says that nothing more will come (half a close). `heads` tells which requests were a HEAD.
        """
        with self.connect() as connection:
            with suppress(OSError):  # it may close while we are still sending
                connection.sendall(payload)
                if ends:
                    connection.shutdown(socket.SHUT_WR)
            return receive(connection, answers, heads)

    def leave(self, payload: bytes, begun: Callable[[], bool], *, reset: bool) -> None:
        """Send the bytes and, once the server has `begun`, go, with or without a goodbye."""
        with self.connect() as connection:
            connection.sendall(payload)
            assert wait_for(begun)
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def holdings(self) -> dict[str, Any]:
        """Every row and file."""
        return asyncio.run(holdings(self.target, self.served.data))

    def sessions(self, name: str) -> int:
        """How many upload sessions the repository has."""

        async def ask() -> int:
            async with connected(self.target) as connection:
                return await connection.fetchval(
                    "SELECT count(*) FROM blob_uploads AS u JOIN repositories AS r ON r.id = u.repository_id"
                    " WHERE r.path = $1",
                    name,
                )

        return asyncio.run(ask())

    @contextmanager
    def survives(self, *, changes: frozenset[str] = frozenset()) -> Generator[None]:
        """Check that what is done inside costs nobody else anything.

        A connection that was there before and a new one are served, no worker was replaced, nothing was logged as an
        error, no request got a 5xx, and no row and no file is another, but for tables among `changes`.
        """
        workers, before = self.served.workers(), self.holdings()
        errors, accesses = len(self.served.errors.read_bytes()), len(self.served.output.read_bytes())
        with self.connect() as bystander:
            yield
            bystander.sendall(GET_BASE)
            assert receive(bystander, 1).statuses == [200], "another connection is not served any more"
        assert self.send(GET_BASE, answers=1).statuses == [200], "a new connection is not served"
        assert self.served.workers() == workers, "the worker died"
        said = self.served.errors.read_bytes()[errors:].decode(errors="replace")
        failures = [entry for entry in _ENTRY.split(said) if "ERROR" in entry or "Traceback" in entry]
        assert not failures, "".join(failures)[:4000]
        statuses = _ACCESS_STATUS.findall(self.served.output.read_bytes()[accesses:].decode("latin-1"))
        assert [status for status in statuses if status >= "500"] == []
        changed = [
            name
            for name in differences(before, self.holdings())
            if not name.startswith(tuple(changes) or "\0")
        ]
        assert [name for name in changed if name not in QUEUES] == []


GET_BASE: Final = b"GET /v2/ HTTP/1.1\r\nHost: registry.test\r\n\r\n"


def receive(connection: socket.socket, answers: int | None = None, heads: Sequence[bool] = ()) -> Exchange:
    """Answers until there are as many as are wanted, or the server closes. Fails when it does neither."""
    exchange, received = Exchange(), b""
    end = time.monotonic() + DEADLINE_SECONDS
    while answers is None or len(exchange.statuses) < answers:
        connection.settimeout(max(0.01, end - time.monotonic()))
        try:
            data = connection.recv(65_536)
        except (ConnectionError, ssl.SSLError):
            data = b""
        except TimeoutError:
            raise AssertionError(f"it neither answers nor closes; it said {received[:500]!r}") from None
        if not data:
            exchange.closed = True
            break
        received += data
        received = _take_replies(received, exchange, heads)
    exchange.rest = received
    return exchange


def _take_replies(received: bytes, exchange: Exchange, heads: Sequence[bool]) -> bytes:
    """Move whole answers from the bytes to the exchange. Returns the bytes that are left."""
    while (found := _STATUS.match(received)) and b"\r\n\r\n" in received:
        head, _, rest = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")[1:]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(found[1])
        is_head = any(heads[len(exchange.statuses) :][:1])
        bodiless = status < 200 or status in {204, 304} or is_head
        size = 0 if bodiless else int(headers.get("content-length", "0"))
        if len(rest) < size:
            break
        exchange.replies.append(Reply(status, headers, rest[:size]))
        received = rest[size:]
    return received
