"""Pulling: manifests and blobs, by those who may see the repository.

A HEAD is more than a read: a push relies on "it exists" and sends nothing again. So whatever a HEAD confirms is given
a grace period (I8), which costs a write only while a review of it is pending.

The database is asked about every request, and requests share statements (`Coalesced`). Only what can never change is
kept in the process: the bytes of manifests, by digest.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from app.blobs.driver import ObjectMissing, ObjectTooShort
from app.domain.digest import Digest
from app.domain.errors import BlobUnknown, ManifestUnknown, Unavailable
from app.services.coalescing import Coalesced
from app.store import blobs, lookups, manifests
from app.store.lookups import DigestKey, FoundBlob, FoundManifest, TagKey

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from app.blobs.driver import Driver
    from app.domain.names import Reference, RepositoryName
    from app.services.repository_ids import RepositoryIds
    from app.store.engine import Database

_log = logging.getLogger(__name__)
# Payloads kept in each process, and the largest of them: images have manifests of some kilobytes.
PAYLOADS_BYTES_MAX: Final = 32 * 1024 * 1024
PAYLOAD_BYTES_MAX: Final = 256 * 1024


class Pull:
    """Reads on behalf of clients."""

    def __init__(self, database: Database, driver: Driver, ids: RepositoryIds) -> None:
        self._database = database
        self._driver = driver
        self._ids = ids
        self._payloads = _Payloads(PAYLOADS_BYTES_MAX)
        self._by_tag: Coalesced[TagKey, FoundManifest] = Coalesced(self._look_up_tags)
        self._by_digest: Coalesced[DigestKey, FoundManifest] = Coalesced(self._look_up_digests)
        self._blobs: Coalesced[DigestKey, FoundBlob] = Coalesced(self._look_up_blobs)

    async def manifest(self, name: RepositoryName, reference: Reference) -> FoundManifest:
        """The manifest without its payload. Raises NameUnknown, ManifestUnknown."""

        async def ask(repository_id: int) -> FoundManifest | None:
            if isinstance(reference, Digest):
                return await self._by_digest.ask(DigestKey(repository_id, name, reference.packed))
            return await self._by_tag.ask(TagKey(repository_id, name, reference))

        found = await self._ids.find_in(name, ask)
        if found is None:
            raise _manifest_unknown(reference)
        return found

    async def manifest_head(self, name: RepositoryName, reference: Reference) -> FoundManifest:
        """As `manifest`; it stays for a grace period."""
        found = await self.manifest(name, reference)
        if found.due and not await self._database.write(
            lambda c: manifests.keep(c, found.repository_id, found.id)
        ):
            raise _manifest_unknown(reference)
        return found

    async def payload(self, manifest: FoundManifest) -> bytes:
        """The manifest's bytes. Raises ManifestUnknown if it was deleted since it was found."""
        payload = self._payloads.find(manifest.digest)
        if payload is None:
            payload = await self._database.read(
                lambda c: manifests.payload(c, manifest.repository_id, manifest.id)
            )
            if payload is None:
                raise _manifest_unknown(manifest.digest)
            self._payloads.keep(manifest.digest, payload)
        return payload

    async def blob(self, name: RepositoryName, digest: Digest) -> FoundBlob:
        """The blob, if the repository has it. Raises NameUnknown, BlobUnknown."""

        async def ask(repository_id: int) -> FoundBlob | None:
            return await self._blobs.ask(DigestKey(repository_id, name, digest.packed))

        found = await self._ids.find_in(name, ask)
        if found is None:
            raise BlobUnknown({"digest": str(digest)})
        return found

    async def blob_head(self, name: RepositoryName, digest: Digest) -> FoundBlob:
        """As `blob`; it stays for a grace period."""
        found = await self.blob(name, digest)
        if found.due and not await self._database.write(lambda c: blobs.keep(c, digest)):
            raise BlobUnknown({"digest": str(digest)})
        return found

    async def content(self, blob: FoundBlob, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """The blob's bytes from `start` to before `stop`. Raises Unavailable before the first if they cannot be had."""
        try:
            async with aclosing(self._driver.read(blob.storage_key, start, stop)) as blocks:
                async for block in blocks:
                    yield block
        except (ObjectMissing, ObjectTooShort) as error:
            _log.exception("blob %s: its object %s is damaged", blob.digest, blob.storage_key)
            raise Unavailable("the blob's content cannot be read") from error

    async def _look_up_tags(self, keys: Sequence[TagKey]) -> dict[TagKey, FoundManifest]:
        return await self._database.read(lambda c: lookups.manifests_by_tag(c, keys))

    async def _look_up_digests(self, keys: Sequence[DigestKey]) -> dict[DigestKey, FoundManifest]:
        return await self._database.read(lambda c: lookups.manifests_by_digest(c, keys))

    async def _look_up_blobs(self, keys: Sequence[DigestKey]) -> dict[DigestKey, FoundBlob]:
        return await self._database.read(lambda c: lookups.blobs_by_digest(c, keys))


class _Payloads:
    """The payloads used last, at most `bytes_max` of them together. Their digests name their bytes for ever."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._payloads: OrderedDict[Digest, bytes] = OrderedDict()

    def find(self, digest: Digest) -> bytes | None:
        payload = self._payloads.get(digest)
        if payload is not None:
            self._payloads.move_to_end(digest)
        return payload

    def keep(self, digest: Digest, payload: bytes) -> None:
        if len(payload) > PAYLOAD_BYTES_MAX or digest in self._payloads:
            return
        self._payloads[digest] = payload
        self._bytes += len(payload)
        while self._bytes > self._bytes_max:
            _, oldest = self._payloads.popitem(last=False)
            self._bytes -= len(oldest)


def _manifest_unknown(reference: Reference) -> ManifestUnknown:
    return ManifestUnknown({"digest" if isinstance(reference, Digest) else "tag": str(reference)})
