"""Pulling: manifests and blobs, by those who may see the repository.

A HEAD is more than a read: a push relies on "it exists" and sends nothing again. So whatever a HEAD confirms is given
a grace period (I8), which costs a write only while a review of it is pending.
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from app.blobs.driver import Driver, ObjectMissing, ObjectTooShort
from app.domain.digest import Digest
from app.domain.errors import BlobUnknown, ManifestUnknown, Unavailable
from app.store import blobs, manifests

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from app.domain.names import Reference, RepositoryName
    from app.services.repository_ids import RepositoryIds
    from app.store.blobs import Blob
    from app.store.engine import Connection, Database
    from app.store.manifests import StoredManifest

_log = logging.getLogger(__name__)
# A review that is due later than this leaves a push time enough; the database decides anew with its own setting.
GRACE: Final = timedelta(hours=12)


class Pull:
    """Reads on behalf of clients."""

    def __init__(self, database: Database, driver: Driver, ids: RepositoryIds) -> None:
        self._database = database
        self._driver = driver
        self._ids = ids

    async def manifest(self, name: RepositoryName, reference: Reference) -> StoredManifest:
        """The manifest with its payload. Raises NameUnknown, ManifestUnknown."""

        async def query(c: Connection, repository_id: int) -> StoredManifest | None:
            return await manifests.get(c, repository_id, name, reference)

        return _known(await self._ids.find_in(self._database, name, query), reference)

    async def manifest_head(self, name: RepositoryName, reference: Reference) -> StoredManifest:
        """The manifest without its payload; what it names stays for a grace period. Raises as `manifest`."""

        async def query(c: Connection, repository_id: int) -> StoredManifest | None:
            found = await manifests.head(c, repository_id, name, reference)
            if found is None or found.now is None or not _is_due(found.reviewed_after, found.now):
                return found
            return found if await manifests.keep(c, repository_id, found.id) else None

        return _known(await self._ids.find_in(self._database, name, query), reference)

    async def blob(self, name: RepositoryName, digest: Digest) -> Blob:
        """The blob, if the repository has it. Raises NameUnknown, BlobUnknown."""

        async def query(c: Connection, repository_id: int) -> Blob | None:
            return await blobs.find(c, repository_id, name, digest)

        found = await self._ids.find_in(self._database, name, query)
        if found is None:
            raise BlobUnknown({"digest": str(digest)})
        return found

    async def blob_head(self, name: RepositoryName, digest: Digest) -> Blob:
        """As `blob`; it stays for a grace period."""
        found = await self.blob(name, digest)
        if not _is_due(found.reviewed_after, found.now):
            return found

        async def keep(c: Connection) -> bool:
            return await blobs.keep(c, digest)

        if not await self._database.write(keep):
            raise BlobUnknown({"digest": str(digest)})
        return found

    async def content(self, blob: Blob, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """The blob's bytes from `start` to before `stop`. Raises Unavailable before the first if they are not there."""
        try:
            async with aclosing(self._driver.read(blob.storage_key, start, stop)) as blocks:
                async for block in blocks:
                    yield block
        except (ObjectMissing, ObjectTooShort) as error:
            _log.exception("blob %s: its object %s is damaged", blob.digest, blob.storage_key)
            raise Unavailable("the blob's content cannot be read") from error


def _is_due(reviewed_after: datetime | None, now: datetime) -> bool:
    return reviewed_after is not None and reviewed_after < now + GRACE


def _known(found: StoredManifest | None, reference: Reference) -> StoredManifest:
    if found is None:
        raise ManifestUnknown({"digest" if isinstance(reference, Digest) else "tag": str(reference)})
    return found
