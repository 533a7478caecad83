"""Whether the database answers and takes writes, asked on a connection of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import asyncpg

from app.domain.errors import Unavailable

if TYPE_CHECKING:
    from app.store.engine import Target

# A standby's transactions are read-only too; the first word is there to tell which of the two it is.
_STATE: Final = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'"


async def ping(target: Target) -> None:
    """Raises Unavailable, with the reason, if the database does not answer, or cannot be written to."""
    try:
        connection: Any = await asyncpg.connect(**target.arguments())
        try:
            is_standby, is_read_only = await connection.fetchrow(_STATE)
        finally:
            connection.terminate()  # nothing that could hang: it may be asked because the server does
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        reason = str(error) or "no connection in time"
        raise Unavailable(f"the metadata database cannot be reached: {reason}") from error
    if is_standby:
        raise Unavailable("the metadata database is a read-only standby")
    if is_read_only:
        raise Unavailable("the metadata database is read-only")
