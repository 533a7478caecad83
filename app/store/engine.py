"""Connections to PostgreSQL: a bounded pool, reads and writes on it, and errors in the registry's own words.

Everything is asyncpg; alembic alone uses SQLAlchemy's engine. Each write of the API is one statement (a function of
`db/schema/50_functions.sql`), which is a transaction by itself, so no BEGIN and COMMIT cross the network. Behind
PgBouncer in transaction mode every call is wrapped in a transaction after all: there a statement's PARSE and EXECUTE
could otherwise reach two different servers.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from urllib.parse import urlencode

import asyncpg

from app.domain.errors import NameUnknown, RegistryError, Unavailable
from app.domain.limits import DEADLOCK_TRIES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    from app.store.statements import Statement

T = TypeVar("T")
Row = asyncpg.Record

# Generic plans take 25-42 % off a GET by tag (0.28 against 0.45 ms); no statement filters a partition key by list.
# A statement that takes this long, or waits this long for a lock, is given up: the client gets a 503 and tries again.
_SESSION: Final = {
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "enable_seqscan": "off",
    "application_name": "registry",
    "statement_timeout": "30s",
    "lock_timeout": "10s",
}
_LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what asyncpg makes of the server's farewell when it comes just before our statement
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    ConnectionError,
    OSError,
)
_BUSY: Final = (
    asyncpg.TooManyConnectionsError,
    asyncpg.QueryCanceledError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
)
_RETRIED: Final = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


@dataclass(frozen=True)
class Target:
    """Where the database is. `host` may be the directory of a Unix socket. Empty values take libpq's defaults."""

    host: str
    port: int = 5432
    user: str = ""
    password: str = field(default="", repr=False)
    database: str = ""
    sslmode: str = ""
    sslcert: str = ""
    sslkey: str = ""
    sslrootcert: str = ""
    connect_timeout_seconds: float = 60.0

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `asyncpg.connect`."""
        tls = {
            key: value
            for key in ("sslmode", "sslcert", "sslkey", "sslrootcert")
            if (value := getattr(self, key))
        }
        return {
            "dsn": "postgresql:///?" + urlencode(tls) if tls else None,
            "host": self.host,
            "port": self.port,
            "user": self.user or None,
            "password": self.password or None,
            "database": self.database or None,
            "timeout": self.connect_timeout_seconds,
        }


class Timings(Protocol):
    """Takes how long each statement was under way."""

    def statement(self, name: str, seconds: float) -> None: ...


class Connection:
    """One connection, held for one use. Store functions take it; they never begin or commit."""

    __slots__ = ("_raw", "_timings")

    def __init__(self, raw: Any, timings: Timings | None) -> None:
        self._raw = raw
        self._timings = timings

    async def all(self, statement: Statement, /, **values: Any) -> list[Row]:
        """Every row."""
        began = perf_counter()
        rows: list[Row] = await self._raw.fetch(statement.text, *statement.arguments(values))
        if self._timings is not None:
            self._timings.statement(statement.name, perf_counter() - began)
        return rows

    async def one(self, statement: Statement, /, **values: Any) -> Row | None:
        """The first row, or None."""
        began = perf_counter()
        row: Row | None = await self._raw.fetchrow(statement.text, *statement.arguments(values))
        if self._timings is not None:
            self._timings.statement(statement.name, perf_counter() - began)
        return row

    async def value(self, statement: Statement, /, **values: Any) -> Any:
        """The first column of the first row, or None."""
        row = await self.one(statement, **values)
        return None if row is None else row[0]


async def _no_reset(_: Any) -> None:
    """Nothing to undo: sessions hold no state but their settings. asyncpg's own reset is a round trip per use."""


class Database:
    """The pool of one process. `open` makes it, `close` gives every connection back."""

    def __init__(
        self, pool: Any, *, wrapped: bool, queue_seconds: float, timings: Timings | None = None
    ) -> None:
        self._pool = pool
        self._wrapped = wrapped
        self._queue_seconds = queue_seconds
        self._timings = timings

    @classmethod
    async def open(
        cls,
        target: Target,
        *,
        connections_max: int,
        connections_idle: int = 0,
        idle_seconds: float = 300.0,
        prepared_statements: bool = True,
        queue_seconds: float = 5.0,
        timings: Timings | None = None,
    ) -> Database:
        """Connect. Raises Unavailable if the server cannot be reached.

        `prepared_statements` is off behind PgBouncer in transaction mode, which also refuses our session settings.
        """
        pool = asyncpg.create_pool(
            **target.arguments(),
            min_size=min(connections_idle, connections_max),
            max_size=connections_max,
            max_inactive_connection_lifetime=idle_seconds,
            statement_cache_size=1024 if prepared_statements else 0,
            server_settings=_SESSION if prepared_statements else None,
            reset=_no_reset,
        )
        try:
            await pool
            async with pool.acquire():  # a pool that keeps none idle has not connected yet
                pass
        except (*_LOST, *_BUSY, TimeoutError, asyncpg.PostgresError) as error:
            raise Unavailable("the metadata database cannot be reached") from error
        return cls(pool, wrapped=not prepared_statements, queue_seconds=queue_seconds, timings=timings)

    async def close(self) -> None:
        """Give back every connection; those still in use are waited for."""
        await self._pool.close()

    async def read(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `work`, which only reads. Tried again for each connection that turns out to be dead."""
        for _ in range(self._pool.get_max_size()):
            try:
                return await self._attempt(work)
            except _ConnectionLost:
                continue
        try:
            return await self._attempt(work)
        except _ConnectionLost as error:
            raise Unavailable("the metadata database cannot be reached") from error

    async def write(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `work`, one statement that writes, tried again when it was chosen as a deadlock's victim."""
        for attempt in range(1, DEADLOCK_TRIES + 1):
            try:
                return await self._attempt(work)
            except _RETRIED as error:
                if attempt == DEADLOCK_TRIES:
                    raise Unavailable("the metadata database is busy") from error
                await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311
            except _ConnectionLost as error:
                raise Unavailable("the metadata database cannot be reached") from error
        raise AssertionError

    async def renew(self) -> None:
        """Replace every connection that is open now, each when it is next wanted."""
        await self._pool.expire_connections()

    def occupancy(self) -> tuple[int, int]:
        """(connections in use, connections open)."""
        size, idle = self._pool.get_size(), self._pool.get_idle_size()
        return size - idle, size

    async def _attempt(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        with _translated():
            async with self._connection() as connection:
                return await work(connection)

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[Connection, None]:
        try:
            raw = await self._pool.acquire(timeout=self._queue_seconds)
        except TimeoutError as error:
            raise Unavailable("too many requests wait for the metadata database") from error
        except _LOST as error:
            raise Unavailable("the metadata database cannot be reached") from error
        try:
            if self._wrapped:
                async with raw.transaction():
                    yield Connection(raw, self._timings)
            else:
                yield Connection(raw, self._timings)
        except asyncpg.DataError:  # a wrong argument: our mistake, not the connection's
            raise
        except _LOST:
            raw.terminate()  # not every broken connection knows yet that it is closed
            raise
        finally:
            await self._pool.release(raw)


class _ConnectionLost(Exception):
    """The connection broke, so that nobody knows whether its last statement was carried out."""


@contextmanager
def _translated() -> Generator[None, None, None]:
    """PostgreSQL's errors in the registry's own words. What a deadlock's victim may try again stays as it is."""
    try:
        yield
    except asyncpg.ForeignKeyViolationError as error:
        raise _of_constraint(error) from error
    except _BUSY as error:
        raise Unavailable("the metadata database is busy") from error
    except asyncpg.DataError:  # a wrong argument: our mistake, not the connection's
        raise
    except _LOST as error:
        raise _ConnectionLost from error


def _of_constraint(error: asyncpg.ForeignKeyViolationError) -> RegistryError:
    """What a broken foreign key means to a client."""
    if (error.constraint_name or "").endswith("repository_id_fkey"):
        return NameUnknown("the repository was removed meanwhile")
    return Unavailable("something that this request needs was removed meanwhile; try again")
