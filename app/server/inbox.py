"""What an application reads a request from, between the connection and it.

Bounded while the application reads, so that a slow one slows its client down. Once the request is over, which
`http.disconnect` says, nothing waits here any more and nothing is kept: an application that answers early would
otherwise hold up its connection, which waits for room, and itself, which waits for the connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Event = dict[str, Any]
_OVER: Event = {"type": "http.disconnect"}


class Inbox:
    """Events for one application. Calling it puts one in, as hypercorn does; `get` takes one out.

    `taken`, if set, is told how many bytes of body left the inbox; who is told bounds the inbox thereby.
    """

    def __init__(self, events_max: int) -> None:
        self._events_max = events_max
        self._events: deque[Event] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._over = False
        self.taken: Callable[[int], None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether the request is over."""
        return self._over

    async def __call__(self, event: Event) -> None:
        """Put `event` in, waiting for room unless the request is over."""
        if event["type"].endswith(".disconnect"):
            self._end()
            return
        while self.taken is None and not self._over and len(self._events) >= self._events_max:
            self._room.clear()
            await self._room.wait()
        if self._over:
            self._release(event)
        else:
            self._events.append(event)
            self._changed.set()

    async def get(self) -> Event:
        """The next event; for ever `http.disconnect` at the end."""
        while not self._events and not self._over:
            self._changed.clear()
            await self._changed.wait()
        if not self._events:
            return dict(_OVER)
        event = self._events.popleft()
        self._room.set()
        if not self._over:
            self._release(event)
        return event

    def _end(self) -> None:
        if not self._over:
            self._over = True
            for event in self._events:
                self._release(event)
            self._room.set()
            self._changed.set()

    def _release(self, event: Event) -> None:
        size = len(event.get("body", b""))
        if self.taken is not None and size:
            self.taken(size)
