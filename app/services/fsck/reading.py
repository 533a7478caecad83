"""The bytes of a blob, hashed."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from app.blobs import hashing
from app.domain.digest import Digest

if TYPE_CHECKING:
    from app.blobs.driver import Driver
    from app.runtime.threads import Threads
    from app.store.census import StoredBlob


async def digest_of(driver: Driver, blob: StoredBlob, hashers: Threads) -> Digest:
    """The digest of what is stored under the blob's key. Raises as `Driver.read`."""
    hasher = hashing.new_hasher(Digest.unpack(blob.digest).algorithm)
    if blob.size:
        async with aclosing(driver.read(blob.key, 0, blob.size)) as blocks:
            async for block in blocks:
                await hashing.update(hasher, block, hashers)
    return hasher.digest()
