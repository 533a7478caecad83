"""Connections to PostgreSQL: reads and writes on a bounded pool, and errors in the registry's own words.

Everything is asyncpg; alembic alone uses SQLAlchemy's engine. Each write of the API is one statement (a function of
`db/schema/50_functions.sql`), which is a transaction by itself, so no BEGIN and COMMIT cross the network. Behind
PgBouncer in transaction mode every call is wrapped in a transaction after all: there a statement's PARSE and EXECUTE
could otherwise reach two different servers.

Whatever is wrong with the server is Unavailable to a client, who may try again, and a line of the log to the operator.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from urllib.parse import urlencode

import asyncpg

from app.domain.errors import NameUnknown, RegistryError, Unavailable
from app.domain.limits import (
    DATABASE_ANSWER_SECONDS_MAX,
    DATABASE_FAILOVER_SECONDS,
    DATABASE_SILENCE_SECONDS_MAX,
    DEADLOCK_TRIES,
)
from app.store.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from app.store.pool import Held
    from app.store.statements import Statement

T = TypeVar("T")
Row = asyncpg.Record
_log = logging.getLogger(__name__)

# Of one attempt, if nothing else is said.
CONNECT_SECONDS: Final = 10.0
# Generic plans take 25-42 % off a GET by tag (0.28 against 0.45 ms); no statement filters a partition key by list.
# A statement that takes this long, or waits this long for a lock, is given up: the client gets a 503 and tries again.
_SESSION: Final = {
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    # Every statement follows indexes from row to row. Plans are made while tables are small, and kept.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "application_name": "registry",
    "statement_timeout": "30s",
    "lock_timeout": "10s",
}
# The session is fine; what it was asked for cannot be done now.
_BUSY: Final = (
    asyncpg.TooManyConnectionsError,
    asyncpg.QueryCanceledError,
    asyncpg.InsufficientResourcesError,
    asyncpg.LockNotAvailableError,
    asyncpg.PostgresSystemError,
)
# The session is over, or is as good as over.
_LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what asyncpg makes of the server's farewell when it comes just before our statement
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.DatabaseDroppedError,
    asyncpg.IdleSessionTimeoutError,
    OSError,
)
_RETRIED: Final = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
_BUSY_WORDS: Final = "the metadata database is busy"
_LOST_WORDS: Final = "the metadata database cannot be reached"
# Options of TCP. Unused connections are asked for a sign of life, which also keeps firewalls from forgetting them.
_SILENCE: Final = (
    ("TCP_KEEPIDLE", DATABASE_SILENCE_SECONDS_MAX),
    ("TCP_KEEPINTVL", DATABASE_SILENCE_SECONDS_MAX // 3),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", DATABASE_SILENCE_SECONDS_MAX * 1000),
)
# A server in trouble refuses thousands of statements for one reason.
_COMPLAINT_SECONDS: Final = 5.0


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
    connect_timeout_seconds: float = CONNECT_SECONDS

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


class Database:
    """The database as the requests of one process see it. `open` makes it, `close` gives every connection back."""

    def __init__(
        self,
        pool: Pool,
        *,
        wrapped: bool,
        timings: Timings | None = None,
        local: Mapping[str, str] | None = None,
    ) -> None:
        self._pool = pool
        self._wrapped = wrapped
        self._timings = timings
        self._local = "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in (local or {}).items())
        self._quiet_until = 0.0

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
        answer_seconds: float = DATABASE_ANSWER_SECONDS_MAX,
        session: Mapping[str, str] | None = None,
        timings: Timings | None = None,
    ) -> Database:
        """Connect. Raises Unavailable if the server cannot be reached.

        `session` are settings of the server beside our own. `prepared_statements` is off behind PgBouncer in
        transaction mode, which also refuses settings at the start of a session: our own are left out then, and those
        of `session` are set in each transaction.
        """

        async def connect() -> Any:
            raw: Any = await asyncpg.connect(
                **target.arguments(),
                statement_cache_size=1024 if prepared_statements else 0,
                server_settings={**_SESSION, **(session or {})} if prepared_statements else None,
            )
            _notice_silence(raw)
            return raw

        pool = Pool(
            connect,
            connections_max=connections_max,
            connections_idle=connections_idle,
            idle_seconds=idle_seconds,
            queue_seconds=queue_seconds,
            answer_seconds=answer_seconds,
        )
        try:
            await pool.open()
        except (*_LOST, asyncpg.PostgresError) as error:
            raise Unavailable(_LOST_WORDS) from error
        local = None if prepared_statements else session
        return cls(pool, wrapped=not prepared_statements, timings=timings, local=local)

    async def close(self) -> None:
        """Give back every connection; those still in use are waited for."""
        await self._pool.close()

    async def read(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `work`, which only reads. Tried again, on a new connection, if this one turns out to be dead."""
        try:
            return await self._attempt(work)
        except (_ConnectionLost, *_RETRIED):
            pass
        try:
            return await self._attempt(work)
        except _ConnectionLost as error:
            raise Unavailable(_LOST_WORDS) from error
        except _RETRIED as error:
            raise Unavailable(_BUSY_WORDS) from error

    async def write(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `work`, one statement that writes, tried again when it was chosen as a deadlock's victim."""
        for attempt in range(1, DEADLOCK_TRIES + 1):
            try:
                return await self._attempt(work)
            except _RETRIED as error:
                if attempt == DEADLOCK_TRIES:
                    raise Unavailable(_BUSY_WORDS) from error
                await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311
            except _ConnectionLost as error:
                raise Unavailable(_LOST_WORDS) from error
        raise AssertionError

    async def renew(self) -> None:
        """Replace every connection that is open now, each when it is next wanted."""
        self._pool.renew()

    def occupancy(self) -> tuple[int, int]:
        """(connections in use, connections open)."""
        return self._pool.occupancy()

    async def _attempt(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        held = self._pool.take() or await self._pool.wait()
        connection = Connection(held.raw, self._timings)
        try:
            if self._wrapped:
                found = await _in_transaction(held.raw, work, connection, self._local)
            else:
                found = await work(connection)
        except BaseException as error:
            self._let_go(held, error)
            refusal = _refusal(error)
            if refusal is None:
                raise
            self._tell(refusal, error)
            raise refusal from error
        self._pool.give_back(held)
        return found

    def _let_go(self, held: Held, error: BaseException) -> None:
        """What becomes of the connection after `error`."""
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            self._leave(held)
        elif isinstance(error, _LOST):
            # Closed here, as not every broken connection knows yet that it is.
            self._pool.suspect(held)
            self._pool.discard(held)
        elif isinstance(error, Exception) or held.raw.is_closed():
            self._pool.give_back(held)
        else:
            self._pool.settle(held)

    def _tell(self, refusal: Exception, error: BaseException) -> None:
        """Tell the operator, who hears of the first of many."""
        if not isinstance(refusal, NameUnknown) and (now := monotonic()) >= self._quiet_until:
            self._quiet_until = now + _COMPLAINT_SECONDS
            _log.warning("a statement failed: %s", str(error) or type(error).__name__)

    def _leave(self, held: Held) -> None:
        """After a fail-over the old connections lead to what is a standby now, and new ones to the new primary."""
        if monotonic() - held.opened_at < DATABASE_FAILOVER_SECONDS:
            self._pool.give_back(held)
        else:
            self._pool.suspect(held)
            self._pool.discard(held)


class _ConnectionLost(Exception):
    """The connection broke, so that nobody knows whether its last statement was carried out."""


def _refusal(error: BaseException) -> Exception | None:
    """PostgreSQL's error in the registry's own words. None: it stays as it is, as what may be tried again does."""
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        return Unavailable("the metadata database is read-only")
    if isinstance(error, _BUSY):
        return Unavailable(_BUSY_WORDS)
    if isinstance(error, _LOST):
        return _ConnectionLost()
    if isinstance(error, asyncpg.ForeignKeyViolationError):
        return _of_constraint(error)
    return None


def _of_constraint(error: asyncpg.ForeignKeyViolationError) -> RegistryError:
    """What a broken foreign key means to a client."""
    if (error.constraint_name or "").endswith("repository_id_fkey"):
        return NameUnknown("the repository was removed meanwhile")
    return Unavailable("something that this request needs was removed meanwhile; try again")


async def _in_transaction(
    raw: Any, work: Callable[[Connection], Awaitable[T]], connection: Connection, settings: str
) -> T:
    """`work` in a transaction, which ends with its connection if the server cannot be asked to end it."""
    transaction = raw.transaction()
    ended = False
    try:
        await transaction.start()
        try:
            if settings:
                await raw.execute(settings)
            found = await work(connection)
        except Exception:
            await transaction.rollback()
            ended = True
            raise
        await transaction.commit()
        ended = True
        return found
    finally:
        if not ended:
            raw.terminate()


def _notice_silence(raw: Any) -> None:
    """Have the kernel end the connection when the other side is gone without a word: its machine, or the way to it."""
    transport = getattr(raw, "_transport", None)
    found: socket.socket | None = transport.get_extra_info("socket") if transport is not None else None
    if found is None or found.family == socket.AF_UNIX:
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _SILENCE:
        if (option := getattr(socket, name, None)) is not None:  # not every system has them all
            found.setsockopt(socket.IPPROTO_TCP, option, value)
