"""Blobs' bytes, read and hashed: all of them, or a share that is drawn anew each time."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from app.blobs.driver import ObjectMissing, ObjectTooShort, StorageUnavailable
from app.services.fsck.crowd import each
from app.services.fsck.findings import Phase
from app.services.fsck.reading import digest_of
from app.services.fsck.verdicts import DamagedBlob
from app.store import census

if TYPE_CHECKING:
    from app.blobs.driver import Driver
    from app.runtime.threads import Threads
    from app.services.fsck.ledger import Ledger
    from app.services.fsck.verdicts import Verdicts
    from app.store.census import StoredBlob
    from app.store.engine import Database

PAGE: Final = 500
READS_AT_ONCE: Final = 4


class Contents:
    """Reads blobs. Memory stays near two blocks per read that is under way."""

    def __init__(
        self, database: Database, driver: Driver, hashers: Threads, verdicts: Verdicts, ledger: Ledger
    ) -> None:
        self._database = database
        self._driver = driver
        self._hashers = hashers
        self._verdicts = verdicts
        self._ledger = ledger

    async def check(self, share: float) -> None:
        """Read a `share` of the blobs, 1 being all of them."""
        self._ledger.began(Phase.CONTENTS, await self._database.read(census.named_about))
        last = b""
        while page := await self._page(last):
            last = page[-1].digest
            chosen = [blob for blob in page if random.random() < share]  # noqa: S311 - a sample, no secret
            self._ledger.advanced(len(page) - len(chosen))
            suspects: list[DamagedBlob] = []

            async def read(blob: StoredBlob, suspects: list[DamagedBlob] = suspects) -> None:
                if not await self._is_right(blob):
                    suspects.append(DamagedBlob(blob, is_read=True))
                self._ledger.advanced(1)

            await each(chosen, read, READS_AT_ONCE)
            if suspects:
                await self._verdicts.settle(suspects)

    async def _page(self, last: bytes) -> list[StoredBlob]:
        return await self._database.read(lambda c: census.blobs_after(c, last, PAGE))

    async def _is_right(self, blob: StoredBlob) -> bool:
        try:
            found = await digest_of(self._driver, blob, self._hashers)
        except (ObjectMissing, ObjectTooShort):
            return True  # not read, but that is for the comparison of rows and objects to tell
        except StorageUnavailable:
            # One object that cannot be read is a finding, storage that is away is none: then this fails, too.
            with suppress(ObjectMissing):
                await self._driver.size(blob.key)
            return False
        self._ledger.summary.blobs_read += 1
        self._ledger.summary.bytes_read += blob.size
        return found.packed == blob.digest
