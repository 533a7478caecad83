"""Collectors with a flaw each, which tests of crashes must notice. Without a crash all of them seem to work.

bytes first        the objects of unused blobs are deleted before the rows are
late tombstone     the rows of blobs are deleted in one transaction, and their tombstones written in the next one
settled first      tombstones are settled before their objects are deleted
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, func, select, text
from sqlalchemy.types import Integer

from app.store import collecting
from app.store.statements import Statement
from app.store.tables import blobs, gc_blob_review_queue
from gc_workers.collectors import Batch, BlobReview, ObjectRemoval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.blobs.driver import Driver
    from app.store.engine import Connection, Database
    from gc_workers.collectors import Collector

BYTES_FIRST: Final = "bytes first"
LATE_TOMBSTONE: Final = "late tombstone"
SETTLED_FIRST: Final = "settled first"

# For `late tombstone`: the function that deletes blobs writes none.
NO_TOMBSTONES: Final = """
    CREATE FUNCTION flaw() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        v_context text;
    BEGIN
        GET DIAGNOSTICS v_context = PG_CONTEXT;
        RETURN CASE WHEN v_context LIKE '%gc_collect_blobs%' THEN NULL ELSE NEW END;
    END
    $$;
    CREATE TRIGGER flaw BEFORE INSERT ON gc_storage_deletions FOR EACH ROW EXECUTE FUNCTION flaw();
"""
TOMBSTONES_AGAIN: Final = "DROP FUNCTION flaw CASCADE"

_due = func.array(
    select(gc_blob_review_queue.c.digest)
    .where(gc_blob_review_queue.c.review_after <= func.now())
    .order_by(gc_blob_review_queue.c.review_after)
    .limit(bindparam("limit", type_=Integer))
    .scalar_subquery()
)
_UNUSED: Final = Statement(
    "flaw.unused",
    select(blobs.c.storage_key).where(blobs.c.digest == func.any(func.gc_unused_blobs(_due))),
)
_LATE: Final = Statement(
    "flaw.late",
    text(
        "INSERT INTO gc_storage_deletions (storage_key, digest, size, reason, not_before)"
        " SELECT storage_key, digest, bytes, 'blob_unused', now() FROM gc_receipts"
        " WHERE kind = 'blob' AND removed_at IS NULL ON CONFLICT DO NOTHING RETURNING storage_key"
    ),
)


class _BytesFirst(BlobReview):
    """The order of deletion that would spare the tombstones."""

    def __init__(self, database: Database, driver: Driver) -> None:
        super().__init__(database, storage_delay=timedelta(0))
        self._driver = driver

    async def collect(self, limit: int) -> Batch:
        async def unused(c: Connection) -> list[Any]:
            return await c.all(_UNUSED, limit=limit)

        keys = [row[0] for row in await self._database.read(unused)]
        assert not await self._driver.delete(keys)
        return await super().collect(limit)


class _LateTombstone(BlobReview):
    """As if the tombstones were not in the transaction that deletes the blobs."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, storage_delay=timedelta(0))

    async def collect(self, limit: int) -> Batch:
        async def tell(c: Connection) -> list[Any]:
            return await c.all(_LATE)

        batch = await super().collect(limit)
        await self._database.write(tell)
        return batch


class _SettledFirst(ObjectRemoval):
    """As if the row were in the way of the deletion."""

    def __init__(self, database: Database, driver: Driver) -> None:
        super().__init__(database, driver, timeout_seconds=5)

    async def collect(self, limit: int) -> Batch:
        taken = await self._database.write(
            lambda c: collecting.take_tombstones(c, limit, timedelta(minutes=1))
        )
        keys = [tombstone.storage_key for tombstone in taken]
        await self._settle(keys)
        assert not await self._driver.delete(keys)
        return Batch(len(taken), len(taken))


def put_into(
    collectors: Sequence[Collector], flaw: str, database: Database, driver: Driver
) -> list[Collector]:
    """The collectors, one of them with the flaw; no flaw if it is empty."""
    flawed: dict[str, Collector] = {
        BYTES_FIRST: _BytesFirst(database, driver),
        LATE_TOMBSTONE: _LateTombstone(database),
        SETTLED_FIRST: _SettledFirst(database, driver),
    }
    if not flaw:
        return list(collectors)
    stands_in = flawed[flaw]
    return [stands_in if one.name == stands_in.name else one for one in collectors]
