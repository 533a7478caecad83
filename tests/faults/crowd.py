"""A thousand clients, each with a connection of its own, in one thread."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.faults.client import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SECONDS: Final = 60.0
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class Crowd:
    """What the clients were answered. A request without a whole answer in time is a failure."""

    answers: list[Answer] = field(default_factory=list[Answer])
    failures: list[str] = field(default_factory=list[str])

    @classmethod
    def of(cls, count: int, address: tuple[str, int], requests: Callable[[int], Iterable[str]]) -> Crowd:
        """Each of `count` clients makes its requests one after the other: `METHOD TARGET`, without a body."""
        crowd = cls()
        asyncio.run(crowd.come(count, address, requests))
        return crowd

    async def come(
        self, count: int, address: tuple[str, int], requests: Callable[[int], Iterable[str]]
    ) -> None:
        """As `of`, in the loop that is running."""
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(self._one(address, requests(number)))

    def statuses(self) -> set[int]:
        return {answer.status for answer in self.answers}

    def refused(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.is_refusal]

    def served(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.status < 300]

    async def _one(self, address: tuple[str, int], requests: Iterable[str]) -> None:
        try:
            reader, writer = await asyncio.open_connection(*address)
            try:
                for request in requests:
                    async with asyncio.timeout(SECONDS):
                        self.answers.append(await _ask(reader, writer, request))
            finally:
                writer.transport.abort()
        except (OSError, EOFError, AssertionError) as error:
            self.failures.append(repr(error))


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: str) -> Answer:
    began = time.monotonic()
    writer.write(f"{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = None if request.startswith("HEAD ") else _LENGTH.search(head)
    body = await reader.readexactly(int(length[1]) if length else 0)
    first, *lines = head.decode("latin-1").splitlines()
    headers = {
        name.title(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
    }
    return Answer(int(first.split()[1]), headers, body, time.monotonic() - began)


def slowest(answers: list[Answer], share: float = 0.99) -> float:
    """So many of the answers came within these seconds."""
    seconds = sorted(answer.seconds for answer in answers)
    return seconds[int(len(seconds) * share) - 1] if seconds else 0.0
