"""HTTP/1.1 by hand: what goes over the connection, byte by byte and in the order that a test wants."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

SECONDS = 60


@dataclass(frozen=True)
class Answer:
    """An answer. The names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


class Wire:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self._reader = self._socket.makefile("rb")

    @property
    def local_port(self) -> int:
        return int(self._socket.getsockname()[1])

    def send(self, content: bytes) -> None:
        self._socket.sendall(content)

    def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> None:
        """Send a request; `headers` with underscores for hyphens. Without one that says otherwise, `body` is all."""
        lines = {"Host": "registry.test", "Content-Length": str(len(body))}
        lines |= {name.replace("_", "-"): value for name, value in headers.items()}
        if "Transfer-Encoding" in lines:
            del lines["Content-Length"]
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.send(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body)

    def answer(self, *, head: bool = False) -> Answer:
        """The next answer, interim ones (1xx) included; `head` if the request was one."""
        status = int(self._line().split()[1])
        headers: dict[str, str] = {}
        while line := self._line():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if head or status < 200 or status in {204, 304}:
            return Answer(status, headers)
        return Answer(status, headers, self._reader.read(int(headers["content-length"])))

    def rest(self) -> bytes:
        """All that comes until the other end closes."""
        return self._reader.read()

    def reset(self) -> None:
        """Leave without a goodbye."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._reader.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _line(self) -> str:
        line = self._reader.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError(f"the connection ended in the middle of an answer, after {line!r}")
        return line.decode("latin-1").rstrip("\r\n")
