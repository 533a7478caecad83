"""Collectors at work in this process, on a real database and a real directory, and what can befall either.

    stock = Stock(target, directory)                what is needed and what is not, once pushed, again for every run
    stock.bring_back()
    async with at_work(stock, statements=Troubles(lost)) as work:
        await work.until(work.stock.is_clear)
    stock.check()

They are paced as in a registry, only faster, and nothing they do may end them.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter, defaultdict
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import asyncpg
from prometheus_client import CollectorRegistry
from sqlalchemy import func, select
from sqlalchemy import text as sql_text

from app.blobs.driver import DeleteFailure, StorageUnavailable
from app.blobs.drivers.filesystem import Filesystem
from app.config import load
from app.runtime.gc_metrics import GcMetrics
from app.store.statements import Statement
from app.wiring.collection import collectors, open_gc_database
from gc_workers.crew import Crew
from gc_workers.loop import Loop
from gc_workers.pace import Pace, Tempo
from tests.support.fsck import assert_fsck_clean
from tests.support.invariants import assert_invariants
from tests.support.postgres import connected, restore, rows
from tests.support.registry import descriptor, digest_of, image, index, open_registry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from pathlib import Path

    from app.config import Settings
    from app.store.engine import Database, Target
    from app.store.queues import QueueState
    from gc_workers.collectors import Batch, Collector
    from tests.support.postgres import Rows

PATIENCE_SECONDS: Final = 30.0
# The longest that a statement, or a deletion in storage, may take here.
TIMEOUT_SECONDS: Final = 0.2
INTERVAL_SECONDS: Final = 0.02
FAST: Final = Tempo(batch=4, load=1, interval_seconds=INTERVAL_SECONDS, longest_seconds=0.05)
# A wait is at least so much of what was meant.
_SHORTEST_WAIT: Final = 0.8
_POLL_SECONDS: Final = 0.02

# Whatever is put off is due again, unless somebody is at it.
HURRY: Final = (
    """UPDATE gc_blob_review_queue SET review_after = now() - interval '1 second' WHERE id IN (
       SELECT id FROM gc_blob_review_queue WHERE review_after > now() FOR UPDATE SKIP LOCKED)""",
    """UPDATE gc_manifest_review_queue SET review_after = now() - interval '1 second' WHERE id IN (
       SELECT id FROM gc_manifest_review_queue WHERE review_after > now() FOR UPDATE SKIP LOCKED)""",
    """UPDATE gc_storage_deletions SET not_before = now() - interval '1 second' WHERE storage_key IN (
       SELECT storage_key FROM gc_storage_deletions WHERE not_before > now() FOR UPDATE SKIP LOCKED)""",
)
_LONG_AGO: Final = (
    "UPDATE gc_review_after_defaults SET value = '0'",
    "UPDATE gc_blob_review_queue SET review_after = now() - interval '1 hour'",
    "UPDATE gc_manifest_review_queue SET review_after = now() - interval '1 hour'",
    "UPDATE gc_storage_deletions SET not_before = now() - interval '1 hour'",
    "UPDATE blob_uploads SET updated_at = now() - interval '30 days'",
    """INSERT INTO gc_receipts (kind, event, suspected_at, deleted_at)
       SELECT 'object', 'orphan', now(), now() - interval '1 year' FROM generate_series(1, 9)""",
)
LEFT: Final = """
    SELECT (SELECT count(*) FROM gc_blob_review_queue) + (SELECT count(*) FROM gc_manifest_review_queue)
         + (SELECT count(*) FROM gc_storage_deletions) + (SELECT count(*) FROM blob_uploads)
         + (SELECT count(*) FROM gc_receipts WHERE deleted_at < now() - interval '90 days')
"""
_TOLD_TWICE: Final = """
    SELECT kind, digest, repository, storage_key, count(*) FROM gc_receipts
    GROUP BY kind, digest, repository, storage_key HAVING count(*) > 1 OR bool_or(removed_at IS NULL)
"""


# Troubles of a statement. Each takes the connection, the statement and its values, and how to send it.

_END: Final = Statement("trouble.end", select(func.pg_terminate_backend(func.pg_backend_pid())))
_DAWDLE: Final = Statement("trouble.dawdle", select(func.pg_sleep(sql_text(str(0.6 * TIMEOUT_SECONDS)))))
_HANG: Final = Statement("trouble.hang", select(func.pg_sleep(sql_text("60"))))


async def lost(connection: Any, send: Callable[[], Awaitable[Any]]) -> Any:
    """The connection ends before the server has the statement."""
    await connection.value(_END)
    return await send()


async def unanswered(connection: Any, send: Callable[[], Awaitable[Any]]) -> Any:
    """The statement is carried out, and the connection ends before its answer comes."""
    await send()
    return await connection.value(_END)


async def timed_out(connection: Any, send: Callable[[], Awaitable[Any]]) -> Any:
    """The server gives up after the time that a statement may take."""
    await connection.value(_HANG)
    return await send()


async def slow(connection: Any, send: Callable[[], Awaitable[Any]]) -> Any:
    """It takes its time."""
    await connection.value(_DAWDLE)
    return await send()


async def deadlocked(connection: Any, send: Callable[[], Awaitable[Any]]) -> Any:
    """The server chooses it as a deadlock's victim."""
    del connection, send
    raise asyncpg.DeadlockDetectedError("deadlock detected")


async def unserializable(connection: Any, send: Callable[[], Awaitable[Any]]) -> Any:
    """The server cannot put it in order with others."""
    del connection, send
    raise asyncpg.SerializationError("could not serialize access")


async def odd(connection: Any, send: Callable[[], Awaitable[Any]]) -> Any:
    """Something that nobody has thought of."""
    del connection, send
    raise asyncpg.InternalServerError("cache lookup failed")


class Troubles:
    """Each statement, by its name, meets this trouble `times` times. `met` counts them."""

    def __init__(self, trouble: Callable[..., Awaitable[Any]] | None = None, times: int = 1) -> None:
        self.met: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self._trouble = trouble
        self._times = times

    def put_into(self, database: Database) -> None:
        """From now on it meets them."""
        for name in ("read", "write"):
            setattr(database, name, self._troubled(getattr(database, name)))

    def _troubled(self, run: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def troubled(work: Callable[[Any], Awaitable[Any]]) -> Any:
            def watched(connection: Any) -> Awaitable[Any]:
                return work(_Connection(connection, self))

            return await run(watched)

        return troubled

    async def send(self, connection: Any, how: str, statement: Statement, values: dict[str, Any]) -> Any:
        """The statement, in trouble or not."""

        async def send() -> Any:
            return await getattr(connection, how)(statement, **values)

        self.sent[statement.name] += 1
        if self._trouble is None or self.met[statement.name] >= self._times:
            return await send()
        self.met[statement.name] += 1
        return await self._trouble(connection, send)


class _Connection:
    """A connection whose statements meet troubles."""

    def __init__(self, connection: Any, troubles: Troubles) -> None:
        self._connection = connection
        self._troubles = troubles

    async def all(self, statement: Statement, /, **values: Any) -> Any:
        return await self._troubles.send(self._connection, "all", statement, values)

    async def one(self, statement: Statement, /, **values: Any) -> Any:
        return await self._troubles.send(self._connection, "one", statement, values)

    async def value(self, statement: Statement, /, **values: Any) -> Any:
        return await self._troubles.send(self._connection, "value", statement, values)


# Troubles of a deletion in storage


class TroubledStorage(Filesystem):
    """The first `times` deletions meet `trouble`; the keys in `stuck` cannot be deleted at all."""

    def __init__(self, root: Path, trouble: str = "", times: int = 0) -> None:
        super().__init__(root, threads=2)
        self.stuck: set[str] = set()
        self.tried: defaultdict[str, list[float]] = defaultdict(list)
        self.met = 0
        self._trouble = trouble
        self._times = times

    async def delete(self, keys: Sequence[str]) -> Sequence[DeleteFailure]:
        for key in keys:
            self.tried[key].append(time.monotonic())
        trouble = self._trouble if self.met < self._times else ""
        self.met += bool(trouble)
        when, _, what = trouble.partition(" ")
        if when == "before":
            await self._meet(what)
        able = [key for key in keys if key not in self.stuck]
        refused = set(keys) - set(able)
        if when == "half":
            refused |= set(able[::2])
            able = able[1::2]
        failures = await super().delete(able)
        if when == "after":
            await self._meet(what)
        if trouble == "half unknown":
            refused |= set(able[::2])
        return [*failures, *(DeleteFailure(key, StorageUnavailable("no")) for key in sorted(refused))]

    async def _meet(self, what: str) -> None:
        if what == "failure":
            raise StorageUnavailable("no")
        if what == "surprise":
            raise RuntimeError("what nobody has thought of")
        await asyncio.sleep(0.6 * TIMEOUT_SECONDS if what == "delay" else PATIENCE_SECONDS)


DELETION_TROUBLES: Final = (
    *("before failure", "after failure", "before surprise", "after surprise"),
    *("before hang", "after hang", "before delay", "half failure", "half unknown"),
)


# What is collected

_KEPT: Final = image(b"shared" * 100, b"kept" * 100, config=b'{"of": "kept"}')
_GONE: Final = image(b"shared" * 100, b"gone" * 100, config=b'{"of": "gone"}')
_CHILD: Final = image(b"child" * 100, config=b'{"of": "child"}')


def _note(subject: Any, name: str) -> Any:
    about = descriptor(subject.payload, subject.media_type)
    return image(name.encode() * 50, config=b"{}", subject=about, artifactType="a/b")


SIGNATURE: Final = _note(_GONE, "signature")
NEEDED: Final = (_KEPT, _CHILD, _note(_KEPT, "note"))
UNUSED_BLOBS: Final = [f"unused {number}".encode() * 50 for number in range(9)]


class Stock:
    """What is needed, and much that is not, all of it due at once."""

    def __init__(self, target: Target, directory: Path) -> None:
        self.target = target
        self.root = directory / "objects"
        self._copy = directory / "copy"
        self.settings = self.settings_with(preparedstatements=True)
        self._rows: list[Rows] = asyncio.run(self._push())
        shutil.copytree(self.root, self._copy)

    def settings_with(self, **database: Any) -> Settings:
        """The settings of the collectors; these are of `database`."""
        return load(None, {}, base=_settings(self.target, self.root, database)).settings

    def bring_back(self) -> None:
        """As it was."""
        shutil.rmtree(self.root)
        shutil.copytree(self._copy, self.root)
        asyncio.run(restore(self.target, self._rows))

    async def fetch(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        async with connected(self.target) as connection:
            return [tuple(row) for row in await connection.fetch(sql, *arguments)]

    async def value(self, sql: str, *arguments: Any) -> Any:
        return (await self.fetch(sql, *arguments))[0][0]

    async def execute(self, *statements: str) -> None:
        async with connected(self.target) as connection:
            for statement in statements:
                await connection.execute(statement)

    async def is_clear(self) -> bool:
        """Whether nothing waits any more."""
        return await self.value(LEFT) == 0

    def objects(self) -> int:
        return sum(path.is_file() for path in self.root.rglob("*"))

    def check(self) -> None:
        """Everything that is needed is there, nothing else is, and each deletion was told once."""
        asyncio.run(self.check_soundness())
        asyncio.run(self._check_end())

    async def check_soundness(self) -> None:
        """Nothing is lost, and nothing is without a name, whatever waits."""
        driver = Filesystem(self.root, threads=1)
        try:
            await assert_invariants(self.target, driver)
            await assert_fsck_clean(self.target, driver, share=1.0)
        finally:
            await driver.close()

    async def _check_end(self) -> None:
        needed = {digest_of(blob) for kept in NEEDED for blob in kept.blobs}
        found = {row[0] for row in await self.fetch("SELECT gc_digest_text(digest) FROM blobs")}
        assert found == needed
        assert self.objects() == len(needed)
        manifests = {digest_of(row[0]) for row in await self.fetch("SELECT payload FROM manifests")}
        assert manifests == {kept.digest() for kept in (*NEEDED, index(_CHILD))}
        assert await self.value(LEFT) == 0
        assert not await self.fetch(_TOLD_TWICE)

    async def _push(self) -> list[Rows]:
        async with open_registry(self.target, self.root) as registry:
            for name, pushed in (("kept", _KEPT), ("gone", _GONE)):
                await registry.push_image("a/b", name, pushed)
            for pushed in (_CHILD, _note(_KEPT, "note"), SIGNATURE):
                await registry.push_image("a/b", pushed.digest(), pushed)
            await registry.put_manifest("a/b", "all", index(_CHILD))
            await registry.put_manifest("a/b", "both", index(_CHILD, _GONE))
            for blob in UNUSED_BLOBS:
                await registry.push_blob("c/d", blob)
            for number in range(6):
                await registry.client.post(f"/v2/c/{number}/blobs/uploads/")
            for tag in ("gone", "both"):
                answer = await registry.client.delete(f"/v2/a/b/manifests/{tag}")
                assert answer.status_code == 202
        await self.execute(*_LONG_AGO)
        return await rows(self.target)


def _settings(target: Target, root: Path, database: dict[str, Any]) -> dict[str, Any]:
    return {
        "http": {"addr": "127.0.0.1:0"},
        "storage": {"filesystem": {"rootdirectory": str(root)}},
        "database": {
            "host": target.host,
            "port": target.port,
            "user": target.user,
            "dbname": target.database,
            **database,
        },
        "gc": {
            "transactiontimeout": f"{TIMEOUT_SECONDS * 1000:.0f}ms",
            "blobs": {"storagedelay": "0s", "storagetimeout": f"{TIMEOUT_SECONDS * 1000:.0f}ms"},
        },
    }


# At work


@dataclass
class Ledger:
    """Counts turns, in the words of the metrics too."""

    metrics: CollectorRegistry = field(default_factory=CollectorRegistry)
    turns: Counter[str] = field(default_factory=Counter[str])
    # Those that brought nothing to an end.
    idle: Counter[str] = field(default_factory=Counter[str])
    failures: Counter[str] = field(default_factory=Counter[str])
    rests: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict[str, list[float]](list))
    queues: list[QueueState] = field(default_factory=list["QueueState"])

    def __post_init__(self) -> None:
        self._metrics = GcMetrics(self.metrics)

    def batch(self, collector: str, batch: Batch, seconds: float) -> None:
        self.turns[collector] += 1
        self.idle[collector] += not batch.taken
        self._metrics.batch(collector, seconds, taken=batch.taken, put_off=batch.put_off)

    def failure(self, collector: str, seconds: float) -> None:
        self.turns[collector] += 1
        self.idle[collector] += 1
        self.failures[collector] += 1
        self._metrics.failure(collector, seconds)

    def sleep(self, collector: str, seconds: float) -> None:
        self.rests[collector].append(seconds)

    def watch(self, states: Sequence[QueueState]) -> None:
        self.queues = list(states)

    def counted(self, name: str, collector: str) -> float:
        return self.metrics.get_sample_value(name, {"worker": collector}) or 0.0


@dataclass
class Work:
    """A crew at work. `limits` are the sizes of the batches that each collector was asked for."""

    stock: Stock
    storage: TroubledStorage
    ledger: Ledger
    loops: dict[str, Loop]
    limits: defaultdict[str, list[int]]
    task: asyncio.Task[None]
    began: float = field(default_factory=time.monotonic)

    async def until(
        self,
        condition: Callable[[], Awaitable[bool]],
        *,
        hurry: bool = True,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """Return once it is so; with `hurry` nothing is put off for long meanwhile. Fails if the crew ends."""
        end = time.monotonic() + patience
        while not await condition():
            assert not self.task.done(), self.task.exception()
            assert time.monotonic() < end, "it does not come to that"
            if hurry:
                with suppress(asyncpg.DeadlockDetectedError):
                    await self.stock.execute(*HURRY)
            await asyncio.sleep(_POLL_SECONDS)

    def check_pace(self) -> None:
        """Nobody looks again without a rest where there is nothing to do, or nothing can be done."""
        turns = (time.monotonic() - self.began) / (INTERVAL_SECONDS * _SHORTEST_WAIT) + 3
        assert all(idle <= turns for idle in self.ledger.idle.values()), (self.ledger.idle, turns)


@asynccontextmanager
async def at_work(
    stock: Stock,
    *,
    statements: Troubles | None = None,
    storage: TroubledStorage | None = None,
    tempo: Tempo = FAST,
    only: Sequence[str] = (),
    is_heard: bool = False,
    stop_seconds: float = 5.0,
) -> AsyncGenerator[Work]:
    """The collectors, all or `only` those, until they are told to stop; it takes them no longer than `stop_seconds`.

    Those to which `is_heard` applies are woken when they are rung for.
    """
    database = await open_gc_database(stock.settings, None)
    driver = storage or TroubledStorage(stock.root)
    try:
        (statements or Troubles()).put_into(database)
        ledger, stopping = Ledger(), asyncio.Event()
        limits: defaultdict[str, list[int]] = defaultdict(list)
        loops = {
            one.name: Loop(_noting(one, limits), Pace(tempo), ledger)
            for one in collectors(stock.settings, database, driver)
            if not only or one.name in only
        }
        crew = Crew(
            database,
            list(loops.values()),
            bell=stock.target if is_heard else None,
            watched=ledger.watch,
        )
        task = asyncio.create_task(crew.run(stopping))
        work = Work(stock, driver, ledger, loops, limits, task)
        try:
            yield work
            assert not task.done(), task.exception()
        finally:
            stopping.set()
            async with asyncio.timeout(stop_seconds):
                await task
        if not is_heard:
            work.check_pace()
    finally:
        await database.close()
        await driver.close()


def _noting(collector: Collector, limits: defaultdict[str, list[int]]) -> Collector:
    """The same collector; what it is asked for is noted."""
    collect: Callable[[int], Awaitable[Batch]] = collector.collect

    async def noted(limit: int) -> Batch:
        limits[collector.name].append(limit)
        return await collect(limit)

    setattr(collector, "collect", noted)  # noqa: B010  (its own method, with a note before it)
    return collector
