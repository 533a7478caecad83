"""The state of garbage collection: what waits, what is late, what was deleted, and whether it may delete at all.

Takes about as long on ten million reviews as on one million: of each queue that many are counted, those that are due
first. So what is late is counted first of all; of what lies further ahead only the total is told, from the server's own
statistics.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from app.store import gc_counts
from app.store.gc_counts import ObjectCounts, QueueCounts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from app.store.engine import Connection
    from app.store.gc_counts import Control, ReceiptCounts
    from app.store.observing import Observer

Counts = TypeVar("Counts", QueueCounts, ObjectCounts)

COUNTED_MAX: Final = 1_000_000
RECENT: Final = timedelta(hours=24)


@dataclass(frozen=True)
class Line(Generic[Counts]):
    """Things that wait. If `is_partial`, the groups count those that are due first, and `total` is an estimate."""

    groups: tuple[Counts, ...]
    total: int
    is_partial: bool


@dataclass(frozen=True)
class Status:
    """The state at `now`, by the database's clock. `deleted` are the last 24 hours, the latest of them if partial."""

    now: datetime
    control: Control
    delays: dict[str, timedelta]
    manifests: Line[QueueCounts]
    blobs: Line[QueueCounts]
    objects: Line[ObjectCounts]
    deleted: tuple[ReceiptCounts, ...]
    is_deleted_partial: bool

    @property
    def overdue(self) -> int:
        """Reviews that have been due for a day."""
        return sum(group.overdue for line in (self.manifests, self.blobs) for group in line.groups)


async def status(observer: Observer, most: int = COUNTED_MAX) -> Status:
    """Look, counting up to `most` of each kind. Raises Unavailable."""

    async def work(c: Connection) -> Status:
        blobs, manifests, objects = await gc_counts.estimates(c)
        deleted = await gc_counts.receipts_since(c, RECENT, most)
        return Status(
            now=await gc_counts.now(c),
            control=await gc_counts.control(c),
            delays=await gc_counts.delays(c),
            manifests=_line(await gc_counts.queue(c, gc_counts.MANIFEST_QUEUE, most), manifests, most),
            blobs=_line(await gc_counts.queue(c, gc_counts.BLOB_QUEUE, most), blobs, most),
            objects=_line(await gc_counts.objects(c, most), objects, most),
            deleted=tuple(deleted),
            is_deleted_partial=sum(group.deleted for group in deleted) >= most,
        )

    return await observer.look(work)


def _line(groups: Sequence[Counts], estimate: int | None, most: int) -> Line[Counts]:
    counted = sum(group.waiting for group in groups)
    is_partial = counted >= most
    return Line(tuple(groups), max(counted, estimate or 0) if is_partial else counted, is_partial)
