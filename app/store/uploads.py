"""Upload sessions: rows, so that any process continues any session.

A request that appends first *claims* the session: it puts its own mark into `writer`. Whoever finds a mark there has
overtaken a request that is still under way or died; it goes on under a new key (`adopt`), so the other one's late
writes reach an object that nobody reads, and that one's own `save` or `finish` finds its mark gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from sqlalchemy import bindparam, delete, func, insert, literal_column, null, select, text, update
from sqlalchemy.dialects.postgresql import BYTEA, INTERVAL
from sqlalchemy.dialects.postgresql import UUID as PGUUID
from sqlalchemy.types import BigInteger, SmallInteger, Text

from app.domain.digest import Algorithm, Digest
from app.store.statements import Statement
from app.store.tables import blob_uploads, gc_storage_deletions, repositories

if TYPE_CHECKING:
    from datetime import timedelta
    from uuid import UUID

    from app.domain.names import RepositoryName
    from app.store.engine import Connection

Reason = Literal["upload_cancelled", "upload_rejected", "upload_taken_over"]

START: Final = Statement(
    "uploads.start",
    insert(blob_uploads)
    .from_select(
        ["id", "repository_id", "storage_key", "algorithm", "started_by", "writer"],
        select(
            bindparam("id", type_=PGUUID),
            func.ensure_repository(bindparam("path", type_=Text)),
            bindparam("storage_key", type_=Text),
            bindparam("algorithm", type_=SmallInteger),
            bindparam("started_by", type_=Text),
            bindparam("writer", type_=PGUUID),
        ),
    )
    .returning(blob_uploads.c.repository_id),
)
FIND: Final = Statement(
    "uploads.find",
    select(blob_uploads.c.size).where(
        blob_uploads.c.id == bindparam("id"),
        blob_uploads.c.repository_id
        == select(repositories.c.id).where(repositories.c.path == bindparam("path")).scalar_subquery(),
    ),
)
_held = (
    select(blob_uploads.c.id, blob_uploads.c.writer)
    .where(
        blob_uploads.c.id == bindparam("id"),
        blob_uploads.c.repository_id
        == select(repositories.c.id).where(repositories.c.path == bindparam("path")).scalar_subquery(),
        func.coalesce(bindparam("start", type_=BigInteger), blob_uploads.c.size) == blob_uploads.c.size,
    )
    .with_for_update()
    .cte("held")
)
CLAIM: Final = Statement(
    "uploads.claim",
    update(blob_uploads)
    .where(blob_uploads.c.id == _held.c.id)
    .values(writer=bindparam("new_writer", type_=PGUUID), updated_at=func.now())
    .returning(
        blob_uploads.c.repository_id,
        blob_uploads.c.storage_key,
        blob_uploads.c.size,
        blob_uploads.c.algorithm,
        blob_uploads.c.hash_state,
        _held.c.writer.label("overtaken"),
    ),
)
SAVE: Final = Statement(
    "uploads.save",
    update(blob_uploads)
    .where(blob_uploads.c.id == bindparam("upload"), blob_uploads.c.writer == bindparam("mine", type_=PGUUID))
    .values(
        size=bindparam("new_size", type_=BigInteger),
        hash_state=bindparam("new_state", type_=BYTEA),
        writer=null(),
        updated_at=func.now(),
    )
    .returning(blob_uploads.c.id),
)
INTEND: Final = Statement(
    "uploads.intend",
    insert(gc_storage_deletions)
    .values(
        storage_key=bindparam("key", type_=Text),
        reason=text("'upload_taken_over'"),
        not_before=func.now() + bindparam("grace", type_=INTERVAL),
    )
    .returning(gc_storage_deletions.c.storage_key),
)
# The tombstone first: where it is gone, or taken by a collector, so is its object, and the session must not be given
# that key.
_adopting = (
    select(blob_uploads.c.id)
    .where(blob_uploads.c.id == bindparam("upload"), blob_uploads.c.writer == bindparam("mine", type_=PGUUID))
    .with_for_update()
    .cte("adopting")
)
_exchanged = (
    update(gc_storage_deletions)
    .where(
        gc_storage_deletions.c.storage_key == bindparam("key", type_=Text),
        gc_storage_deletions.c.attempts == literal_column("0"),
        select(_adopting.c.id).exists(),
    )
    .values(storage_key=bindparam("old_key", type_=Text), size=bindparam("old_size", type_=BigInteger))
    .returning(gc_storage_deletions.c.storage_key)
    .cte("exchanged")
)
ADOPT: Final = Statement(
    "uploads.adopt",
    update(blob_uploads)
    .where(blob_uploads.c.id == bindparam("upload"), select(_exchanged.c.storage_key).exists())
    .values(storage_key=bindparam("key", type_=Text))
    .returning(blob_uploads.c.id),
)
_dropped = (
    delete(blob_uploads)
    .where(
        blob_uploads.c.id == bindparam("id"),
        blob_uploads.c.repository_id
        == select(repositories.c.id).where(repositories.c.path == bindparam("path")).scalar_subquery(),
        func.coalesce(bindparam("mine", type_=PGUUID), blob_uploads.c.writer).is_not_distinct_from(
            blob_uploads.c.writer
        ),
    )
    .returning(blob_uploads.c.storage_key, blob_uploads.c.size)
    .cte("dropped")
)
DROP: Final = Statement(
    "uploads.drop",
    insert(gc_storage_deletions)
    .from_select(
        ["storage_key", "size", "reason", "not_before"],
        select(
            _dropped.c.storage_key,
            _dropped.c.size,
            bindparam("reason", type_=Text),
            func.now() + bindparam("grace", type_=INTERVAL),
        ),
    )
    .returning(gc_storage_deletions.c.storage_key),
)
FINISH: Final = Statement(
    "uploads.finish",
    select(
        func.finish_upload(
            bindparam("id", type_=PGUUID),
            bindparam("repository_id", type_=BigInteger),
            bindparam("writer", type_=PGUUID),
            bindparam("digest", type_=BYTEA),
            bindparam("size", type_=BigInteger),
        )
    ),
)


@dataclass(frozen=True)
class Claim:
    """A session that this request may append to. `overtaken`: another request's mark was found on it."""

    id: UUID
    repository_id: int
    writer: UUID
    storage_key: str
    size: int
    algorithm: Algorithm
    hash_state: bytes | None
    overtaken: bool


async def start(
    c: Connection,
    upload: UUID,
    name: RepositoryName,
    *,
    storage_key: str,
    algorithm: Algorithm,
    started_by: str,
    writer: UUID | None,
) -> int:
    """Open a session, in a repository that is created if need be. Returns the repository's id."""
    return await c.value(
        START,
        id=upload,
        path=name,
        storage_key=storage_key,
        algorithm=algorithm.code,
        started_by=started_by,
        writer=writer,
    )


async def find(c: Connection, upload: UUID, name: RepositoryName) -> int | None:
    """How many bytes the session has, or None if the repository has no such session."""
    return await c.value(FIND, id=upload, path=name)


async def claim(
    c: Connection, upload: UUID, name: RepositoryName, writer: UUID, *, start_at: int | None
) -> Claim | None:
    """Mark the session as ours. None: there is no such session, or it does not stand at `start_at` bytes."""
    row = await c.one(CLAIM, id=upload, path=name, new_writer=writer, start=start_at)
    if row is None:
        return None
    return Claim(
        id=upload,
        repository_id=row["repository_id"],
        writer=writer,
        storage_key=row["storage_key"],
        size=row["size"],
        algorithm=Algorithm.of_code(row["algorithm"]),
        hash_state=row["hash_state"],
        overtaken=row["overtaken"] is not None,
    )


async def save(c: Connection, claim: Claim, size: int, hash_state: bytes | None) -> bool:
    """Record progress and give the session back. False: another request has taken it over."""
    row = await c.one(SAVE, upload=claim.id, mine=claim.writer, new_size=size, new_state=hash_state)
    return row is not None


async def intend(c: Connection, key: str, grace: timedelta) -> None:
    """Name an object that is about to be written: a tombstone, until a session adopts the key."""
    await c.one(INTEND, key=key, grace=grace)


async def adopt(c: Connection, claim: Claim, key: str) -> bool:
    """Put the session's bytes under `key`, and the tombstone over its old key.

    False: the session was taken over, or the copy took so long that its object was removed. Nothing has changed then.
    """
    row = await c.one(
        ADOPT, upload=claim.id, mine=claim.writer, key=key, old_key=claim.storage_key, old_size=claim.size
    )
    return row is not None


async def drop(
    c: Connection,
    upload: UUID,
    name: RepositoryName,
    *,
    writer: UUID | None,
    reason: Reason,
    grace: timedelta,
) -> bool:
    """End the session; its object becomes a tombstone. With a `writer`, only if the session is still that one's."""
    row = await c.one(DROP, id=upload, path=name, mine=writer, reason=reason, grace=grace)
    return row is not None


async def finish(c: Connection, claim: Claim, digest: Digest, size: int) -> bool:
    """Turn the session into a blob of its repository. False: it was taken over or ended meanwhile."""
    return await c.value(
        FINISH,
        id=claim.id,
        repository_id=claim.repository_id,
        writer=claim.writer,
        digest=digest.packed,
        size=size,
    )
