"""What supervisor and worker say to each other, a line of JSON each, over one socket: the worker's standard input.

The first line is the order. The socket stays open as long as both live, so that each learns of the other's end
however it comes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import AsyncIterator

# A configuration file has at most 1 MiB; as JSON in JSON it grows.
LINE_BYTES_MAX: Final = 16 * 1024 * 1024

# supervisor to worker
DRAIN: Final = "drain"
PING: Final = "ping"
# worker to supervisor
READY: Final = "ready"
FAILED: Final = "failed"
PONG: Final = "pong"


@dataclass(frozen=True)
class Order:
    """What a worker is to do. `settings` is JSON; `metrics` is a directory or nothing.

    `wiring` is the module that builds what it runs: the API, on `listener`, a descriptor, or the collectors, if there
    is none.
    """

    place: int
    settings: str
    listener: int | None
    metrics: str
    wiring: str


@dataclass(frozen=True)
class Message:
    """One thing said, and why if that needs saying."""

    word: str
    reason: str = ""


class Channel:
    """One end."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def say(self, word: str, reason: str = "") -> None:
        """Send a message. One who has gone hears nothing, which is no error."""
        self._write(asdict(Message(word, reason)))

    def order(self, order: Order) -> None:
        """Send the order."""
        self._write(asdict(order))

    async def ordered(self) -> Order | None:
        """The order, None if the supervisor is gone."""
        line = await self._reader.readline()
        return Order(**json.loads(line)) if line.endswith(b"\n") else None

    async def messages(self) -> AsyncIterator[Message]:
        """What the other end says, until it is gone."""
        while (line := await self._line()).endswith(b"\n"):
            yield Message(**json.loads(line))

    async def flush(self) -> None:
        """Wait until everything is sent."""
        try:
            await self._writer.drain()
        except ConnectionError:
            return

    def close(self) -> None:
        """Let the other end know that this one is gone."""
        self._writer.close()

    def _write(self, content: dict[str, Any]) -> None:
        self._writer.write(json.dumps(content).encode() + b"\n")

    async def _line(self) -> bytes:
        try:
            return await self._reader.readline()
        except ConnectionError:
            return b""
