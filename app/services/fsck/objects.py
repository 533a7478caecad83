"""Rows and objects, joined: both sides in the order of their keys, one row and one object at a time.

Memory does not grow with either side. What has no counterpart is a suspicion, and is settled with others.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from app.blobs.driver import StorageError
from app.services.fsck.findings import Phase
from app.services.fsck.verdicts import DamagedBlob, DamagedUpload, Orphan, Suspicion, Twice, Verdicts
from app.store import census
from app.store.census import StoredBlob

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from app.blobs.driver import Driver, StoredObject
    from app.services.fsck.ledger import Ledger
    from app.store.engine import Database, Target

# Each time they are settled the blobs may have to be read from end to end.
SUSPICIONS_MAX: Final = 5_000


async def compare_objects(
    target: Target, database: Database, driver: Driver, verdicts: Verdicts, ledger: Ledger
) -> None:
    """Check I2, and that sizes agree."""
    ledger.began(Phase.OBJECTS, await database.read(census.named_about))
    async with census.named_rows(target) as pages, aclosing(driver.list()) as objects:
        join = _Join(_Listing(objects, ledger), verdicts, ledger)
        async with aclosing(pages):
            async for page in pages:
                await join.take(page)
                ledger.advanced(len(page))
        await join.end()


class _Listing:
    """What storage lists; `current` is None at its end."""

    def __init__(self, objects: AsyncGenerator[StoredObject, None], ledger: Ledger) -> None:
        self._objects = objects
        self._summary = ledger.summary
        self.current: StoredObject | None = None

    async def advance(self) -> StoredObject | None:
        """The next one. Raises StorageError if it does not come after the one before: nothing could be joined then."""
        before, found = self.current, await anext(self._objects, None)
        if found is not None:
            # Strings of Python are in the order of their UTF-8 bytes.
            if before is not None and found.key <= before.key:
                raise StorageError("the storage lists its objects out of order")
            self._summary.objects += 1
            self._summary.object_bytes += found.size
        self.current = found
        return found


class _Join:
    def __init__(self, listing: _Listing, verdicts: Verdicts, ledger: Ledger) -> None:
        self._listing = listing
        self._verdicts = verdicts
        self._summary = ledger.summary
        self._suspicions: list[Suspicion] = []
        self._key: str | None = None
        self._begun = False
        # Whether a row has named the listing's current object.
        self._is_named = False

    async def take(self, page: list[Any]) -> None:
        """Rows as `census.Named`, which come after those before."""
        for row in page:
            key: str | None = row[0]
            if key is None:
                self._summary.awaited += 1
                continue
            found = await self._reach(key)
            if key == self._key:
                self._suspicions.append(Twice(key))
            self._key = key
            self._is_named = self._is_named or found is not None
            self._judge(row, found)
            if len(self._suspicions) >= SUSPICIONS_MAX:
                await self._settle()
        self._summary.rows += len(page)

    async def end(self) -> None:
        """No row is left."""
        await self._reach(None)
        await self._settle()

    async def _reach(self, key: str | None) -> StoredObject | None:
        """The object of that key, if it has one. What is passed on the way and has no row is suspect. None: the end."""
        found = self._listing.current
        if not self._begun:
            self._begun, found = True, await self._listing.advance()
        while found is not None and (key is None or found.key < key):
            if not self._is_named:
                self._suspicions.append(Orphan(found.key))
                if len(self._suspicions) >= SUSPICIONS_MAX:
                    await self._settle()
            self._is_named = False
            found = await self._listing.advance()
        return found if found is not None and found.key == key else None

    def _judge(self, row: Any, found: StoredObject | None) -> None:
        key, holder, size, digest = row
        if holder == "blob":
            if found is None or found.size != size:
                self._suspicions.append(DamagedBlob(StoredBlob(digest, size, key)))
        elif holder == "upload" and size and (found is None or found.size < size):
            self._suspicions.append(DamagedUpload(key))

    async def _settle(self) -> None:
        suspicions, self._suspicions = self._suspicions, []
        if suspicions:
            await self._verdicts.settle(suspicions)
