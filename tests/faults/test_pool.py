"""The pool of one process when PostgreSQL goes, comes, hangs, is full or has become another."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest
from sqlalchemy import func, select

from app.domain.errors import Unavailable
from app.domain.limits import DATABASE_SILENCE_SECONDS_MAX
from app.store import health, repositories
from app.store.engine import Connection, Database
from app.store.pool import Pool
from app.store.statements import Statement
from tests.faults.place import MAX_CONNECTIONS
from tests.store.scenes import name_of
from tests.support.effort import EFFORT
from tests.support.postgres import connected

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from app.store.engine import Target
    from tests.faults.place import Cluster

PATIENCE_SECONDS: Final = 30.0
PID: Final = Statement("tests.pid", select(func.pg_backend_pid()))
SLEEP: Final = Statement("tests.sleep", select(func.pg_sleep(0.05)))


def pid(c: Connection) -> Awaitable[int]:
    return c.value(PID)


def sleep(c: Connection) -> Awaitable[Any]:
    return c.value(SLEEP)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            await scenario()

    asyncio.run(bounded())


async def until(condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def opened(target: Target, connections: int = 4, **more: Any) -> AsyncGenerator[Database]:
    database = await Database.open(target, connections_max=connections, **more)
    try:
        yield database
    finally:
        await database.close()


async def outcome(call: Awaitable[Any]) -> str:
    """Nothing, or why it was refused."""
    try:
        await call
    except Unavailable as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def target(cluster: Cluster) -> Target:
    """A database."""
    return cluster.create()


# With PostgreSQL


def test_requests_when_postgresql_is_away_for_less_than_they_may_wait_then_all_are_served(
    target: Target,
    cluster: Cluster,
) -> None:
    async def scenario() -> None:
        async with opened(target, queue_seconds=PATIENCE_SECONDS) as database:
            await database.read(pid)
            cluster.kill()
            reads = [asyncio.ensure_future(database.read(pid)) for _ in range(50)]
            await asyncio.sleep(0.3)
            writes = [asyncio.ensure_future(database.write(pid)) for _ in range(20)]
            await asyncio.sleep(0)
            cluster.restart()
            began = time.monotonic()
            await asyncio.wait(reads + writes)
            assert time.monotonic() - began < 5
            assert len({await one for one in reads + writes}) <= 4

    run(scenario)


def test_requests_when_postgresql_has_been_away_for_long_then_are_refused_at_once(
    target: Target, cluster: Cluster
) -> None:
    async def scenario() -> None:
        async with opened(target, queue_seconds=0.3) as database:
            with cluster.down():
                first = await outcome(database.read(pid))
                assert first == "the metadata database cannot be reached"
                await asyncio.sleep(0.3)
                began = time.monotonic()
                for _ in range(100):
                    assert await outcome(database.read(pid)) == first
                    assert await outcome(database.write(pid)) == first
                assert time.monotonic() - began < 0.3 * 20
                assert database.occupancy() == (0, 0)
            await until_served(database)

    run(scenario)


async def until_served(database: Database, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while await outcome(database.write(pid)):
            await asyncio.sleep(0.01)


def test_statement_when_postgresql_hangs_then_it_is_cut_off_and_after_that_all_is_well(
    target: Target, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with opened(target, queue_seconds=0.3, answer_seconds=0.8) as database:
            await database.read(pid)
            with cluster.frozen():
                began = time.monotonic()
                assert await outcome(database.write(pid)) == "the metadata database cannot be reached"
                assert await outcome(database.read(pid)) == "the metadata database cannot be reached"
                assert 0.8 < time.monotonic() - began < 8
            await until_served(database)
        assert "silent for too long" in caplog.text

    run(scenario)


def test_pool_when_postgresql_has_no_connection_left_then_it_goes_on_with_those_it_has(
    target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with opened(target, queue_seconds=PATIENCE_SECONDS) as database:
            only = await database.read(pid)
            async with AsyncExitStack() as stack:
                with suppress(asyncpg.TooManyConnectionsError):
                    for _ in range(MAX_CONNECTIONS):
                        await stack.enter_async_context(connected(target))
                with pytest.raises(Unavailable, match="too many clients"):
                    await health.ping(target)
                for _ in range(20):
                    async with asyncio.TaskGroup() as group:
                        answers = [group.create_task(database.read(pid)) for _ in range(10)]
                    assert {answer.result() for answer in answers} == {only}
                assert caplog.text.count("no new connection") == 1
            await until_all_are_open(database, 4)

    run(scenario)


async def until_all_are_open(database: Database, connections: int) -> None:
    """Have it asked for more than it has, again and again: how long a server takes for a new one is its own affair."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while database.occupancy()[1] < connections:
            async with asyncio.TaskGroup() as group:
                for _ in range(2 * connections):
                    group.create_task(database.read(sleep))


@pytest.mark.parametrize("prepared", [True, False], ids=["direct", "pgbouncer"])
def test_pool_when_requests_are_cancelled_at_any_moment_then_no_connection_is_lost_or_left_in_a_transaction(
    target: Target, prepared: bool
) -> None:
    async def scenario() -> None:
        async with opened(target, 3, prepared_statements=prepared) as database:
            for number in range(20 * EFFORT):
                tasks = [asyncio.ensure_future(database.write(sleep)) for _ in range(6)]
                await asyncio.sleep(number * 0.12 / (20 * EFFORT))
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
            assert len({await database.read(pid) for _ in range(20)}) <= 3
            await until(lambda: database.occupancy()[0] == 0)
            assert database.occupancy()[1] <= 3
            async with asyncio.TaskGroup() as group:
                for _ in range(30):
                    group.create_task(database.write(sleep))
            async with connected(target) as connection:
                states = await connection.fetch(
                    "SELECT state FROM pg_stat_activity"
                    " WHERE datname = current_database() AND backend_type = 'client backend'"
                    " AND pid <> pg_backend_pid()"
                )
            assert {state for (state,) in states} <= {"idle"}
            assert len(states) <= 3

    run(scenario)


def test_statement_when_it_is_cancelled_then_its_connection_is_not_used_before_the_server_has_let_go_of_it(
    target: Target, cluster: Cluster
) -> None:
    async def scenario() -> None:
        async with opened(target, 1) as database:
            before = await database.read(pid)
            with cluster.frozen():
                leaving = asyncio.ensure_future(database.read(sleep))
                await asyncio.sleep(0.05)
                leaving.cancel()
                await asyncio.wait((leaving,))
                await asyncio.sleep(0.05)
                assert database.occupancy() == (1, 1)
            assert await database.read(pid) == before
            assert database.occupancy() == (0, 1)

    run(scenario)


def test_transaction_when_it_is_cancelled_between_statements_then_it_ends_with_its_connection(
    target: Target,
) -> None:
    async def scenario() -> None:
        begun = asyncio.Event()

        async def work(c: Connection) -> None:
            await repositories.ensure(c, name_of("cancelled/here"))
            begun.set()
            await asyncio.sleep(PATIENCE_SECONDS)

        async def find(c: Connection) -> int | None:
            return await repositories.find(c, name_of("cancelled/here"))

        async with opened(target, 1, prepared_statements=False) as database:
            leaving = asyncio.ensure_future(database.write(work))
            await begun.wait()
            leaving.cancel()
            await asyncio.wait((leaving,))
            for _ in range(3):
                assert await database.read(find) is None
                assert not await outcome(database.write(pid))
            async with connected(target) as connection:
                assert (
                    await connection.fetchval(
                        "SELECT count(*) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
                    )
                    == 0
                )

    run(scenario)


def test_transaction_when_its_statement_fails_then_it_is_rolled_back_and_the_connection_is_kept(
    target: Target,
) -> None:
    async def scenario() -> None:
        async def work(c: Connection) -> None:
            await repositories.ensure(c, name_of("rolled/back"))
            raise LookupError

        async def find(c: Connection) -> int | None:
            return await repositories.find(c, name_of("rolled/back"))

        async with opened(target, 1, prepared_statements=False) as database:
            before = await database.read(pid)
            with pytest.raises(LookupError):
                await database.write(work)
            assert await database.read(find) is None
            assert await database.read(pid) == before

    run(scenario)


def test_pool_when_it_is_unused_then_it_shrinks_to_what_it_keeps(target: Target) -> None:
    async def scenario() -> None:
        async with opened(target, 4, connections_idle=2, idle_seconds=0.2) as database:
            await until(lambda: database.occupancy() == (0, 2))
            await until_all_are_open(database, 4)
            assert database.occupancy() == (0, 4)
            await until(lambda: database.occupancy() == (0, 2))

    run(scenario)


def test_pool_when_what_it_keeps_is_ended_then_it_is_replaced_when_next_asked(target: Target) -> None:
    async def scenario() -> None:
        async with opened(target, 4, connections_idle=3) as database:
            await until(lambda: database.occupancy() == (0, 3))
            async with connected(target) as connection:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'registry'"
                )
            await until(lambda: database.occupancy() == (0, 0))
            await database.write(pid)
            await until(lambda: database.occupancy() == (0, 3))

    run(scenario)


def test_pool_when_renewed_then_every_connection_is_replaced_as_it_is_wanted(target: Target) -> None:
    async def scenario() -> None:
        async with opened(target, 1) as database:
            before = await database.read(pid)
            assert await database.read(pid) == before
            await database.renew()
            after = await database.read(pid)
            assert after != before
            assert await database.read(pid) == after
            assert database.occupancy() == (0, 1)

    run(scenario)


def test_close_when_connections_are_in_use_then_it_waits_for_them_and_refuses_who_comes(
    target: Target,
) -> None:
    async def scenario() -> None:
        begun, goes_on = asyncio.Event(), asyncio.Event()

        async def work(c: Connection) -> int:
            begun.set()
            await goes_on.wait()
            return await pid(c)

        database = await Database.open(target, connections_max=1)
        busy = asyncio.ensure_future(database.write(work))
        await begun.wait()
        waiting = asyncio.ensure_future(outcome(database.read(pid)))
        closing = asyncio.ensure_future(database.close())
        await asyncio.sleep(0.05)
        assert not closing.done()
        goes_on.set()
        await closing
        assert busy.done()
        assert busy.exception() is None
        assert await waiting == await outcome(database.read(pid)) == "the registry is stopping"
        assert database.occupancy() == (0, 0)

    run(scenario)


def test_close_when_it_is_cut_short_then_nothing_stays_open(target: Target, cluster: Cluster) -> None:
    async def scenario() -> None:
        database = await Database.open(target, connections_max=2)
        await database.read(pid)
        with cluster.frozen():
            busy = asyncio.ensure_future(outcome(database.read(pid)))
            await asyncio.sleep(0.01)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await database.close()
            assert await busy
        assert database.occupancy() == (0, 0)

    run(scenario)


def test_connection_when_it_is_by_tcp_then_the_kernel_asks_whether_the_other_side_is_still_there(
    target: Target,
) -> None:
    async def scenario() -> None:
        async with forwarded(target) as remote, opened(remote, 1) as database:

            async def work(c: Connection) -> list[int]:
                found = c._raw._transport.get_extra_info("socket")
                return [
                    found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                    found.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                    found.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
                ]

            seconds = DATABASE_SILENCE_SECONDS_MAX
            assert await database.read(work) == [1, seconds, seconds * 1000]

    run(scenario)


@asynccontextmanager
async def forwarded(target: Target) -> AsyncGenerator[Target]:
    """The same database, by TCP."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(f"{target.host}/.s.PGSQL.{target.port}")
        async with asyncio.TaskGroup() as group:
            group.create_task(copy(reader, to_server))
            group.create_task(copy(from_server, writer))

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while block := await reader.read(65536):
            writer.write(block)
        writer.close()

    async with await asyncio.start_server(forward, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield replace(target, host=host, port=port, sslmode="disable")


# With a server that is told what to do


class Raw:
    """A connection of asyncpg's, as far as the pool uses it."""

    def __init__(self) -> None:
        self.is_open = True

    def is_closed(self) -> bool:
        return not self.is_open

    def terminate(self) -> None:
        self.is_open = False

    async def close(self, *, timeout: float) -> None:
        self.is_open = False

    async def execute(self, statement: str, *, timeout: float) -> None:
        await asyncio.sleep(0)


class Server:
    """Counts who tries to connect. `error` is what they get, `goes_on` what they wait for."""

    def __init__(self) -> None:
        self.attempts = 0
        self.under_way = 0
        self.most = 0
        self.error: Exception | None = None
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def connect(self) -> Raw:
        self.attempts += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.goes_on.wait()
            await asyncio.sleep(0)
        finally:
            self.under_way -= 1
        if self.error is not None:
            raise self.error
        return Raw()


@asynccontextmanager
async def pool_of(server: Server, connections: int = 4, queue_seconds: float = 0.5) -> AsyncGenerator[Pool]:
    pool = Pool(
        server.connect,
        connections_max=connections,
        connections_idle=0,
        idle_seconds=0,
        queue_seconds=queue_seconds,
        answer_seconds=10,
    )
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close()


async def use(pool: Pool) -> None:
    held = pool.take() or await pool.wait()
    await asyncio.sleep(0)
    pool.give_back(held)


def lose_all(pool: Pool) -> None:
    """What happens to a pool whose server has ended."""
    while (held := pool.take()) is not None:
        pool.suspect(held)
        pool.discard(held)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        asyncpg.CannotConnectNowError("the database system is starting up"),
        asyncpg.InvalidPasswordError("password authentication failed"),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_pool_when_the_server_is_gone_then_one_attempt_at_a_time_is_made_however_many_wait(
    error: Exception,
) -> None:
    async def scenario() -> None:
        server = Server()
        async with pool_of(server, queue_seconds=0.2) as pool:
            server.error = error
            lose_all(pool)
            waiting = [asyncio.ensure_future(outcome(use(pool))) for _ in range(1000)]
            await asyncio.wait(waiting)
            assert {await one for one in waiting} == {"the metadata database cannot be reached"}
            began, before = time.monotonic(), server.attempts
            # At most as many as there may be connections have tried before it was known, and then one now and then.
            assert before <= 4 + 12
            server.most = 0
            while time.monotonic() - began < 0.5:
                assert await outcome(use(pool))
                await asyncio.sleep(0.001)
            assert server.attempts - before <= 12
            assert server.most <= 1
            server.error = None
            await until_back(pool)
            assert pool.occupancy() == (0, 1)

    run(scenario)


async def until_back(pool: Pool) -> None:
    async with asyncio.timeout(3):
        while await outcome(use(pool)):
            await asyncio.sleep(0.01)


def test_pool_when_the_server_has_been_away_for_long_then_the_first_who_comes_is_refused_at_once() -> None:
    async def scenario() -> None:
        server = Server()
        async with pool_of(server, queue_seconds=0.5) as pool:
            server.error = ConnectionRefusedError()
            lose_all(pool)
            leaving = asyncio.ensure_future(use(pool))
            await until(lambda: server.attempts > 1)
            leaving.cancel()
            await asyncio.sleep(0.6)
            with pytest.raises(Unavailable, match="cannot be reached"):
                pool.wait().send(None)  # without a moment's waiting

    run(scenario)


def test_pool_when_connecting_hangs_then_requests_are_refused_at_once_after_one_wait() -> None:
    async def scenario() -> None:
        server = Server()
        async with pool_of(server) as pool:
            lose_all(pool)
            server.goes_on.clear()
            assert await outcome(use(pool)) == "the metadata database cannot be reached"
            began = time.monotonic()
            for _ in range(1000):
                assert await outcome(use(pool)) == "the metadata database cannot be reached"
            assert time.monotonic() - began < 0.5 * 100
            assert server.under_way <= 4
            server.goes_on.set()
            await until_back(pool)

    run(scenario)


def test_pool_when_many_ask_then_connections_and_those_being_made_are_never_too_many() -> None:
    async def scenario() -> None:
        server = Server()
        async with pool_of(server, queue_seconds=PATIENCE_SECONDS) as pool:
            for _ in range(20):
                async with asyncio.TaskGroup() as group:
                    for _ in range(50):
                        group.create_task(use(pool))
                assert pool.occupancy() <= (0, 4)
                lose_all(pool)
            assert server.most <= 4

    run(scenario)
