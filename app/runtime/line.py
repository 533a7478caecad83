"""The line for something scarce: first come, first served, and nobody waits longer than so long, or in vain.

Whoever waited the whole time is refused. So is, at once, whoever would stand behind more others than were served in
that time of late, and whoever comes after one has waited the whole time while nobody was served at all. A line that
has just begun has no such measure yet; once it has, those behind it are sent away, the last ones first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from math import exp, inf
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
# The share of the longest wait that a line must have been served before its pace says anything.
_MEASURED: Final = 0.2


class Line(Generic[T]):
    """`seconds` is the longest wait; as many as `places_min` may stand in the line however slow it is.

    `refusal` makes what they get who are refused. `unclaimed` takes what was handed to one who has left.
    """

    def __init__(
        self,
        seconds: float,
        *,
        places_min: int,
        refusal: Callable[[], Exception],
        unclaimed: Callable[[T], None],
    ) -> None:
        self._seconds = seconds
        self._places_min = places_min
        self._refusal = refusal
        self._unclaimed = unclaimed
        self._turns: OrderedDict[asyncio.Future[T], float] = OrderedDict()
        # Since when it has been served; who was, each counting for less as time goes by; and when the last one was.
        self._served_since: float | None = None
        self._served = 0.0
        self._served_at = 0.0
        self._stands_still = False

    def __len__(self) -> int:
        return len(self._turns)

    async def wait(self) -> T:
        """What is handed to us when it is our turn. Raises a refusal, or what `send_away` was given."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not self._turns:
            self._served_since, self._served_at = None, now
        if len(self._turns) >= self._places(now):
            raise self._refusal()
        turn: asyncio.Future[T] = loop.create_future()
        self._turns[turn] = now
        timer = loop.call_later(self._seconds, self._expire, turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._unclaimed(turn.result())
            raise
        finally:
            timer.cancel()
            self._turns.pop(turn, None)

    def resume(self) -> None:
        """Things have changed, so that how it went until now is no measure any more."""
        self._served_since = None
        self._stands_still = False

    def serve(self, thing: T) -> bool:
        """Hand `thing` to the one who has waited longest. False: nobody waits."""
        self._stands_still = False
        while self._turns:
            turn, _ = self._turns.popitem(last=False)
            if not turn.done():
                self._count(turn.get_loop().time())
                turn.set_result(thing)
                return True
        return False

    def send_away(self, error: Callable[[], Exception]) -> None:
        """Refuse everyone, each with an error of their own."""
        self._shorten(0, error)

    def _expire(self, turn: asyncio.Future[T]) -> None:
        joined = self._turns.pop(turn, 0.0)
        _refuse(turn, self._refusal)
        if self._served_at <= joined:
            self._stands_still = True
            self.send_away(self._refusal)

    def _count(self, now: float) -> None:
        if self._served_since is None:
            self._served_since, self._served = now, 0.0
        self._served = self._remembered(now) + 1
        self._served_at = now
        self._shorten(self._places(now), self._refusal)

    def _shorten(self, places: float, error: Callable[[], Exception]) -> None:
        while len(self._turns) > places:
            turn, _ = self._turns.popitem()
            _refuse(turn, error)

    def _places(self, now: float) -> float:
        """How many may stand in the line: as many as get served in the longest wait, if it goes on like this."""
        if self._stands_still:
            return 0
        if self._served_since is None or (share := (now - self._served_since) / self._seconds) < _MEASURED:
            return inf
        # A steady stream would leave as many, had it gone on for ever; this one has for a share of the time.
        return max(self._places_min, self._remembered(now) / (1 - exp(-share)))

    def _remembered(self, now: float) -> float:
        return self._served * exp((self._served_at - now) / self._seconds)


def _refuse(turn: asyncio.Future[T], error: Callable[[], Exception]) -> None:
    if not turn.done():
        turn.set_exception(error())
