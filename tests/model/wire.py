"""Clients of the model: they ask, compare the answer with what the model says, and can tell the whole conversation."""

from __future__ import annotations

import http.client
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from tests.model.answers import Answer

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from tests.model.answers import Expected

SECONDS: Final = 20
_BODY_CHARS: Final = 300
HOST: Final = "registry.test"


class Client:
    """Asks several servers in turn, so that what one has done the next must know of."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self._connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS) for port in ports]
        self._asked = 0
        self._told: list[str] = []

    def begin(self) -> None:
        """Forget the conversation so far."""
        self._asked = 0
        self._told = []

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def note(self, text: str) -> None:
        """Something else that happens in this conversation."""
        self._told.append(f"      {text}")

    @contextmanager
    def aside(self, text: str) -> Generator[None]:
        """In the end only this is worth telling of what is asked meanwhile, unless something is wrong."""
        told = len(self._told)
        yield
        del self._told[told:]
        self.note(text)

    def leave(self, place: int) -> None:
        """End the connection to the server at the place."""
        self._connections[place].close()

    def find(self, place: int) -> None:
        """There is another server at the place, on another port."""
        self._connections[place] = http.client.HTTPConnection(
            "127.0.0.1", self._ports[place], timeout=SECONDS
        )

    def ask(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        announced: bool = True,
    ) -> Answer:
        """The answer. `announced`: the body's length is sent before it; otherwise it comes in chunks."""
        sent = {"Host": HOST, **(headers or {})}
        self._tell(method, target, sent, body)
        connection = self._connections[self._asked % len(self._connections)]
        if body is not None and not announced:
            connection.request(
                method, target, _halves(body), {**sent, "Transfer-Encoding": "chunked"}, encode_chunked=True
            )
        else:
            connection.request(method, target, body, sent)
        response = connection.getresponse()
        answer = Answer(response.status, _joined(response.getheaders()), response.read())
        self._told[-1] += f" → {answer.status}"
        return answer

    def break_off(self, method: str, target: str, content: bytes) -> None:
        """Send a request whose body ends five bytes early, and leave."""
        head = f"{method} {target} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(content) + 5}\r\n\r\n"
        self._tell(method, target, {}, content)
        self._told[-1] += " … and left before the end"
        with socket.create_connection(
            ("127.0.0.1", self._ports[self._asked % len(self._ports)]), SECONDS
        ) as connection:
            connection.sendall(head.encode() + content)

    def check(self, answer: Answer, expected: Expected) -> None:
        """Raise AssertionError, which tells everything since `begin`, unless the answer is the expected one."""
        if differences := expected.differences(answer):
            lines = ["the answer to the last request is wrong:", *(f"  {line}" for line in differences)]
            raise AssertionError("\n".join([*lines, self.conversation()]))

    def conversation(self) -> str:
        """The requests since `begin`, for a failure's message."""
        return "\n".join(["the requests of this example:", *self._told])

    def _tell(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> None:
        self._asked += 1
        more = " ".join(f"{name}: {value};" for name, value in headers.items() if name != "Host")
        sent = "" if body is None else f" with {len(body)} bytes {body[:_BODY_CHARS]!r}"
        self._told.append(f"  {self._asked:3} {method} {target} {more}{sent}")


def _halves(body: bytes) -> list[bytes]:
    middle = len(body) // 2
    return [part for part in (body[:middle], body[middle:]) if part]


def _joined(headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        found[key] = f"{found[key]}, {value}" if key in found else value
    return found
