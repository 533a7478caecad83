"""The collectors' statements: reviews, tombstones, upload sessions, receipts, the pause.

Each is one transaction, mostly a function of `db/schema/60_gc_collect.sql`, where the rules of locking are told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from sqlalchemy import BigInteger, Boolean, Integer, Text, bindparam, column, delete, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, INTERVAL, TIMESTAMP

from app.store.statements import Statement
from app.store.tables import (
    blob_uploads,
    gc_blob_review_queue,
    gc_control,
    gc_manifest_review_queue,
    gc_receipts,
    gc_review_after_defaults,
    gc_storage_deletions,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from app.store.engine import Connection

T = TypeVar("T")
# What `registry gc pause` and `resume` wake the workers with.
CHANNEL: Final = "registry_gc"


@dataclass(frozen=True)
class Reviewed:
    """What became of a batch of suspicions. Of `reviewed`, `put_off` could not be looked at.

    `deleted` are rows that are gone now, of `bytes` bytes; `reached` is where the next batch begins.
    """

    reviewed: int
    deleted: int
    put_off: int
    bytes: int
    reached: datetime | None


@dataclass(frozen=True)
class Suspected(Generic[T]):
    """Of so many that were looked at so many are suspect now. `last` is where to go on; None: there are no more."""

    looked_at: int
    suspected: int
    last: T | None


@dataclass(frozen=True)
class Tombstone:
    """An object that nobody names any more. `size` is None where nobody knows it."""

    storage_key: str
    size: int | None
    attempts: int
    due_since: datetime


_limit = bindparam("limit", type_=Integer)
_from = bindparam("begin", type_=TIMESTAMP(timezone=True))
_keys = bindparam("keys", type_=ARRAY(Text))
_OUTCOME: Final = [column(name, Integer) for name in ("reviewed", "deleted", "put_off", "bytes", "reached")]
_TOMBSTONE: Final = [column(name, Text) for name in ("storage_key", "size", "attempts", "due_since")]

COLLECT_BLOBS: Final = Statement(
    "collecting.blobs",
    select(*_OUTCOME).select_from(
        func.gc_collect_blobs(_limit, _from, bindparam("storage_delay", type_=INTERVAL)).alias("outcome")
    ),
)
COLLECT_MANIFESTS: Final = Statement(
    "collecting.manifests",
    select(*_OUTCOME).select_from(
        func.gc_collect_manifests(_limit, _from, bindparam("keep_untagged", type_=Boolean)).alias("outcome")
    ),
)
PUT_OFF_BLOB_REVIEW: Final = Statement(
    "collecting.put_off_blob_review", select(func.gc_put_off_blob_review())
)
PUT_OFF_MANIFEST_REVIEW: Final = Statement(
    "collecting.put_off_manifest_review", select(func.gc_put_off_manifest_review())
)
EXPIRE_UPLOADS: Final = Statement(
    "collecting.expire_uploads",
    select(
        func.gc_expire_uploads(_limit, bindparam("age", type_=INTERVAL), bindparam("grace", type_=INTERVAL))
    ),
)
TAKE_TOMBSTONES: Final = Statement(
    "collecting.take_tombstones",
    select(*_TOMBSTONE).select_from(
        func.gc_take_tombstones(_limit, bindparam("lease", type_=INTERVAL)).alias("taken")
    ),
)
SETTLE_TOMBSTONES: Final = Statement("collecting.settle_tombstones", select(func.gc_settle_tombstones(_keys)))
PUT_OFF_TOMBSTONES: Final = Statement(
    "collecting.put_off_tombstones", select(func.gc_put_off_tombstones(_keys))
)
SUSPECT_MANIFESTS: Final = Statement(
    "collecting.suspect_manifests",
    select(
        *(column(name, Integer) for name in ("looked_at", "suspected", "repository_id", "manifest_id"))
    ).select_from(
        func.gc_suspect_manifests(
            _limit, bindparam("repository_id", type_=BigInteger), bindparam("manifest_id", type_=BigInteger)
        ).alias("page")
    ),
)
SUSPECT_BLOBS: Final = Statement(
    "collecting.suspect_blobs",
    select(*(column(name, Integer) for name in ("looked_at", "suspected", "digest"))).select_from(
        func.gc_suspect_blobs(_limit, bindparam("digest", type_=BYTEA)).alias("page")
    ),
)
# As an array, which is made once: joined to the table, the sub-select could be run for each of its rows.
_old = (
    select(gc_receipts.c.id)
    .where(gc_receipts.c.deleted_at < func.now() - bindparam("age", type_=INTERVAL))
    .order_by(gc_receipts.c.deleted_at)
    .limit(_limit)
    .with_for_update(skip_locked=True)
)
PRUNE_RECEIPTS: Final = Statement(
    "collecting.prune_receipts",
    delete(gc_receipts)
    .where(gc_receipts.c.id == func.any(func.array(_old.scalar_subquery())))
    .returning(gc_receipts.c.id),
)
IS_PAUSED: Final = Statement("collecting.is_paused", select(gc_control.c.is_paused))
SET_PAUSED: Final = Statement(
    "collecting.set_paused",
    select(func.gc_set_paused(bindparam("is_paused", type_=Boolean), bindparam("reason", type_=Text))),
)
SET_REVIEW_AFTER: Final = Statement(
    "collecting.set_review_after",
    update(gc_review_after_defaults)
    .where(gc_review_after_defaults.c.value != bindparam("delay", type_=INTERVAL))
    .values(value=bindparam("delay", type_=INTERVAL))
    .returning(gc_review_after_defaults.c.event),
)


def _seconds_until(moment: Any) -> Any:
    return select(func.extract("epoch", func.min(moment) - func.clock_timestamp()))


NEXT_BLOB: Final = Statement("collecting.next_blob", _seconds_until(gc_blob_review_queue.c.review_after))
NEXT_MANIFEST: Final = Statement(
    "collecting.next_manifest", _seconds_until(gc_manifest_review_queue.c.review_after)
)
NEXT_TOMBSTONE: Final = Statement(
    "collecting.next_tombstone", _seconds_until(gc_storage_deletions.c.not_before)
)
OLDEST_UPLOAD: Final = Statement("collecting.oldest_upload", _seconds_until(blob_uploads.c.updated_at))
OLDEST_RECEIPT: Final = Statement("collecting.oldest_receipt", _seconds_until(gc_receipts.c.deleted_at))


async def collect_blobs(
    c: Connection, limit: int, begin: datetime | None, storage_delay: timedelta
) -> Reviewed | None:
    """Review due suspicions of blobs, up to `limit`, from `begin` on. None: deletions are paused.

    The objects of deleted blobs stay for `storage_delay`.
    """
    return _reviewed(await c.one(COLLECT_BLOBS, limit=limit, begin=begin, storage_delay=storage_delay))


async def collect_manifests(
    c: Connection, limit: int, begin: datetime | None, *, keep_untagged: bool
) -> Reviewed | None:
    """Review due suspicions of manifests, up to `limit`, from `begin` on. None: deletions are paused."""
    return _reviewed(await c.one(COLLECT_MANIFESTS, limit=limit, begin=begin, keep_untagged=keep_untagged))


async def put_off_blob_review(c: Connection) -> None:
    """Put off the oldest due suspicion of a blob."""
    await c.value(PUT_OFF_BLOB_REVIEW)


async def put_off_manifest_review(c: Connection) -> None:
    """Put off the oldest due suspicion of a manifest."""
    await c.value(PUT_OFF_MANIFEST_REVIEW)


async def suspect_manifests(c: Connection, limit: int, after: tuple[int, int]) -> Suspected[tuple[int, int]]:
    """Append a review for each manifest that is unused and not suspect, of the `limit` after (repository, id)."""
    row: Any = await c.one(SUSPECT_MANIFESTS, limit=limit, repository_id=after[0], manifest_id=after[1])
    last = (row["repository_id"], row["manifest_id"]) if row["looked_at"] == limit else None
    return Suspected(row["looked_at"], row["suspected"], last)


async def suspect_blobs(c: Connection, limit: int, after: bytes) -> Suspected[bytes]:
    """The same for blobs, after a packed digest."""
    row: Any = await c.one(SUSPECT_BLOBS, limit=limit, digest=after)
    last = row["digest"] if row["looked_at"] == limit else None
    return Suspected(row["looked_at"], row["suspected"], last)


async def expire_uploads(c: Connection, limit: int, age: timedelta, grace: timedelta) -> int | None:
    """Turn sessions that were not touched for `age` into tombstones. Returns how many; None: paused."""
    return await c.value(EXPIRE_UPLOADS, limit=limit, age=age, grace=grace)


async def take_tombstones(c: Connection, limit: int, lease: timedelta) -> list[Tombstone]:
    """Tombstones whose objects may be deleted now; nobody else gets them for the time of the lease."""
    return [Tombstone(*row) for row in await c.all(TAKE_TOMBSTONES, limit=limit, lease=lease)]


async def settle_tombstones(c: Connection, keys: Sequence[str]) -> int:
    """The objects are gone. Returns how many tombstones that were."""
    return await c.value(SETTLE_TOMBSTONES, keys=list(keys))


async def put_off_tombstones(c: Connection, keys: Sequence[str]) -> None:
    """The objects could not be deleted."""
    await c.value(PUT_OFF_TOMBSTONES, keys=list(keys))


async def prune_receipts(c: Connection, limit: int, age: timedelta) -> int:
    """Forget receipts that are older than `age`. Returns how many, at most `limit`."""
    return len(await c.all(PRUNE_RECEIPTS, limit=limit, age=age))


async def is_paused(c: Connection) -> bool:
    """Whether deletions are paused."""
    return bool(await c.value(IS_PAUSED))


async def set_paused(c: Connection, *, is_paused: bool, reason: str = "") -> bool:
    """Pause deletions, or let them go on; every worker hears of it. False: it was so already."""
    return await c.value(SET_PAUSED, is_paused=is_paused, reason=reason)


async def set_review_after(c: Connection, delay: timedelta) -> list[str]:
    """Have every kind of event wait that long before its review. Returns the kinds that changed."""
    return [row[0] for row in await c.all(SET_REVIEW_AFTER, delay=delay)]


async def seconds_until(c: Connection, statement: Statement) -> float | None:
    """How long it is until the first of a queue falls due, negative if it is; None: the queue is empty."""
    found = await c.value(statement)
    return None if found is None else float(found)


def _reviewed(row: Any) -> Reviewed | None:
    return None if row is None or row["reviewed"] is None else Reviewed(*row)
