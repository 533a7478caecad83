"""Whether the database answers and takes writes, and garbage collection keeps up: asked on a connection of its own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import asyncpg
from sqlalchemy import select

from app.domain.errors import Unavailable
from app.store import collecting, queues
from app.store.engine import Connection
from app.store.statements import Statement
from app.store.tables import blobs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from app.store.engine import Target

# A standby's transactions are read-only too; the first word is there to tell which of the two it is.
_STATE: Final = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'"

NAMES_OBJECTS: Final = Statement(
    "health.names_objects", select(select(blobs.c.digest).where(blobs.c.storage_key.is_not(None)).exists())
)


async def ping(target: Target) -> None:
    """Raises Unavailable, with the reason, if the database does not answer, or cannot be written to."""
    async with _connected(target) as connection:
        is_standby, is_read_only = await connection.fetchrow(_STATE)
    if is_standby:
        raise Unavailable("the metadata database is a read-only standby")
    if is_read_only:
        raise Unavailable("the metadata database is read-only")


async def refuse_overdue(target: Target, seconds: float) -> None:
    """Raises Unavailable if anything that is to be collected has been due for longer than `seconds`."""
    async with _connected(target) as raw:
        c = Connection(raw, None)
        states, is_paused = await queues.states(c), await collecting.is_paused(c)
    late = [state for state in states if state.oldest_due_seconds > seconds]
    if not late:
        return
    oldest = max(late, key=lambda state: state.oldest_due_seconds)
    reason = "garbage collection is paused" if is_paused else "are collectors running?"
    raise Unavailable(
        f"garbage collection is late: of {oldest.queue}, the oldest has been due for"
        f" {oldest.oldest_due_seconds / 3600:.1f} hours; {reason} (registry gc status tells more)"
    )


async def names_objects(target: Target) -> bool:
    """Whether any blob has an object in storage, as far as the database knows."""
    async with _connected(target) as raw:
        return await Connection(raw, None).value(NAMES_OBJECTS)


@asynccontextmanager
async def _connected(target: Target) -> AsyncGenerator[Any, None]:
    try:
        connection: Any = await asyncpg.connect(**target.arguments())
        try:
            yield connection
        finally:
            connection.terminate()  # nothing that could hang: it may be asked because the server does
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        reason = str(error) or "no connection in time"
        raise Unavailable(f"the metadata database cannot be reached: {reason}") from error
