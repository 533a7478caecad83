"""Clock jumps: for the database, everything happened, and falls due, so much earlier. No trigger hears of it."""

from __future__ import annotations

from typing import Any, Final

_STATEMENTS: Final = """
    SELECT string_agg(format('UPDATE %I SET %s', name, moves), '; ') FROM (
        SELECT c.table_name AS name,
               string_agg(format('%1$I = %1$I - make_interval(secs => %2$s)', c.column_name, $1::text), ', ') AS moves
        FROM information_schema.columns AS c
        JOIN pg_class AS t ON t.relname = c.table_name AND t.relnamespace = 'public'::regnamespace
        WHERE c.table_schema = 'public' AND c.data_type = 'timestamp with time zone'
            AND t.relkind IN ('r', 'p') AND NOT t.relispartition
        GROUP BY c.table_name) AS every
"""


async def jump(connection: Any, seconds: float) -> None:
    """Let that much time pass, for every time that is stored anywhere."""
    statements = await connection.fetchval(_STATEMENTS, str(seconds))
    async with connection.transaction():
        await connection.execute(f"SET LOCAL session_replication_role = replica; {statements}")
