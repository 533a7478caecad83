"""Whether the database answers, asked on a connection of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from app.domain.errors import Unavailable

if TYPE_CHECKING:
    from app.store.engine import Target


async def ping(target: Target) -> None:
    """Raises Unavailable if the database does not answer, or cannot be written to."""
    try:
        connection = await asyncpg.connect(**target.arguments())
        try:
            if await connection.fetchval("SELECT pg_is_in_recovery()"):
                raise Unavailable("the database is a read-only standby")
        finally:
            await connection.close(timeout=5)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Unavailable("the metadata database cannot be reached") from error
