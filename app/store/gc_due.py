"""What garbage collection would do now, page by page.

A page begins behind the last entry of the one before: its moment and its key. What falls due at the same instant is
read together, since the indexes know the moment alone; so pages should be large.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from app.store.observing import statement

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta
    from uuid import UUID

    from app.store.engine import Connection


class DueBlob(NamedTuple):
    """A due review. `is_first`: no earlier one is about the same blob."""

    id: int
    due: datetime
    digest: bytes
    event: str
    since: datetime
    is_first: bool


class DueManifest(NamedTuple):
    """As DueBlob."""

    id: int
    due: datetime
    repository_id: int
    manifest_id: int
    event: str
    since: datetime
    is_first: bool


class UnusedManifest(NamedTuple):
    """A manifest that nothing needs."""

    repository_id: int
    id: int
    repository: str
    digest: bytes
    bytes: int


class DueObject(NamedTuple):
    """A tombstone whose time has come."""

    storage_key: str
    due: datetime
    reason: str
    bytes: int | None
    since: datetime


class OldUpload(NamedTuple):
    """An upload session that nobody has touched since `touched`."""

    id: UUID
    touched: datetime
    repository: str
    bytes: int


def _due_reviews(table: str, columns: str, same: str) -> str:
    mine = ", ".join(f"q.{column}" for column in columns.split(", "))
    return f"""
        SELECT q.id, q.review_after, {mine}, q.event, q.created_at,
               NOT EXISTS (SELECT FROM {table} AS e
                           WHERE {same} AND e.review_after <= q.review_after
                               AND (e.review_after, e.id) < (q.review_after, q.id) OFFSET 0)
        FROM (SELECT id, review_after, {columns}, event, created_at FROM {table}
              WHERE review_after <= :until
                  AND (review_after, id) > (coalesce(:after, '-infinity'), :last)
              ORDER BY review_after, id LIMIT :limit) AS q
        ORDER BY q.review_after, q.id
    """  # noqa: S608


DUE_BLOBS: Final = statement(
    "gc_due.due_blobs", _due_reviews("gc_blob_review_queue", "digest", "e.digest = q.digest")
)
DUE_MANIFESTS: Final = statement(
    "gc_due.due_manifests",
    _due_reviews(
        "gc_manifest_review_queue",
        "repository_id, manifest_id",
        "e.repository_id = q.repository_id AND e.manifest_id = q.manifest_id",
    ),
)
# A blob whose object was lost frees nothing.
UNUSED_BLOBS: Final = statement(
    "gc_due.unused_blobs",
    """
        SELECT b.digest, CASE WHEN b.storage_key IS NULL THEN 0 ELSE b.size END
        FROM unnest(gc_unused_blobs(:digests)) AS d
        CROSS JOIN LATERAL (SELECT x.digest, x.size, x.storage_key FROM blobs AS x WHERE x.digest = d LIMIT 1) AS b
    """,
)
UNUSED_MANIFESTS: Final = statement(
    "gc_due.unused_manifests",
    """
        SELECT m.repository_id, m.id, r.path, m.digest, m.payload_bytes
        FROM gc_unused_manifests(:repositories, :manifests) AS unused
        CROSS JOIN LATERAL unnest(unused.repositories, unused.manifests) AS pair (r, i)
        CROSS JOIN LATERAL (SELECT x.repository_id, x.id, x.digest, x.payload_bytes FROM manifests AS x
                            WHERE x.repository_id = pair.r AND x.id = pair.i LIMIT 1) AS m
        CROSS JOIN LATERAL (SELECT p.path FROM repositories AS p WHERE p.id = pair.r LIMIT 1) AS r
    """,
)
# Each blob once, however many of these manifests need it.
NEEDED_BYTES: Final = statement(
    "gc_due.needed_bytes",
    """
        SELECT coalesce(sum(size), 0)::bigint FROM (
            SELECT DISTINCT ON (digest) digest, size FROM (
                SELECT l.digest, l.size FROM unnest(:repositories, :manifests) AS pair (r, i)
                CROSS JOIN LATERAL (SELECT x.digest, x.size FROM layers AS x
                                    WHERE x.repository_id = pair.r AND x.manifest_id = pair.i OFFSET 0) AS l
                UNION ALL
                SELECT b.digest, b.size FROM unnest(:repositories, :manifests) AS pair (r, i)
                CROSS JOIN LATERAL (SELECT x.config_digest FROM manifests AS x
                                    WHERE x.repository_id = pair.r AND x.id = pair.i LIMIT 1) AS m
                CROSS JOIN LATERAL (SELECT x.digest, x.size FROM blobs AS x
                                    WHERE x.digest = m.config_digest LIMIT 1) AS b
            ) AS every ORDER BY digest
        ) AS needed
    """,
)
DUE_OBJECTS: Final = statement(
    "gc_due.due_objects",
    """
        SELECT storage_key, not_before, reason, size, created_at FROM gc_storage_deletions
        WHERE not_before <= :until
            AND (not_before, storage_key) > (coalesce(:after, '-infinity'), :last_key)
        ORDER BY not_before, storage_key LIMIT :limit
    """,
)
OLD_UPLOADS: Final = statement(
    "gc_due.old_uploads",
    """
        SELECT u.id, u.updated_at, r.path, u.size
        FROM (SELECT id, updated_at, repository_id, size FROM blob_uploads
              WHERE updated_at < :until - :age
                  AND (updated_at, id) > (coalesce(:after, '-infinity'), :last_id)
              ORDER BY updated_at, id LIMIT :limit) AS u
        CROSS JOIN LATERAL (SELECT p.path FROM repositories AS p WHERE p.id = u.repository_id LIMIT 1) AS r
        ORDER BY u.updated_at, u.id
    """,
)


async def due_blobs(c: Connection, until: datetime, last: DueBlob | None, limit: int) -> list[DueBlob]:
    """Reviews of blobs that are due at `until`."""
    after, number = (last.due, last.id) if last else (None, 0)
    return [
        DueBlob(*row) for row in await c.all(DUE_BLOBS, until=until, after=after, last=number, limit=limit)
    ]


async def due_manifests(
    c: Connection, until: datetime, last: DueManifest | None, limit: int
) -> list[DueManifest]:
    """Reviews of manifests that are due at `until`."""
    after, number = (last.due, last.id) if last else (None, 0)
    rows = await c.all(DUE_MANIFESTS, until=until, after=after, last=number, limit=limit)
    return [DueManifest(*row) for row in rows]


async def unused_blobs(c: Connection, digests: Sequence[bytes]) -> dict[bytes, int]:
    """Those of the blobs that nothing needs now, as the collectors judge, and the bytes of their objects."""
    return {row[0]: row[1] for row in await c.all(UNUSED_BLOBS, digests=list(digests))}


async def unused_manifests(
    c: Connection, pairs: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], UnusedManifest]:
    """Those of the manifests, pairs of repository and id, that nothing needs now, as the collectors judge."""
    rows = await c.all(UNUSED_MANIFESTS, **_columns(pairs))
    return {(row[0], row[1]): UnusedManifest(*row) for row in rows}


async def needed_bytes(c: Connection, pairs: Sequence[tuple[int, int]]) -> int:
    """The bytes of all blobs that these manifests need."""
    return await c.value(NEEDED_BYTES, **_columns(pairs))


async def due_objects(c: Connection, until: datetime, last: DueObject | None, limit: int) -> list[DueObject]:
    """Tombstones whose objects may be deleted at `until`."""
    after, key = (last.due, last.storage_key) if last else (None, "")
    rows = await c.all(DUE_OBJECTS, until=until, after=after, last_key=key, limit=limit)
    return [DueObject(*row) for row in rows]


async def old_uploads(
    c: Connection, until: datetime, age: timedelta, last: OldUpload | None, limit: int
) -> list[OldUpload]:
    """Upload sessions that at `until` nobody has touched for `age`."""
    after, upload = (last.touched, last.id) if last else (None, "00000000-0000-0000-0000-000000000000")
    rows = await c.all(OLD_UPLOADS, until=until, age=age, after=after, last_id=upload, limit=limit)
    return [OldUpload(*row) for row in rows]


def _columns(pairs: Sequence[tuple[int, int]]) -> dict[str, list[int]]:
    return {"repositories": [pair[0] for pair in pairs], "manifests": [pair[1] for pair in pairs]}
