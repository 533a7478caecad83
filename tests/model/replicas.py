"""Two processes' worth of registry on one database and one directory, each behind a socket of its own.

They run in one thread of the test's process: nothing of what a registry keeps in memory is shared between them, and
nothing has to be started that takes longer than the test. Collectors work beside them, but only when they are told to.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import uvloop

from app.config.values import Address
from app.domain.digest import Digest
from app.http.call import ApiRules
from app.server.manner import Manner
from app.server.serving import serve
from app.server.sockets import listen_tcp
from app.store import collecting
from tests.model.clock import jump
from tests.model.collection import Collection
from tests.model.model import CATALOG_MAX, DELAY_SECONDS, TAGS_MAX
from tests.support.fsck import assert_fsck_clean
from tests.support.invariants import assert_invariants
from tests.support.postgres import connected
from tests.support.registry import open_registry

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator
    from pathlib import Path

    from app.store.engine import Target
    from gc_workers.collectors import Batch
    from gc_workers.passes import Tally

T = TypeVar("T")
COUNT: Final = 2
PATIENCE_SECONDS: Final = 60
_RULES: Final = ApiRules(delete_enabled=True, tags_max=TAGS_MAX, catalog_entries_max=CATALOG_MAX)
# Those that fill while a registry works. Neither triggers nor foreign keys are wanted when they are emptied.
_TABLES: Final = """
    SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition
    AND relnamespace = 'public'::regnamespace
    AND relname NOT IN ('alembic_version', 'gc_review_after_defaults', 'gc_control')
"""
_FACTS: Final = """
    SELECT 'repository' AS kind, path, NULL::bytea AS digest, NULL AS name, NULL AS more FROM repositories
    UNION ALL SELECT 'stored', NULL, digest, NULL, NULL FROM blobs
    UNION ALL SELECT 'blob', path, blob_digest, NULL, NULL
        FROM repository_blobs JOIN repositories AS r ON r.id = repository_id
    UNION ALL SELECT 'manifest', path, digest, NULL, NULL
        FROM manifests JOIN repositories AS r ON r.id = repository_id
    UNION ALL SELECT 'tag', path, m.digest, t.name, NULL
        FROM tags AS t JOIN repositories AS r ON r.id = t.repository_id
        JOIN manifests AS m ON m.repository_id = t.repository_id AND m.id = t.manifest_id
    UNION ALL SELECT 'upload', path, NULL, u.id::text, u.size::text
        FROM blob_uploads AS u JOIN repositories AS r ON r.id = u.repository_id
"""
_SUSPECTED: Final = """
    SELECT DISTINCT path, m.digest FROM gc_manifest_review_queue AS q
    JOIN manifests AS m ON m.repository_id = q.repository_id AND m.id = q.manifest_id
    JOIN repositories AS r ON r.id = q.repository_id
"""
_WAITING: Final = """
    SELECT (SELECT count(*) FROM gc_manifest_review_queue) + (SELECT count(*) FROM gc_blob_review_queue)
        + (SELECT count(*) FROM gc_storage_deletions)
"""


@dataclass(frozen=True)
class World:
    """What there is, past the registries. `tombstones` are reasons by storage key, `objects` the keys in storage.

    `suspected` are the manifests with a review pending, `waiting` counts reviews and tombstones, `receipts` are the
    kinds of what was deleted, by id.
    """

    facts: set[tuple[str, ...]]
    tombstones: dict[str, str]
    objects: set[str]
    suspected: set[tuple[str, ...]]
    waiting: int
    receipts: dict[int, str]


class Replicas:
    """The running registries. `ports` are where they listen."""

    def __init__(self, database: Target, root: Path) -> None:
        self.ports: list[int] = [0] * COUNT
        self._database = database
        self._root = root
        self._loop = uvloop.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._instances: list[_Instance] = []
        self._group: asyncio.TaskGroup
        self._collection: Collection
        self._connection: Any = None
        self._thread = threading.Thread(target=self._work, name="registries")

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(PATIENCE_SECONDS)
        assert all(self.ports), "the registries did not start"

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()

    def restart(self, place: int) -> None:
        """End the registry at the place and start another one, on another port."""
        self._run(self._restart(place))

    def restart_collectors(self) -> None:
        """They remember nothing of before."""
        self._loop.call_soon_threadsafe(self._collection.begin)

    def check_invariants(self) -> None:
        """What must hold whenever nobody is at work."""
        self._run(assert_invariants(self._database, self._collection.driver))

    def check_fsck(self) -> None:
        """That the registry's own check finds nothing."""
        self._run(assert_fsck_clean(self._database, self._collection.driver))

    def facts(self) -> set[tuple[str, ...]]:
        """What the database says that there is, in the words of the model."""
        return self._run(self._facts())

    def world(self) -> World:
        """What there is, in the database and in storage."""
        return self._run(self._world())

    def jump(self, seconds: float) -> None:
        """Let that much time pass."""
        self._run(self._jump(seconds))

    def set_delay(self, seconds: float) -> None:
        """How long something that becomes suspect waits for its review from now on."""
        self._run(self._set_delay(seconds))

    def pause(self, *, is_paused: bool) -> None:
        """Hold deletions, or let them go on."""
        self._run(self._pause(is_paused=is_paused))

    def collect(self, kind: str, limit: int, *, keep_untagged: bool) -> Batch:
        """One batch."""
        return self._run(self._collection.batch(kind, limit, keep_untagged=keep_untagged))

    def collect_all(self, limit: int, *, keep_untagged: bool) -> list[Tally] | None:
        """One whole pass, as `registry gc run` does it. None: deletions are paused."""
        return self._run(self._collection.whole_pass(limit, keep_untagged=keep_untagged))

    def clear(self) -> None:
        """Leave nothing in the database and nothing in storage."""
        self._run(self._clear())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_SECONDS)

    def _work(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self) -> None:
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as self._group:
            self._connection = await stack.enter_async_context(connected(self._database))
            self._collection = await Collection.open(self._database, self._root)
            stack.push_async_callback(self._collection.close)
            await self._reset()
            for place in range(COUNT):
                self._instances.append(_Instance())
                await self._begin(place)
            self._ready.set()
            await self._stop.wait()
            for instance in self._instances:
                await instance.end()

    async def _begin(self, place: int) -> None:
        instance = self._instances[place] = _Instance()
        await instance.begin(self._group, self._database, self._root)
        self.ports[place] = instance.port

    async def _restart(self, place: int) -> None:
        await self._instances[place].end()
        await self._begin(place)

    async def _facts(self) -> set[tuple[str, ...]]:
        found: set[tuple[str, ...]] = set()
        for kind, path, digest, name, more in await self._connection.fetch(_FACTS):
            unpacked = None if digest is None else str(Digest.unpack(digest))
            found.add(tuple(part for part in (kind, path, name, unpacked, more) if part is not None))
        return found

    async def _world(self) -> World:
        async with aclosing(self._collection.driver.list()) as listed:
            objects = {found.key async for found in listed}
        tombstones = await self._connection.fetch("SELECT storage_key, reason FROM gc_storage_deletions")
        suspected = await self._connection.fetch(_SUSPECTED)
        receipts = await self._connection.fetch("SELECT id, kind FROM gc_receipts")
        return World(
            facts=await self._facts(),
            tombstones=dict(map(tuple, tombstones)),
            objects=objects,
            suspected={("manifest", path, str(Digest.unpack(digest))) for path, digest in suspected},
            waiting=await self._connection.fetchval(_WAITING),
            receipts=dict(map(tuple, receipts)),
        )

    async def _jump(self, seconds: float) -> None:
        await jump(self._connection, seconds)

    async def _set_delay(self, seconds: float) -> None:
        delay = timedelta(seconds=seconds)
        await self._collection.database.write(lambda c: collecting.set_review_after(c, delay))

    async def _pause(self, *, is_paused: bool) -> None:
        await self._collection.database.write(lambda c: collecting.set_paused(c, is_paused=is_paused))

    async def _clear(self) -> None:
        tables = [name for (name,) in await self._connection.fetch(_TABLES)]
        deletes = "; ".join(f'DELETE FROM "{table}"' for table in tables)
        async with self._connection.transaction():
            await self._connection.execute(f"SET LOCAL session_replication_role = replica; {deletes}")
        await self._reset()

    async def _reset(self) -> None:
        shutil.rmtree(self._root / "objects", ignore_errors=True)
        self._collection.begin()
        await self._set_delay(DELAY_SECONDS)
        await self._pause(is_paused=False)


class _Instance:
    """One registry."""

    def __init__(self) -> None:
        self.port = 0
        self._stop = asyncio.Event()
        self._ready = asyncio.Event()
        self._ended = asyncio.Event()

    async def begin(self, group: asyncio.TaskGroup, database: Target, root: Path) -> None:
        group.create_task(self._serve(database, root))
        await self._ready.wait()

    async def end(self) -> None:
        self._stop.set()
        await self._ended.wait()

    async def _serve(self, database: Target, root: Path) -> None:
        async with open_registry(database, root, rules=_RULES) as registry:
            listeners = listen_tcp(Address("127.0.0.1", 0))
            self.port = int(listeners.name.rpartition(":")[2])
            await serve(
                registry.app,
                listeners.sockets,
                Manner(drain_seconds=1),
                stop=self._stop.wait,
                started=self._ready.set,
            )
        self._ended.set()


@contextmanager
def replicas(database: Target, root: Path) -> Generator[Replicas]:
    """Registries on the database and the directory, until the block ends."""
    running = Replicas(database, root)
    running.start()
    try:
        yield running
    finally:
        running.stop()
