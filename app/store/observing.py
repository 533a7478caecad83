"""Looking at the database without any chance to change it.

    async with observing(target) as observer:
        found = await observer.look(lambda c: gc_counts.control(c))

Each look is a read-only transaction of its own that sees one state of the database and keeps nobody waiting.
"""

from __future__ import annotations

import re
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, INTERVAL, TIMESTAMP
from sqlalchemy.dialects.postgresql import UUID as PGUUID
from sqlalchemy.types import BigInteger, Text

from app.domain.errors import Unavailable
from app.store.engine import Connection
from app.store.statements import Statement

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from app.store.engine import Target

T = TypeVar("T")


# SET LOCAL works behind PgBouncer, too. What the collectors' functions set for themselves is set here for the same
# judgement: plans that follow indexes from row to row.
_LOCAL: Final = """
    SET LOCAL statement_timeout = '30s';
    SET LOCAL lock_timeout = '5s';
    SET LOCAL jit = off;
    SET LOCAL plan_cache_mode = force_generic_plan;
    SET LOCAL enable_seqscan = off;
    SET LOCAL enable_hashjoin = off;
    SET LOCAL enable_mergejoin = off
"""
_CLOSE_SECONDS: Final = 5.0
_VALUE: Final = re.compile(r"(?<![:\w]):(\w+)")
_MOMENT: Final = TIMESTAMP(timezone=True)
_TYPES: Final[dict[str, Any]] = {
    "after": _MOMENT,
    "age": INTERVAL,
    "digest": BYTEA,
    "digests": ARRAY(BYTEA),
    "last": BigInteger,
    "last_key": Text,
    "last_id": PGUUID,
    "limit": BigInteger,
    "manifest_id": BigInteger,
    "manifests": ARRAY(BigInteger),
    "most": BigInteger,
    "path": Text,
    "repositories": ARRAY(BigInteger),
    "repository_id": BigInteger,
    "shown": BigInteger,
    "tag": Text,
    "until": _MOMENT,
}


class Observer:
    """One connection, by which nothing can be changed."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    async def look(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `work`, all of whose statements see the same state. Raises Unavailable."""
        try:
            async with self._raw.transaction(isolation="repeatable_read", readonly=True):
                await self._raw.execute(_LOCAL)
                return await work(Connection(self._raw, None))
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise Unavailable(f"the metadata database refused: {_first_line(error)}") from error


@asynccontextmanager
async def observing(target: Target) -> AsyncGenerator[Observer]:
    """Connect for as long as the block lasts. Raises Unavailable."""
    try:
        raw: Any = await asyncpg.connect(**target.arguments(), statement_cache_size=0)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Unavailable(f"cannot connect to the metadata database: {_first_line(error)}") from error
    try:
        yield Observer(raw)
    finally:
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await raw.close(timeout=_CLOSE_SECONDS)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def statement(name: str, sql: str) -> Statement:
    """The statement of that text, whose values have the types that their names say."""
    wanted = sorted(set(_VALUE.findall(sql)))
    return Statement(name, text(sql).bindparams(*(bindparam(value, type_=_TYPES[value]) for value in wanted)))
