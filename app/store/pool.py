"""The connections of one process: never more than so many, and the one used last is used next.

- When all are in use, requests stand in a line (`app.runtime.line.py`).
- While the server cannot be reached, one attempt at a time is made to reach it, about one a second, however many
  wait. Until it has been away for as long as a request may wait they do wait, so that a short interruption is not
  noticed; from then on they are refused at once.
- Whoever took a connection gives it back, has it settled, or discards it, whatever happens to them.

It costs next to nothing where there is no trouble. asyncpg's own pool takes as long as a small statement does.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from app.domain.errors import Unavailable
from app.domain.limits import DATABASE_RETRY_SECONDS_MAX, DATABASE_SETTLE_SECONDS
from app.runtime.line import Line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

_RETRY_SECONDS_FIRST: Final = 0.05
_CLOSE_SECONDS: Final = 2.0
# By how much a timer of the event loop may be early.
_LATE_SECONDS: Final = 0.01
_log = logging.getLogger(__name__)


class Held:
    """An asyncpg connection, and what the pool knows of it."""

    __slots__ = ("generation", "opened_at", "raw", "since")

    def __init__(self, raw: Any, generation: int) -> None:
        self.raw = raw
        self.generation = generation
        # `since`: it is with whom it is now, or with nobody.
        self.opened_at = self.since = monotonic()


class Pool:
    """`connect` makes a connection. `connections_idle` stay open when unused, the others for `idle_seconds`.

    One that is in use for longer than `answer_seconds` is cut off: its server does not answer any more.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Any]],
        *,
        connections_max: int,
        connections_idle: int,
        idle_seconds: float,
        queue_seconds: float,
        answer_seconds: float,
    ) -> None:
        self._connect = connect
        self._connections_max = connections_max
        self._connections_idle = min(connections_idle, connections_max)
        self._idle_seconds = idle_seconds
        self._queue_seconds = queue_seconds
        self._answer_seconds = answer_seconds
        self._line: Line[Held] = Line(
            queue_seconds, places_min=connections_max, refusal=self._refusal, unclaimed=self.give_back
        )
        self._open: set[Held] = set()
        self._idle: list[Held] = []
        self._opening = 0
        self._generation = 0
        self._away_since: float | None = None
        self._probing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._tending: asyncio.TimerHandle | None = None
        self._closed: asyncio.Event | None = None

    async def open(self) -> None:
        """Connect for the first time. Raises what `connect` raises."""
        self._add(await self._connect())
        self._grow(0)
        self._tend()

    def take(self) -> Held | None:
        """The idle connection that was used last. None: there is none, so `wait`."""
        while self._idle:
            held = self._idle.pop()
            if held.generation == self._generation and not held.raw.is_closed():
                held.since = monotonic()
                return held
            self.discard(held)
        return None

    async def wait(self) -> Held:
        """A connection, as soon as it is our turn. Raises Unavailable."""
        if self._closed is not None or self._is_given_up():
            raise self._refusal()
        self._grow(len(self._line) + 1)
        return await self._line.wait()

    def give_back(self, held: Held) -> None:
        """It is as good as it was."""
        if held.generation != self._generation or held.raw.is_closed() or self._closed is not None:
            self.discard(held)
            return
        held.since = monotonic()
        if not self._line.serve(held):
            self._idle.append(held)

    def settle(self, held: Held) -> None:
        """Its statement was cancelled. Gives it back when the server has let go of that, which nobody waits for."""
        if self._closed is None:
            self._start(self._settle(held))
        else:
            self.discard(held)

    def discard(self, held: Held) -> None:
        """Close it: it is broken, or not wanted any more."""
        held.raw.terminate()
        self._open.discard(held)
        self._line.resume()
        self._grow(len(self._line))
        if self._closed is not None and not self._open:
            self._closed.set()

    def suspect(self, held: Held) -> None:
        """`held` has met a server that is gone: what else is open will probably, too. Each is replaced when wanted."""
        if held.generation == self._generation:
            self.renew()

    def renew(self) -> None:
        """Replace every connection that is open now, each when it is next wanted."""
        self._generation += 1

    def occupancy(self) -> tuple[int, int]:
        """(connections in use, connections open)."""
        idle = sum(not held.raw.is_closed() for held in self._idle)
        in_use = len(self._open) - len(self._idle)
        return in_use, in_use + idle

    async def close(self) -> None:
        """Close every connection; those in use are waited for."""
        self._closed = asyncio.Event()
        if self._tending is not None:
            self._tending.cancel()
        self._line.send_away(self._refusal)
        try:
            await self._end_tasks()
            async with asyncio.TaskGroup() as group:
                while self._idle:
                    group.create_task(self._end(self._idle.pop()))
            if self._open:
                await self._closed.wait()
        finally:
            for held in self._open:
                held.raw.terminate()

    def _refusal(self) -> Unavailable:
        if self._closed is not None:
            return Unavailable("the registry is stopping")
        if not self._open:
            return Unavailable("the metadata database cannot be reached")
        return Unavailable("too many requests wait for the metadata database")

    def _is_given_up(self) -> bool:
        away_since = self._away_since
        return away_since is not None and not self._open and monotonic() - away_since >= self._queue_seconds

    def _give_up(self) -> None:
        if self._is_given_up():
            self._line.send_away(self._refusal)

    def _grow(self, waiting: int) -> None:
        """Open connections for those who wait, and those that should be open anyway, as far as there is room."""
        if self._probing or self._closed is not None:
            return
        wanted = max(waiting, self._connections_idle - len(self._open)) - self._opening
        for _ in range(min(wanted, self._room())):
            self._opening += 1
            self._start(self._open_one())

    def _room(self) -> int:
        return self._connections_max - len(self._open) - self._opening

    async def _open_one(self) -> None:
        try:
            raw = await self._connect()
        except Exception as error:  # noqa: BLE001  (whatever it is, the server cannot be used)
            self._missed(error)
            return
        finally:
            self._opening -= 1
        self._add(raw)

    def _add(self, raw: Any) -> None:
        held = Held(raw, self._generation)
        self._open.add(held)
        self.give_back(held)

    def _missed(self, error: Exception) -> None:
        if self._probing or self._closed is not None:
            return
        _log.error("no new connection to the metadata database: %s", str(error) or type(error).__name__)
        self._probing = True
        self._away_since = monotonic()
        asyncio.get_running_loop().call_later(self._queue_seconds + _LATE_SECONDS, self._give_up)
        self._start(self._probe())

    async def _probe(self) -> None:
        """Try to reach the server again until it answers. Nobody else does meanwhile."""
        delay = _RETRY_SECONDS_FIRST
        while self._room() > 0:
            # Of many processes no two should try in step.
            await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311
            delay = min(2 * delay, DATABASE_RETRY_SECONDS_MAX)
            if await self._is_back():
                break
        seconds = monotonic() - (self._away_since or 0)
        _log.info("new connections to the metadata database again, after %.1f seconds", seconds)
        self._probing = False
        self._away_since = None
        self._grow(len(self._line))

    async def _is_back(self) -> bool:
        self._opening += 1
        try:
            raw = await self._connect()
        except Exception as error:  # noqa: BLE001  (as in _open_one)
            _log.debug("still not: %s", error)
            return False
        finally:
            self._opening -= 1
        self._add(raw)
        return True

    async def _settle(self, held: Held) -> None:
        try:
            # Waits for the cancellation to arrive and for what the cancelled statement still has to say.
            await held.raw.execute("SELECT 1", timeout=DATABASE_SETTLE_SECONDS)
        except BaseException as error:
            self.discard(held)
            if not isinstance(error, Exception):
                raise
        else:
            self.give_back(held)

    def _tend(self) -> None:
        """Look after the connections, now and again and again. A timer for each statement would take 10 µs of it."""
        now = monotonic()
        for held in self._open.difference(self._idle):
            if now - held.since > self._answer_seconds:
                _log.error(
                    "a connection to the metadata database is cut off: it has been silent for too long"
                )
                held.raw.terminate()  # whoever uses it is told, and discards it
        spare = len(self._open) - self._connections_idle
        while (
            self._idle_seconds and spare > 0 and self._idle and now - self._idle[0].since > self._idle_seconds
        ):
            self.discard(self._idle.pop(0))
            spare -= 1
        every = min(self._answer_seconds, self._idle_seconds or self._answer_seconds) / 8
        self._tending = asyncio.get_running_loop().call_later(every, self._tend)

    async def _end(self, held: Held) -> None:
        with suppress(Exception):
            await held.raw.close(timeout=_CLOSE_SECONDS)
        self._open.discard(held)

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        # In a context of its own: what is done for all is not done in the name of the request that brought it about.
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
