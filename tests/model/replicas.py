"""Two processes' worth of registry on one database and one directory, each behind a socket of its own.

Both run in one thread of the test's process: nothing of what a registry keeps in memory is shared between them, and
nothing has to be started that takes longer than the test.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import uvloop

from app.config.values import Address
from app.domain.digest import Digest
from app.http.call import ApiRules
from app.server.manner import Manner
from app.server.serving import serve
from app.server.sockets import listen_tcp
from tests.model.model import CATALOG_MAX, TAGS_MAX
from tests.support.invariants import assert_invariants
from tests.support.postgres import connected
from tests.support.registry import open_registry

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator
    from pathlib import Path

    from app.store.engine import Target
    from tests.support.registry import Registry

T = TypeVar("T")
COUNT: Final = 2
PATIENCE_SECONDS: Final = 60
_RULES: Final = ApiRules(delete_enabled=True, tags_max=TAGS_MAX, catalog_entries_max=CATALOG_MAX)
# Reviews that are always due soon, so that whatever is confirmed is also given its grace, which is a write.
_DUE_SOON: Final = "UPDATE gc_review_after_defaults SET value = interval '1 second'"
# Those that fill while a registry works. Neither triggers nor foreign keys are wanted when they are emptied.
_TABLES: Final = """
    SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition
    AND relnamespace = 'public'::regnamespace AND relname NOT IN ('alembic_version', 'gc_review_after_defaults')
"""
_FACTS: Final = """
    SELECT 'repository' AS kind, path, NULL::bytea AS digest, NULL AS name, NULL AS more FROM repositories
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


class Replicas:
    """The running registries. `ports` are where they listen."""

    def __init__(self, database: Target, root: Path) -> None:
        self.ports: list[int] = []
        self._database = database
        self._root = root
        self._loop = uvloop.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._registry: Registry
        self._connection: Any = None
        self._thread = threading.Thread(target=self._work, name="registries")

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(PATIENCE_SECONDS)
        assert len(self.ports) == COUNT, "the registries did not start"

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()

    def check_invariants(self) -> None:
        """What must hold whenever nobody is at work."""
        self._run(assert_invariants(self._database, self._registry.driver))

    def facts(self) -> set[tuple[str, ...]]:
        """What the database says that there is, in the words of the model."""
        return self._run(self._facts())

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
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            self._connection = await stack.enter_async_context(connected(self._database))
            await self._connection.execute(_DUE_SOON)
            for _ in range(COUNT):
                self._registry = await stack.enter_async_context(
                    open_registry(self._database, self._root, rules=_RULES)
                )
                listeners = listen_tcp(Address("127.0.0.1", 0))
                self.ports.append(int(listeners.name.rpartition(":")[2]))
                group.create_task(
                    serve(
                        self._registry.app, listeners.sockets, Manner(drain_seconds=1), stop=self._stop.wait
                    )
                )
            self._ready.set()

    async def _facts(self) -> set[tuple[str, ...]]:
        found: set[tuple[str, ...]] = set()
        for kind, path, digest, name, more in await self._connection.fetch(_FACTS):
            unpacked = None if digest is None else str(Digest.unpack(digest))
            found.add(tuple(part for part in (kind, path, name, unpacked, more) if part is not None))
        return found

    async def _clear(self) -> None:
        tables = [name for (name,) in await self._connection.fetch(_TABLES)]
        deletes = "; ".join(f'DELETE FROM "{table}"' for table in tables)
        await self._connection.execute(f"SET session_replication_role = replica; {deletes}")
        shutil.rmtree(self._root / "objects", ignore_errors=True)


@contextmanager
def replicas(database: Target, root: Path) -> Generator[Replicas]:
    """Registries on the database and the directory, until the block ends."""
    running = Replicas(database, root)
    running.start()
    try:
        yield running
    finally:
        running.stop()
