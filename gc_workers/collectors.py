"""What is collected, and how a batch of it is done. Each kind is a Collector; none knows when it is called.

A collector holds no lock and no transaction between two calls, and its batches may run beside those of any number of
others (db/schema/60_gc_collect.sql tells why). Killed at any point it leaves nothing that a later batch does not find.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from app.blobs.driver import StorageError
from app.store import collecting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from app.blobs.driver import DeleteFailure, Driver
    from app.store.collecting import Reviewed
    from app.store.engine import Database

# A taken tombstone is nobody else's for this long, beyond the time that its deletion may take.
LEASE_SPARE: Final = timedelta(minutes=1)
# The object of a session that ended by its age stays for this long: a request that began before may still write to it.
EXPIRED_UPLOAD_GRACE: Final = timedelta(days=1)

_log = logging.getLogger("registry.gc")


@dataclass(frozen=True)
class Batch:
    """What came of a batch: of `taken`, `put_off` could not be done now, and `deleted` are gone, of `bytes` bytes.

    `taken` is fewer than was asked for when nothing more is due. The last of it has been due for `late_seconds`.
    """

    taken: int = 0
    deleted: int = 0
    put_off: int = 0
    bytes: int = 0
    is_paused: bool = False
    late_seconds: float = 0.0


class Collector(Protocol):
    """One kind of work. Every method may raise Unavailable and what the database or the storage raises."""

    name: ClassVar[str]

    async def collect(self, limit: int) -> Batch:
        """Do what is due, at most `limit` of it, which is at most DELETE_KEYS_MAX."""
        ...

    async def seconds_until_due(self) -> float | None:
        """When there is work: negative or zero if there is now, None if nothing is in sight."""
        ...

    async def put_off_first(self) -> None:
        """Have the next one wait, with which not even a batch of one succeeds."""
        ...


class ManifestReview:
    """Deletes manifests that nothing names."""

    name: ClassVar[str] = "manifests"

    def __init__(self, database: Database, *, keep_untagged: bool) -> None:
        self._database = database
        self._keep_untagged = keep_untagged
        self._begin: datetime | None = None

    async def collect(self, limit: int) -> Batch:
        begin, self._begin = self._begin, None
        found = await self._database.write(
            lambda c: collecting.collect_manifests(c, limit, begin, keep_untagged=self._keep_untagged)
        )
        self._begin = _next_begin(found, limit)
        return _batch(found)

    async def seconds_until_due(self) -> float | None:
        return await self._database.read(lambda c: collecting.seconds_until(c, collecting.NEXT_MANIFEST))

    async def put_off_first(self) -> None:
        await self._database.write(collecting.put_off_manifest_review)


class BlobReview:
    """Deletes the rows of blobs that nothing needs, and leaves tombstones for their objects."""

    name: ClassVar[str] = "blobs"

    def __init__(self, database: Database, *, storage_delay: timedelta) -> None:
        self._database = database
        self._storage_delay = storage_delay
        self._begin: datetime | None = None

    async def collect(self, limit: int) -> Batch:
        begin, self._begin = self._begin, None
        found = await self._database.write(
            lambda c: collecting.collect_blobs(c, limit, begin, self._storage_delay)
        )
        self._begin = _next_begin(found, limit)
        return _batch(found)

    async def seconds_until_due(self) -> float | None:
        return await self._database.read(lambda c: collecting.seconds_until(c, collecting.NEXT_BLOB))

    async def put_off_first(self) -> None:
        await self._database.write(collecting.put_off_blob_review)


class ObjectRemoval:
    """Deletes objects that tombstones name: takes, deletes, settles. No transaction waits for storage (I7)."""

    name: ClassVar[str] = "objects"

    def __init__(self, database: Database, driver: Driver, *, timeout_seconds: float) -> None:
        self._database = database
        self._driver = driver
        self._timeout_seconds = timeout_seconds
        self._lease = timedelta(seconds=timeout_seconds) + LEASE_SPARE

    async def collect(self, limit: int) -> Batch:
        taken = await self._database.write(lambda c: collecting.take_tombstones(c, limit, self._lease))
        if not taken:
            return Batch()
        keys = [tombstone.storage_key for tombstone in taken]
        try:
            async with asyncio.timeout(self._timeout_seconds):
                failures = await self._driver.delete(keys)
        except (StorageError, TimeoutError):
            await self._put_off(keys)
            raise
        failed = {failure.key for failure in failures}
        if failed:
            _tell_failures(failures)
            await self._put_off(sorted(failed))
        gone = [tombstone for tombstone in taken if tombstone.storage_key not in failed]
        await self._settle([tombstone.storage_key for tombstone in gone])
        return Batch(
            taken=len(taken),
            deleted=len(gone),
            put_off=len(failed),
            bytes=sum(tombstone.size or 0 for tombstone in gone),
            late_seconds=_seconds_since(max(tombstone.due_since for tombstone in taken)),
        )

    async def seconds_until_due(self) -> float | None:
        return await self._database.read(lambda c: collecting.seconds_until(c, collecting.NEXT_TOMBSTONE))

    async def put_off_first(self) -> None:
        """Nothing: what cannot be deleted is put off by `collect` itself."""

    async def _settle(self, keys: Sequence[str]) -> None:
        await self._database.write(lambda c: collecting.settle_tombstones(c, keys))

    async def _put_off(self, keys: Sequence[str]) -> None:
        await self._database.write(lambda c: collecting.put_off_tombstones(c, keys))


class UploadExpiry:
    """Ends upload sessions that nobody has touched for `age`. Their rows tell; the storage is not searched."""

    name: ClassVar[str] = "uploads"

    def __init__(self, database: Database, *, age: timedelta) -> None:
        self._database = database
        self._age = age

    async def collect(self, limit: int) -> Batch:
        ended = await self._database.write(
            lambda c: collecting.expire_uploads(c, limit, self._age, EXPIRED_UPLOAD_GRACE)
        )
        return Batch(is_paused=True) if ended is None else Batch(taken=ended, deleted=ended)

    async def seconds_until_due(self) -> float | None:
        return await self._database.read(
            lambda c: _older_than(self._age, collecting.seconds_until(c, collecting.OLDEST_UPLOAD))
        )

    async def put_off_first(self) -> None:
        """Nothing: a session can always be ended."""


class ReceiptPruning:
    """Forgets receipts that are older than `age`."""

    name: ClassVar[str] = "receipts"

    def __init__(self, database: Database, *, age: timedelta) -> None:
        self._database = database
        self._age = age

    async def collect(self, limit: int) -> Batch:
        pruned = await self._database.write(lambda c: collecting.prune_receipts(c, limit, self._age))
        return Batch(taken=pruned, deleted=pruned)

    async def seconds_until_due(self) -> float | None:
        return await self._database.read(
            lambda c: _older_than(self._age, collecting.seconds_until(c, collecting.OLDEST_RECEIPT))
        )

    async def put_off_first(self) -> None:
        """Nothing: a receipt can always be forgotten."""


def _next_begin(found: Reviewed | None, limit: int) -> datetime | None:
    """Where the next batch begins: after this one, or at the oldest again once the queue is through."""
    return found.reached if found is not None and found.reviewed == limit else None


def _batch(found: Reviewed | None) -> Batch:
    if found is None:
        return Batch(is_paused=True)
    late = 0.0 if found.reached is None else _seconds_since(found.reached)
    return Batch(found.reviewed, found.deleted, found.put_off, found.bytes, late_seconds=late)


def _seconds_since(moment: datetime) -> float:
    return (datetime.now(UTC) - moment).total_seconds()


async def _older_than(age: timedelta, oldest: Awaitable[float | None]) -> float | None:
    seconds = await oldest
    return None if seconds is None else seconds + age.total_seconds()


def _tell_failures(failures: Sequence[DeleteFailure]) -> None:
    first = failures[0]
    _log.warning(
        "%d objects could not be deleted and are put off; the first, %s: %s",
        len(failures),
        first.key,
        first.error.__cause__ or first.error,
    )
