"""How much garbage collection has before it, and how much it did.

No statement reads a whole queue: each counts as many rows as it is told, those that are due first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from app.store.observing import statement

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from app.store.engine import Connection
    from app.store.statements import Statement


@dataclass(frozen=True)
class Control:
    """Whether deletions are paused, since when, and why."""

    is_paused: bool
    reason: str
    changed_at: datetime


@dataclass(frozen=True)
class QueueCounts:
    """The reviews of one event. `overdue`: due for a day; `stuck`: put off more than ten times."""

    event: str
    reviews: int
    due: int
    overdue: int
    stuck: int
    next_due: datetime

    @property
    def waiting(self) -> int:
        """How many there are."""
        return self.reviews


@dataclass(frozen=True)
class ObjectCounts:
    """Tombstones of one reason. `attempts` is the most that one of them took."""

    reason: str
    objects: int
    due: int
    bytes: int
    next_due: datetime
    attempts: int

    @property
    def waiting(self) -> int:
        """How many there are."""
        return self.objects


@dataclass(frozen=True)
class ReceiptCounts:
    """What was deleted of one kind. The objects of `pending` of them are still in storage, of `pending_bytes`."""

    kind: str
    deleted: int
    bytes: int
    pending: int
    pending_bytes: int


def _queue_counts(queue: str) -> str:
    return f"""
        SELECT event, count(*) AS reviews, count(*) FILTER (WHERE review_after <= now()) AS due,
               count(*) FILTER (WHERE review_after < now() - interval '24 hours') AS overdue,
               count(*) FILTER (WHERE review_count > 10) AS stuck, min(review_after) AS next_due
        FROM (SELECT event, review_after, review_count FROM {queue} ORDER BY review_after LIMIT :most) AS first
        GROUP BY event ORDER BY event
    """  # noqa: S608


NOW: Final = statement("gc_counts.now", "SELECT now()")
CONTROL: Final = statement("gc_counts.control", "SELECT is_paused, reason, changed_at FROM gc_control")
DELAYS: Final = statement(
    "gc_counts.delays", "SELECT event, value FROM gc_review_after_defaults ORDER BY event"
)
BLOB_QUEUE: Final = statement("gc_counts.blob_queue", _queue_counts("gc_blob_review_queue"))
MANIFEST_QUEUE: Final = statement("gc_counts.manifest_queue", _queue_counts("gc_manifest_review_queue"))
OBJECTS: Final = statement(
    "gc_counts.objects",
    """
        SELECT reason, count(*), count(*) FILTER (WHERE not_before <= now()), coalesce(sum(size), 0)::bigint,
               min(not_before), max(attempts)
        FROM (SELECT reason, size, not_before, attempts FROM gc_storage_deletions ORDER BY not_before LIMIT :most)
            AS first
        GROUP BY reason ORDER BY reason
    """,
)
RECEIPTS_SINCE: Final = statement(
    "gc_counts.receipts_since",
    """
        SELECT kind, count(*), coalesce(sum(bytes), 0)::bigint, count(*) FILTER (WHERE removed_at IS NULL),
               coalesce(sum(bytes) FILTER (WHERE removed_at IS NULL), 0)::bigint
        FROM (SELECT kind, bytes, removed_at FROM gc_receipts
              WHERE deleted_at > now() - :age ORDER BY deleted_at DESC LIMIT :most) AS latest
        GROUP BY kind ORDER BY kind
    """,
)
# As the planner does it: the rows that a page had when the table was last analyzed, times the pages that it has now.
ESTIMATES: Final = statement(
    "gc_counts.estimates",
    """
        SELECT t.name, (SELECT CASE WHEN c.reltuples >= 0 AND c.relpages > 0
                            THEN (c.reltuples / c.relpages
                                  * (pg_relation_size(c.oid) / current_setting('block_size')::bigint))::bigint END
                        FROM pg_class AS c WHERE c.oid = t.name::regclass)
        FROM unnest(ARRAY['gc_blob_review_queue', 'gc_manifest_review_queue', 'gc_storage_deletions']) AS t (name)
    """,
)


async def now(c: Connection) -> datetime:
    """The database's clock."""
    return await c.value(NOW)


async def control(c: Connection) -> Control:
    """Whether deletions are paused."""
    row = await c.one(CONTROL)
    assert row is not None
    return Control(*row)


async def delays(c: Connection) -> dict[str, timedelta]:
    """How long each kind of event waits for its review."""
    return {row[0]: row[1] for row in await c.all(DELAYS)}


async def queue(c: Connection, statement: Statement, most: int) -> list[QueueCounts]:
    """Of BLOB_QUEUE or MANIFEST_QUEUE the `most` reviews that are due first, counted by event."""
    return [QueueCounts(*row) for row in await c.all(statement, most=most)]


async def objects(c: Connection, most: int) -> list[ObjectCounts]:
    """The `most` tombstones that are due first, counted by reason."""
    return [ObjectCounts(*row) for row in await c.all(OBJECTS, most=most)]


async def receipts_since(c: Connection, age: timedelta, most: int) -> list[ReceiptCounts]:
    """The `most` latest receipts that are younger than `age`, counted by kind."""
    return [ReceiptCounts(*row) for row in await c.all(RECEIPTS_SINCE, age=age, most=most)]


async def estimates(c: Connection) -> tuple[int | None, int | None, int | None]:
    """About how many reviews of blobs, reviews of manifests and tombstones there are; None: nobody knows."""
    found = {row[0]: row[1] for row in await c.all(ESTIMATES)}
    return (
        found["gc_blob_review_queue"],
        found["gc_manifest_review_queue"],
        found["gc_storage_deletions"],
    )
