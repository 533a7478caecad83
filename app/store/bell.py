"""Hearing NOTIFY: a connection of its own that listens, and is made anew when it breaks.

What is heard is a reason to look sooner, never the only way to learn of something: a NOTIFY that comes while the
connection is down is lost, and behind a pooler none is heard at all.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.store.engine import Target

_DELAY_SECONDS_FIRST: Final = 1.0
_DELAY_SECONDS_MAX: Final = 60.0
_FAILURES: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

_log = logging.getLogger(__name__)


async def listen(target: Target, channel: str, heard: Callable[[], None]) -> None:
    """Call `heard` at each NOTIFY, and after each gap in which one may have been missed.

    Until cancelled; it returns where nothing can be heard.
    """
    delay = _DELAY_SECONDS_FIRST
    while True:
        try:
            connection: Any = await asyncpg.connect(**target.arguments())
        except _FAILURES as error:
            _log.debug("nobody listens to %s: %s", channel, error)
        else:
            delay = _DELAY_SECONDS_FIRST
            if not await _listen_on(connection, channel, heard):
                return
        await asyncio.sleep(delay)
        delay = min(2 * delay, _DELAY_SECONDS_MAX)


async def _listen_on(connection: Any, channel: str, heard: Callable[[], None]) -> bool:
    """Listen until the connection ends. False: it can hear nothing."""
    ended = asyncio.Event()

    def end(_: object) -> None:
        ended.set()

    def ring(*_: object) -> None:
        heard()

    connection.add_termination_listener(end)
    try:
        if await connection.fetchval("SELECT pg_backend_pid()") != connection.get_server_pid():
            _log.debug("a pooler stands before the database: %s will not be heard", channel)
            return False
        await connection.add_listener(channel, ring)
        heard()
        await ended.wait()
    except _FAILURES as error:
        _log.debug("stopped listening to %s: %s", channel, error)
    finally:
        connection.terminate()
    return True
