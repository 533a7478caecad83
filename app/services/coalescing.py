"""Look-ups that share statements: whoever asks while one is under way is answered by the next.

Under load one statement then answers for all requests that have come since the last began, and one row for all that
ask for the same hot tag. Nothing is stale: every answer comes from a statement that began after its question came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
# Keys of one statement. More wait for the next one, so that a single answer never takes long.
KEYS_MAX: Final = 128


class Coalesced(Generic[K, V]):
    """Answers `ask(key)` with as few calls of `look_up` as can be, `flights_max` of them at a time."""

    def __init__(
        self, look_up: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]], *, flights_max: int = 1
    ) -> None:
        self._look_up = look_up
        self._flights_max = flights_max
        # Counted here and not by the tasks: one that has ended is known to be done only a moment later.
        self._flying = 0
        self._flights: set[asyncio.Task[None]] = set()
        self._waiting: dict[K, list[asyncio.Future[V | None]]] = {}

    async def ask(self, key: K) -> V | None:
        """What `look_up` has for the key, None if it has nothing. Raises what `look_up` raises."""
        answer: asyncio.Future[V | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(answer)
        if self._flying < self._flights_max:
            self._flying += 1
            flight = asyncio.ensure_future(self._fly())
            self._flights.add(flight)
            flight.add_done_callback(self._flights.discard)
        return await answer

    async def _fly(self) -> None:
        try:
            while self._waiting:
                await self._answer_waiting()
        finally:
            self._flying -= 1

    async def _answer_waiting(self) -> None:
        asked = self._board()
        try:
            found = await self._look_up(list(asked))
        except BaseException as error:
            for waiting in asked.values():
                _refuse(waiting, error)
            if not isinstance(error, Exception):
                raise
            return
        for key, waiting in asked.items():
            for answer in waiting:
                if not answer.done():  # who was cancelled does not wait any more
                    answer.set_result(found.get(key))

    def _board(self) -> dict[K, list[asyncio.Future[V | None]]]:
        if len(self._waiting) <= KEYS_MAX:
            asked, self._waiting = self._waiting, {}
            return asked
        return {key: self._waiting.pop(key) for key in list(self._waiting)[:KEYS_MAX]}


def _refuse(waiting: list[asyncio.Future[V | None]], error: BaseException) -> None:
    for answer in waiting:
        if not answer.done():
            answer.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
