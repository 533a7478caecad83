"""Look-ups that share statements: whoever asks while one is under way is answered by the next.

Under load one statement then answers for all requests that have come since the last began, and one row for all that
ask for the same hot tag. Nothing is stale: every answer comes from a statement that began after its question came.

Since so many wait for one statement, one that hangs must not hold them all: after a while they are refused, and so is
at once whoever comes before it has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from time import monotonic
from typing import Final, Generic, TypeVar

from app.domain.errors import Unavailable
from app.domain.limits import LOOKUP_SECONDS_MAX

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
# Keys of one statement. More wait for the next one, so that a single answer never takes long.
KEYS_MAX: Final = 128


class _Call(Generic[K, V]):
    """A call of `look_up` that is under way, and who waits for its answers."""

    __slots__ = ("asked", "began", "is_overdue")

    def __init__(self, asked: dict[K, list[asyncio.Future[V | None]]]) -> None:
        self.asked = asked
        self.began = monotonic()
        self.is_overdue = False


class Coalesced(Generic[K, V]):
    """Answers `ask(key)` with as few calls of `look_up` as can be, `flights_max` of them at a time.

    Nobody waits much longer than `seconds_max` for a call, nor for one that takes longer to end.
    """

    def __init__(
        self,
        look_up: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]],
        *,
        flights_max: int = 1,
        seconds_max: float = LOOKUP_SECONDS_MAX,
    ) -> None:
        self._look_up = look_up
        self._flights_max = flights_max
        self._seconds_max = seconds_max
        self._calls: set[_Call[K, V]] = set()
        self._calls_overdue = 0
        self._watch: asyncio.TimerHandle | None = None
        # Counted here and not by the tasks: one that has ended is known to be done only a moment later.
        self._flying = 0
        self._flights: set[asyncio.Task[None]] = set()
        self._waiting: dict[K, list[asyncio.Future[V | None]]] = {}

    async def ask(self, key: K) -> V | None:
        """What `look_up` has for the key, None if it has nothing. Raises Unavailable, and what `look_up` raises."""
        if self._calls_overdue == self._flights_max:
            raise _no_answer()
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
        call = self._begin(asked)
        try:
            found = await self._look_up(list(asked))
        except BaseException as error:
            _refuse(asked, error)
            if not isinstance(error, Exception):
                raise
            return
        finally:
            self._end(call)
        for key, waiting in asked.items():
            for answer in waiting:
                if not answer.done():  # who was cancelled does not wait any more
                    answer.set_result(found.get(key))

    def _begin(self, asked: dict[K, list[asyncio.Future[V | None]]]) -> _Call[K, V]:
        call = _Call(asked)
        self._calls.add(call)
        if self._watch is None:
            self._watch_later()
        return call

    def _end(self, call: _Call[K, V]) -> None:
        self._calls.discard(call)
        self._calls_overdue -= call.is_overdue

    def _watch_later(self) -> None:
        """One timer for all calls: a timer for each would take as long as all that is done here."""
        self._watch = asyncio.get_running_loop().call_later(self._seconds_max / 4, self._look_after)

    def _look_after(self) -> None:
        self._watch = None
        horizon = monotonic() - self._seconds_max
        for call in self._calls:
            if call.began < horizon and not call.is_overdue:
                call.is_overdue = True
                self._calls_overdue += 1
                _refuse(call.asked, _no_answer())
        if self._calls_overdue == self._flights_max:
            _refuse(self._waiting, _no_answer())
            self._waiting.clear()
        if self._calls:
            self._watch_later()

    def _board(self) -> dict[K, list[asyncio.Future[V | None]]]:
        if len(self._waiting) <= KEYS_MAX:
            asked, self._waiting = self._waiting, {}
            return asked
        return {key: self._waiting.pop(key) for key in list(self._waiting)[:KEYS_MAX]}


def _refuse(asked: dict[K, list[asyncio.Future[V | None]]], error: BaseException) -> None:
    for waiting in asked.values():
        for answer in waiting:
            if not answer.done():
                answer.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())


def _no_answer() -> Unavailable:
    return Unavailable("the metadata database does not answer")
