"""When a connection has been idle for too long.

One timer per connection that looks again now and then, in place of a task that is made and cancelled around every
request: that took an eighth of the time of a small one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class IdleTimer:
    """Calls `expired` once the connection has been idle for `seconds` without a break. It begins busy."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._seconds = seconds
        self._expired = expired
        self._since: float | None = None
        self._handle: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return self._since is not None

    def begin(self) -> None:
        """Nothing is under way from now on."""
        self._since = self._loop.time()
        if self._handle is None:
            self._handle = self._loop.call_later(self._seconds, self._look)

    def end(self) -> None:
        """Something is under way."""
        self._since = None

    def cancel(self) -> None:
        """Never call `expired` any more."""
        if self._handle is not None:
            self._handle.cancel()

    def _look(self) -> None:
        self._handle = None
        if self._since is None:
            return  # the next `begin` sets the timer again
        left = self._since + self._seconds - self._loop.time()
        if left <= 0:
            self._expired()
        else:
            self._handle = self._loop.call_later(left, self._look)
