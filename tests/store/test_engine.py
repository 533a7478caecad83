"""The pool: bounded, patient for so long, and well again after whatever befalls the server."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest
from sqlalchemy import bindparam, func, select
from sqlalchemy.types import BigInteger, Text

from app.domain.digest import Digest
from app.domain.errors import NameUnknown, Unavailable
from app.domain.limits import DEADLOCK_TRIES
from app.domain.names import Tag
from app.services.pull import Pull
from app.services.push_manifest import ManifestRules, PushManifest
from app.services.repository_ids import RepositoryIds
from app.store import blobs, health, repositories
from app.store.engine import Connection, Database, Target
from app.store.statements import Statement
from tests.store.scenes import PATIENCE_SECONDS, Actor, digests, manifest_digest, name_of, play
from tests.support.postgres import connected
from tests.support.registry import image, index

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from tests.store.scenes import Stage
    from tests.support.registry import Image

PID: Final = Statement("tests.pid", select(func.pg_backend_pid()))
ANSWER: Final = Statement("tests.answer", select(func.abs(42)))
LOCK: Final = Statement("tests.lock", select(func.pg_advisory_lock(bindparam("key", type_=BigInteger))))
SETTING: Final = Statement("tests.setting", select(func.current_setting(bindparam("name", type_=Text))))
KEY: Final = 7


@dataclass
class Named:
    """Timings: the names of the statements that were carried out."""

    names: list[str] = field(default_factory=list[str])

    def statement(self, name: str, seconds: float) -> None:
        assert seconds >= 0
        self.names.append(name)


def answer(c: Connection) -> Awaitable[Any]:
    return c.value(ANSWER)


def pid(c: Connection) -> Awaitable[Any]:
    return c.value(PID)


# Not those that other databases of the server have.
ADVISORY_LOCKS = """
    SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE datname = current_database() AND locktype = 'advisory'
"""


def lock(c: Connection) -> Awaitable[Any]:
    return c.value(LOCK, key=KEY)


@asynccontextmanager
async def opened(target: Target, connections: int = 1, **more: Any) -> AsyncGenerator[Database]:
    database = await Database.open(target, connections_max=connections, **more)
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def locked(target: Target) -> AsyncGenerator[Actor]:
    """Hold what `lock` waits for."""
    async with connected(target) as raw:
        await raw.fetchval("SELECT pg_advisory_lock($1)", KEY)
        yield Actor(raw)


async def waiting(actor: Actor, count: int = 1) -> list[int]:
    """Return once `count` sessions wait behind `actor`: their pids."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            found = await actor.value(
                "SELECT array_agg(pid) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))",
                actor.pid,
            )
            if len(found or ()) == count:
                return found
            await asyncio.sleep(0.002)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(bounded())


# The pool


def test_pool_when_every_connection_is_in_use_then_the_next_request_waits_and_is_refused(
    database: Target,
) -> None:
    async def scenario() -> None:
        async with opened(database, connections=2, queue_seconds=1) as pool, locked(database) as holder:
            async with asyncio.TaskGroup() as group:
                held = [group.create_task(expect_unavailable(pool.write(lock))) for _ in range(2)]
                await waiting(holder, 2)
                assert pool.occupancy() == (2, 2)
                with pytest.raises(Unavailable, match="too many requests") as refused:
                    await pool.read(answer)
                assert ("Retry-After", "2") in refused.value.headers
                with pytest.raises(Unavailable):
                    await pool.write(answer)
                assert not any(task.done() for task in held)
                for waiter in await waiting(holder, 2):
                    await holder.value("SELECT pg_cancel_backend($1)", waiter)
            assert await pool.read(answer) == 42
            assert pool.occupancy()[0] == 0

    run(scenario)


def test_pool_when_a_connection_is_given_back_in_time_then_who_waited_gets_it(database: Target) -> None:
    async def scenario() -> None:
        async with (
            opened(database, queue_seconds=20) as pool,
            locked(database) as holder,
            asyncio.TaskGroup() as group,
        ):
            held = group.create_task(pool.write(lock))
            (first,) = await waiting(holder)
            queued = group.create_task(pool.read(pid))
            await asyncio.sleep(0.05)
            assert not queued.done()
            await holder.value("SELECT pg_advisory_unlock($1)", KEY)
            await held
            assert await queued == first

    run(scenario)


def test_pool_when_many_ask_at_once_then_it_never_has_more_connections_than_allowed(database: Target) -> None:
    async def scenario() -> None:
        async with opened(database, connections=3) as pool:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(pool.read(pid)) for _ in range(60)]
            assert len({task.result() for task in tasks}) <= 3
            assert pool.occupancy() <= (0, 3)

    run(scenario)


def test_pool_when_a_waiting_request_is_cancelled_then_its_connection_is_good_for_the_next(
    database: Target,
) -> None:
    async def scenario() -> None:
        async with opened(database) as pool, locked(database) as holder:
            abandoned = asyncio.ensure_future(pool.write(lock))
            await waiting(holder)
            abandoned.cancel()
            with pytest.raises(asyncio.CancelledError):
                await abandoned
            assert await pool.read(answer) == 42
            assert await holder.value(ADVISORY_LOCKS) == 1

    run(scenario)


@pytest.mark.parametrize("idle", [0, 1])
def test_open_when_the_server_cannot_be_reached_then_unavailable_is_raised(
    database: Target, idle: int
) -> None:
    async def scenario() -> None:
        for wrong in (replace(database, port=1), replace(database, database="nowhere")):
            with pytest.raises(Unavailable, match="cannot be reached"):
                await Database.open(wrong, connections_max=2, connections_idle=idle)
            with pytest.raises(Unavailable):
                await health.ping(wrong)
        await health.ping(database)

    run(scenario)


def test_session_when_opened_then_plans_are_generic_and_waits_are_bounded(database: Target) -> None:
    async def scenario() -> None:
        async with opened(database) as pool:
            found = {
                name: await pool.read(lambda c, name=name: c.value(SETTING, name=name))
                for name in (
                    "plan_cache_mode",
                    "jit",
                    "application_name",
                    "statement_timeout",
                    "lock_timeout",
                )
            }
        assert found == {
            "plan_cache_mode": "force_generic_plan",
            "jit": "off",
            "application_name": "registry",
            "statement_timeout": "30s",
            "lock_timeout": "10s",
        }

    run(scenario)


# Servers that go away


def terminate_unnoticed(target: Target, *pids: int) -> None:
    """End these sessions while the event loop stands still, so that the pool cannot know."""

    async def terminate() -> None:
        async with connected(target) as connection:
            for one in pids:
                assert await connection.fetchval("SELECT pg_terminate_backend($1, 5000)", one)

    thread = threading.Thread(target=lambda: asyncio.run(terminate()))
    thread.start()
    thread.join()


async def warm(pool: Database, connections: int) -> list[int]:
    """Make the pool open all of its connections: their pids."""
    barrier = asyncio.Barrier(connections)

    async def work(c: Connection) -> int:
        found = await c.value(PID)
        await barrier.wait()
        return found

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(pool.read(work)) for _ in range(connections)]
    assert pool.occupancy() == (0, connections)
    return [task.result() for task in tasks]


@pytest.mark.parametrize("connections", [1, 4])
def test_read_when_every_connection_was_terminated_then_it_succeeds(
    database: Target, connections: int
) -> None:
    async def scenario() -> None:
        async with opened(database, connections) as pool:
            terminate_unnoticed(database, *await warm(pool, connections))
            assert await pool.read(answer) == 42
            terminate_unnoticed(database, *await warm(pool, connections))
            async with asyncio.TaskGroup() as group:
                for _ in range(connections * 5):
                    group.create_task(pool.read(answer))

    run(scenario)


@pytest.mark.parametrize("prepared", [True, False], ids=["direct", "pgbouncer"])
def test_write_when_its_connection_was_terminated_then_it_is_refused_once_and_the_next_succeeds(
    database: Target, prepared: bool
) -> None:
    async def scenario() -> None:
        async with opened(database, prepared_statements=prepared) as pool:
            backend = await pool.read(pid)

            terminate_unnoticed(database, backend)
            # Whether a write that was under way took place nobody knows, so the client decides.
            with pytest.raises(Unavailable, match="cannot be reached"):
                await pool.write(answer)
            assert await pool.write(answer) == 42

    run(scenario)


def test_write_when_its_session_is_terminated_in_the_middle_then_it_is_refused_and_the_next_succeeds(
    database: Target,
) -> None:
    async def scenario() -> None:
        async with opened(database) as pool, locked(database) as holder:
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(expect_unavailable(pool.write(lock)))
                (waiter,) = await waiting(holder)
                assert await holder.value("SELECT pg_terminate_backend($1)", waiter)
                await writing
            assert await pool.write(answer) == 42
            assert await pool.read(pid) != waiter

    run(scenario)


async def expect_unavailable(call: Awaitable[Any]) -> None:
    with pytest.raises(Unavailable):
        await call


def test_write_when_the_database_is_read_only_then_it_is_refused(database: Target) -> None:
    async def scenario() -> None:
        async with connected(database) as connection:
            await connection.execute("SET default_transaction_read_only = off")
            name = database.database
            await connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
            try:
                async with opened(database) as pool:
                    with pytest.raises(Unavailable, match="read-only"):
                        await pool.write(lambda c: repositories.ensure(c, name_of("a")))
                    assert await pool.read(answer) == 42
            finally:
                await connection.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')

    run(scenario)


def test_write_when_the_repository_is_gone_then_the_name_is_unknown(database: Target) -> None:
    async def scenario() -> None:
        async with connected(database) as raw, opened(database) as pool:
            digest = await Actor(raw).push_blob("a", b"a")
            with pytest.raises(NameUnknown):
                await pool.write(lambda c: blobs.mount(c, None, 999_999, digest))

    run(scenario)


def test_statement_when_an_argument_is_of_the_wrong_kind_then_our_mistake_is_not_taken_for_a_lost_connection(
    database: Target,
) -> None:
    async def scenario() -> None:
        async with opened(database) as pool:
            before = await pool.read(pid)
            for call in (pool.read, pool.write):
                with pytest.raises(asyncpg.DataError, match="invalid input"):
                    await call(lambda c: c.value(SETTING, name=5))
                with pytest.raises(KeyError):
                    await call(lambda c: c.value(SETTING))
            assert await pool.read(pid) == before

    run(scenario)


def test_read_when_the_server_ends_every_session_each_time_then_it_is_given_up(database: Target) -> None:
    async def scenario() -> None:
        async with opened(database, 2) as pool, connected(database) as raw:

            async def work(c: Connection) -> Any:
                await raw.fetchval("SELECT pg_terminate_backend($1, 5000)", await c.value(PID))
                return await c.value(ANSWER)

            with pytest.raises(Unavailable, match="cannot be reached"):
                await pool.read(work)
            assert await pool.read(answer) == 42

    run(scenario)


# Deadlocks


def test_write_when_it_is_chosen_as_a_deadlocks_victim_then_it_is_tried_again_and_succeeds(
    database: Target,
) -> None:
    pushed = image(b"a", b"b", config=b"{}")
    first, middle, last = sorted(digest.packed for digest in digests(pushed))

    async def scene(s: Stage) -> None:
        culprit, gate = await s.actors(2)
        await culprit.push_blobs("a", pushed)
        # The other side breaks the order of locks, and is so patient that ours is the victim.
        await culprit.raw.execute("SET deadlock_timeout = '1min'")
        async with eager_deadlocks(s.observer, database), opened(database) as pool:
            async with culprit.transaction():
                await take(culprit, last)
                async with gate.transaction():
                    await take(gate, middle)
                    writing = asyncio.ensure_future(
                        PushManifest(pool, RepositoryIds(pool), ManifestRules()).put(
                            name_of("a"), manifest_digest(pushed), [], pushed.payload, pushed.media_type
                        )
                    )
                    await waiting(gate)
                    taking = s.start(culprit, take(culprit, first))
                    await s.waits(taking)
                await taking  # only when ours has given way
                assert not writing.done()
            await writing
        assert await s.count("manifests") == 1

    async def take(actor: Actor, digest: bytes) -> None:
        assert await actor.value("SELECT 1 FROM blobs WHERE digest = $1 FOR UPDATE", digest) == 1

    play(database, scene)


@asynccontextmanager
async def eager_deadlocks(actor: Actor, target: Target) -> AsyncGenerator[None]:
    """New sessions look for a deadlock after 20 ms of waiting, not after a second."""
    await actor.value(f"ALTER DATABASE \"{target.database}\" SET deadlock_timeout = '20ms'")
    try:
        yield
    finally:
        await actor.value(f'ALTER DATABASE "{target.database}" RESET deadlock_timeout')


@pytest.mark.parametrize("failures", [0, 1, DEADLOCK_TRIES - 1, DEADLOCK_TRIES])
def test_write_when_it_is_a_victim_time_and_again_then_it_is_given_up_after_so_many_tries(
    database: Target, failures: int
) -> None:
    async def scenario() -> None:
        tries = 0

        async def work(c: Connection) -> Any:
            nonlocal tries
            tries += 1
            if tries <= failures:
                raise asyncpg.DeadlockDetectedError
            return await answer(c)

        async with opened(database) as pool:
            if failures < DEADLOCK_TRIES:
                assert await pool.write(work) == 42
            else:
                with pytest.raises(Unavailable, match="busy"):
                    await pool.write(work)
        assert tries == min(failures + 1, DEADLOCK_TRIES)

    run(scenario)


# Round trips


async def statements_of(target: Target, *steps: Callable[[Services], Awaitable[Any]]) -> list[list[str]]:
    """The names of the statements of each step."""
    timings = Named()
    found: list[list[str]] = []
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(opened(target, 2, timings=timings))
        ids = RepositoryIds(pool)
        driver: Any = None  # no bytes are read here
        services = Services(Pull(pool, driver, ids), PushManifest(pool, ids, ManifestRules()))
        for step in steps:
            timings.names.clear()
            await step(services)
            found.append(list(timings.names))
    return found


@dataclass(frozen=True)
class Services:
    pull: Pull
    push: PushManifest

    async def put(self, pushed: Image, tag: str = "t") -> None:
        await self.push.put(name_of("a"), Tag(tag), [], pushed.payload, pushed.media_type)


def test_put_when_the_manifest_has_one_or_five_hundred_layers_then_it_is_one_round_trip(
    database: Target,
) -> None:
    small = image(b"a layer")
    large = image(*(b"layer %d" % n for n in range(500)))
    children = [image(b"a layer", annotations={"n": str(n)}) for n in range(50)]

    async def scenario() -> None:
        async with connected(database) as raw:
            actor = Actor(raw)
            await actor.push_blobs("a", small)
            await raw.executemany(
                "INSERT INTO blobs (digest, size, storage_key) VALUES ($1, 1, encode($1, 'hex'))",
                [(digest.packed,) for digest in digests(large) if digest != Digest.of(b"{}")],
            )
            await raw.execute(
                "INSERT INTO repository_blobs (repository_id, blob_digest)"
                " SELECT r.id, b.digest FROM repositories r, blobs b ON CONFLICT DO NOTHING"
            )
            for child in children:
                await actor.put("a", child)
        found = await statements_of(
            database,
            lambda services: services.put(small),
            lambda services: services.put(large),
            lambda services: services.put(large, "again"),
            lambda services: services.put(index(*children), "index"),
        )
        assert found == [["manifests.put"]] * 4

    run(scenario)


def test_pull_when_the_repository_is_known_then_each_look_up_is_one_round_trip(database: Target) -> None:
    pushed = image(b"a layer")
    name, layer = name_of("a"), Digest.of(b"a layer")

    async def scenario() -> None:
        async with connected(database) as raw:
            await Actor(raw).push("a", pushed, "t")
            await raw.execute("DELETE FROM gc_blob_review_queue")
            await raw.execute("DELETE FROM gc_manifest_review_queue")
        tag = Tag("t")

        async def whole(services: Services) -> None:
            await services.pull.payload(await services.pull.manifest(name, tag))

        found = await statements_of(
            database,
            whole,
            whole,
            lambda services: services.pull.manifest(name, manifest_digest(pushed)),
            lambda services: services.pull.manifest_head(name, tag),
            lambda services: services.pull.blob(name, layer),
            lambda services: services.pull.blob_head(name, layer),
        )
        assert found == [
            ["lookups.repositories", "lookups.manifests_by_tag", "manifests.payload"],
            ["lookups.manifests_by_tag"],
            ["lookups.manifests_by_digest"],
            ["lookups.manifests_by_tag"],
            ["lookups.blobs_by_digest"],
            ["lookups.blobs_by_digest"],
        ]

    run(scenario)
