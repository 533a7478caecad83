"""Actors over real connections, and a stage that sees who waits for whom.

    async def scene(s: Stage) -> None:
        pusher, remover = await s.actors(2)
        async with pusher.transaction():
            await pusher.put(...)
            removing = s.start(remover, blobs.unlink(remover.c, ...))
            await s.waits(removing)
        assert await removing == "in_use"

    play(database, scene)

An actor that works outside of `transaction()` commits each statement, as the API does. The stage knows from PostgreSQL
itself that somebody waits for a lock, so no test depends on how long anything takes. It ends with the invariants.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from uuid import UUID, uuid4

from app.blobs.keys import new_key
from app.domain.digest import Algorithm, Digest
from app.domain.manifests import parse_manifest
from app.domain.names import RepositoryName, Tag
from app.store import collecting, manifests, uploads
from app.store.engine import Connection, Target
from app.store.uploads import Claim
from tests.support.invariants import assert_invariants
from tests.support.postgres import connected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from app.store.collecting import Reviewed
    from app.store.manifests import Missing
    from tests.support.registry import Image

T = TypeVar("T")
PATIENCE_SECONDS: Final = 20.0
SCENE_SECONDS: Final = 40.0


DUE: Final = {
    "gc_blob_review_queue": "review_after",
    "gc_manifest_review_queue": "review_after",
    "gc_storage_deletions": "not_before",
}
PENDING: Final = (
    "SELECT EXISTS (SELECT FROM gc_blob_review_queue) OR EXISTS (SELECT FROM gc_manifest_review_queue)"
)
LEAKED: Final = """
    SELECT 'blob', digest FROM blobs AS b
    WHERE NOT EXISTS (SELECT FROM layers AS l WHERE l.digest = b.digest)
        AND NOT EXISTS (SELECT FROM manifests AS m WHERE m.config_digest = b.digest)
        AND NOT EXISTS (SELECT FROM gc_blob_review_queue AS q WHERE q.digest = b.digest)
    UNION ALL
    SELECT 'manifest', digest FROM manifests AS m
    WHERE NOT EXISTS (SELECT FROM tags AS t WHERE t.repository_id = m.repository_id AND t.manifest_id = m.id)
        AND NOT EXISTS (SELECT FROM manifest_references AS r
                        WHERE r.repository_id = m.repository_id AND r.child_id = m.id)
        AND NOT EXISTS (SELECT FROM manifests AS s
                        WHERE s.repository_id = m.repository_id AND s.digest = m.subject_digest)
        AND NOT EXISTS (SELECT FROM gc_manifest_review_queue AS q
                        WHERE q.repository_id = m.repository_id AND q.manifest_id = m.id)
"""


def name_of(path: str) -> RepositoryName:
    return RepositoryName(path)


def digests(image: Image) -> list[Digest]:
    """The blobs that the image needs."""
    return [Digest.of(blob) for blob in dict.fromkeys(image.blobs)]


def manifest_digest(image: Image) -> Digest:
    return Digest.of(image.payload)


class Actor:
    """One connection to the database: `c` for store functions, `raw` for SQL."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.c = Connection(raw, None)
        self.pid: int = raw.get_server_pid()

    def transaction(self) -> Any:
        """Hold a transaction open, with all its locks, until the block ends."""
        return self.raw.transaction()

    async def value(self, sql: str, *arguments: Any) -> Any:
        return await self.raw.fetchval(sql, *arguments)

    async def session(self, path: str, *, writer: bool = True) -> Claim:
        """An upload session, claimed by a writer of its own unless told otherwise."""
        upload, key, mark = uuid4(), new_key(), uuid4()
        repository = await uploads.start(
            self.c,
            upload,
            name_of(path),
            storage_key=key,
            algorithm=Algorithm.SHA256,
            started_by="",
            writer=mark if writer else None,
        )
        return Claim(upload, repository, mark, key, 0, Algorithm.SHA256, None, overtaken=False)

    async def claim(self, session: Claim, path: str = "a", start: int | None = None) -> Claim | None:
        return await uploads.claim(self.c, session.id, name_of(path), uuid4(), start_at=start)

    async def push_blob(self, path: str, content: bytes) -> Digest:
        """A blob of the repository. Its object is a name only."""
        digest = Digest.of(content)
        assert await uploads.finish(self.c, await self.session(path), digest, len(content))
        return digest

    async def push_blobs(self, path: str, image: Image) -> None:
        for blob in dict.fromkeys(image.blobs):
            await self.push_blob(path, blob)

    async def put(self, path: str, image: Image, *tags: str) -> int | Missing:
        """Put the manifest alone. Returns the repository's id or what is missing."""
        manifest = parse_manifest(image.payload, image.media_type)
        return await manifests.put(
            self.c, name_of(path), manifest, manifest_digest(image), [Tag(t) for t in tags]
        )

    async def push(self, path: str, image: Image, *tags: str) -> int:
        """Push the blobs and the manifest. Returns the repository's id."""
        await self.push_blobs(path, image)
        stored = await self.put(path, image, *tags)
        assert isinstance(stored, int), stored
        return stored

    async def fall_due(self) -> None:
        """A day goes by: every review, tombstone and lease that waits is due now."""
        for table, column in DUE.items():
            await self.value(f"UPDATE {table} SET {column} = {column} - interval '25 hours'")

    async def collect_blobs(self, limit: int = 100) -> Reviewed:
        """Review one batch of blobs."""
        reviewed = await collecting.collect_blobs(self.c, limit, None, timedelta(0))
        assert reviewed is not None, "deletions are paused"
        return reviewed

    async def collect_manifests(self, limit: int = 100, *, keep_untagged: bool = False) -> Reviewed:
        """Review one batch of manifests."""
        reviewed = await collecting.collect_manifests(self.c, limit, None, keep_untagged=keep_untagged)
        assert reviewed is not None, "deletions are paused"
        return reviewed

    async def collect_everything(self) -> list[str]:
        """Days go by until no review is pending, and all objects that wait for it are removed: their keys."""
        removed: list[str] = []
        while await self.value(PENDING):
            await self.fall_due()
            await self.collect_manifests()
            await self.collect_blobs()
        await self.fall_due()
        while taken := await collecting.take_tombstones(self.c, 100, timedelta(hours=1)):
            keys = [tombstone.storage_key for tombstone in taken]
            await collecting.settle_tombstones(self.c, keys)
            removed += keys
        return removed

    async def leaked(self) -> list[tuple[str, str]]:
        """Kind and digest of what nothing needs and no review will ever find."""
        return [(kind, str(Digest.unpack(digest))) for kind, digest in await self.raw.fetch(LEAKED)]

    async def manifest_id(self, image: Image) -> int | None:
        return await self.value("SELECT id FROM manifests WHERE digest = $1", manifest_digest(image).packed)

    async def tags(self, path: str = "a") -> dict[str, str]:
        """Tag → the digest that it names."""
        rows = await self.raw.fetch(
            "SELECT t.name, m.digest FROM tags t JOIN repositories r ON r.id = t.repository_id"
            " JOIN manifests m ON m.repository_id = t.repository_id AND m.id = t.manifest_id WHERE r.path = $1",
            path,
        )
        return {row[0]: str(Digest.unpack(row[1])) for row in rows}


@dataclass(frozen=True)
class Pending(Generic[T]):
    """What an actor is at."""

    actor: Actor
    task: asyncio.Task[T]

    def __await__(self) -> Any:
        return asyncio.wait_for(self.task, PATIENCE_SECONDS).__await__()


class Stage:
    """The actors of one scene."""

    def __init__(self, target: Target, observer: Actor, closing: AsyncExitStack) -> None:
        self._target = target
        self._closing = closing
        self._pending: list[asyncio.Task[Any]] = []
        self.observer = observer

    async def actor(self) -> Actor:
        return Actor(await self._closing.enter_async_context(connected(self._target)))

    async def actors(self, count: int) -> list[Actor]:
        return [await self.actor() for _ in range(count)]

    def start(self, actor: Actor, step: Coroutine[Any, Any, T]) -> Pending[T]:
        """Let the actor begin a step. The caller awaits what comes back."""
        task = asyncio.ensure_future(step)
        self._pending.append(task)
        return Pending(actor, task)

    async def end(self) -> None:
        """Stop whoever is still at something, which only a scene that failed leaves behind."""
        for task in self._pending:
            task.cancel()
        if self._pending:
            await asyncio.wait(self._pending)

    async def waits(self, pending: Pending[Any]) -> None:
        """Return once the actor waits for a lock. Fails if its step ends instead."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await self.observer.value(
                "SELECT cardinality(pg_blocking_pids($1))", pending.actor.pid
            ):
                assert not pending.task.done(), f"did not wait: {pending.task}"
                await asyncio.sleep(0.002)

    async def count(self, table: str) -> int:
        return await self.observer.value(f"SELECT count(*) FROM {table}")

    async def tombstones(self) -> dict[str, str]:
        """Storage key → reason."""
        rows = await self.observer.raw.fetch("SELECT storage_key, reason FROM gc_storage_deletions")
        return {row[0]: row[1] for row in rows}

    async def key_of(self, digest: Digest) -> str | None:
        return await self.observer.value("SELECT storage_key FROM blobs WHERE digest = $1", digest.packed)

    async def upload(self, upload: UUID) -> Any:
        return await self.observer.raw.fetchrow("SELECT * FROM blob_uploads WHERE id = $1", upload)

    async def has_tags(self, path: str = "a") -> bool:
        return await self.observer.value("SELECT has_tags FROM repositories WHERE path = $1", path)

    async def links(self) -> set[tuple[str, bytes]]:
        """(repository, blob's packed digest)."""
        rows = await self.observer.raw.fetch(
            "SELECT path, blob_digest FROM repository_blobs JOIN repositories ON id = repository_id"
        )
        return {(row[0], row[1]) for row in rows}


def play(target: Target, scene: Callable[[Stage], Awaitable[None]]) -> None:
    """Play the scene on an empty database. When it is over, the invariants must hold."""

    async def run() -> None:
        async with asyncio.timeout(SCENE_SECONDS), AsyncExitStack() as closing:
            observer = Actor(await closing.enter_async_context(connected(target)))
            s = Stage(target, observer, closing)
            try:
                await scene(s)
            finally:
                await s.end()
        await assert_invariants(target)

    asyncio.run(run())
