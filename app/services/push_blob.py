"""Pushing blobs: upload sessions of every style, on any process, each byte hashed and stored once.

Order (I4, I5, I7): a row names the object before a byte is written; bytes are durable before a row says so; no
transaction is open while bytes move. A request claims the session, appends, and gives it back; `store.uploads`
tells how a second request on the same session is kept from mixing its bytes in.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

from app.blobs import hashing
from app.blobs.driver import StorageError
from app.blobs.keys import new_key
from app.domain.access import Action, Caller
from app.domain.errors import BlobUploadUnknown, ClientGone, DigestInvalid, RangeInvalid, SizeInvalid
from app.domain.limits import UPLOAD_BLOCK_BYTES
from app.store import blobs, repositories, uploads
from app.store.uploads import Claim

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from app.blobs.driver import Driver, Writer
    from app.blobs.hashing import Hasher
    from app.domain.digest import Algorithm, Digest
    from app.domain.names import RepositoryName
    from app.runtime.threads import Threads
    from app.services.repository_ids import RepositoryIds
    from app.store.engine import Connection, Database

_log = logging.getLogger(__name__)
# How long the object of a session that was cancelled or taken over stays, for requests that still write to it.
_TAKEN_OVER_GRACE: Final = timedelta(days=1)
_CANCELLED_GRACE: Final = timedelta(hours=1)


@dataclass(frozen=True)
class Chunk:
    """A request's body. `start` and `length` are what its Content-Range states, None where it has none."""

    body: AsyncIterator[bytes]
    start: int | None = None
    length: int | None = None


class PushBlob:
    """Upload sessions, single-request uploads, mounts."""

    def __init__(self, database: Database, driver: Driver, ids: RepositoryIds, hashers: Threads) -> None:
        self._database = database
        self._driver = driver
        self._ids = ids
        self._hashers = hashers

    async def start(self, name: RepositoryName, algorithm: Algorithm, caller: Caller) -> UUID:
        """Open a session. `algorithm` is what the running hash is computed with."""
        return (await self._open(name, algorithm, caller, writer=None)).id

    async def whole(self, name: RepositoryName, digest: Digest, chunk: Chunk, caller: Caller) -> None:
        """A blob in one request. Raises DigestInvalid, ClientGone; then nothing is left of it."""
        claim = await self._open(name, digest.algorithm, caller, writer=uuid4())
        try:
            claim, hasher = await self._append(claim, chunk, hold=True)
            await self._finish(claim, name, digest, hasher)
        except (ClientGone, StorageError):
            # Nobody was told of this session, so nobody else can hold it or go on from it.
            await self._drop(claim, name, "upload_cancelled", writer=None)
            raise

    async def append(self, name: RepositoryName, upload: UUID, chunk: Chunk) -> int:
        """Add a chunk. Returns the session's size. Raises BlobUploadUnknown, RangeInvalid, SizeInvalid, ClientGone."""
        claim = await self._claim(name, upload, chunk.start)
        claim, _ = await self._append(claim, chunk, hold=False)
        return claim.size

    async def finish(self, name: RepositoryName, upload: UUID, digest: Digest, chunk: Chunk) -> None:
        """Add the last chunk, which may be empty, and make the blob. Raises as `append`, and DigestInvalid.

        A wrong digest ends the session, a wrong range does not.
        """
        claim = await self._claim(name, upload, chunk.start)
        claim, hasher = await self._append(claim, chunk, hold=True)
        await self._finish(claim, name, digest, hasher)

    async def size(self, name: RepositoryName, upload: UUID) -> int:
        """How many bytes the session has. Raises BlobUploadUnknown."""

        async def work(c: Connection) -> int | None:
            return await uploads.find(c, upload, name)

        found = await self._database.read(work)
        if found is None:
            raise BlobUploadUnknown({"upload": str(upload)})
        return found

    async def cancel(self, name: RepositoryName, upload: UUID) -> None:
        """End the session. Raises BlobUploadUnknown."""

        async def work(c: Connection) -> bool:
            return await uploads.drop(
                c, upload, name, writer=None, reason="upload_cancelled", grace=_CANCELLED_GRACE
            )

        if not await self._database.write(work):
            raise BlobUploadUnknown({"upload": str(upload)})

    async def mount(
        self, name: RepositoryName, digest: Digest, source: RepositoryName | None, caller: Caller
    ) -> bool:
        """Link a blob from `source`. False: it is not there, or the caller may not read it there.

        Without a source every repository is looked into if the caller may read them all, else the target alone:
        more would tell what others hold.
        """
        if source is None and not caller.may(Action.PULL, None):
            source = name
        if source is not None and not caller.may(Action.PULL, source):
            return False

        async def work(c: Connection) -> bool:
            source_id = None if source is None else await repositories.find(c, source)
            if source is not None and source_id is None:
                return False
            return await blobs.mount(c, source_id, await repositories.ensure(c, name), digest)

        return await self._database.write(work)

    async def _open(
        self, name: RepositoryName, algorithm: Algorithm, caller: Caller, *, writer: UUID | None
    ) -> Claim:
        upload, key = uuid4(), new_key()

        async def work(c: Connection) -> int:
            return await uploads.start(
                c,
                upload,
                name,
                storage_key=key,
                algorithm=algorithm,
                started_by=caller.subject.name,
                writer=writer,
            )

        repository_id = await self._database.write(work)
        self._ids.remember(name, repository_id)
        return Claim(upload, repository_id, writer or upload, key, 0, algorithm, None, overtaken=False)

    async def _claim(self, name: RepositoryName, upload: UUID, start: int | None) -> Claim:
        writer = uuid4()

        async def work(c: Connection) -> Claim | None:
            return await uploads.claim(c, upload, name, writer, start_at=start)

        claim = await self._database.write(work)
        if claim is None:
            size = await self.size(name, upload)
            raise RangeInvalid(f"the chunk starts at {start}, the upload stands at {size} bytes")
        return await self._take_over(claim) if claim.overtaken else claim

    async def _take_over(self, claim: Claim) -> Claim:
        """Go on under a key of our own: the request that we have overtaken may still write to the old one."""
        key = new_key()
        await self._database.write(lambda c: uploads.intend(c, key, _TAKEN_OVER_GRACE))
        if claim.size:
            await self._driver.copy(claim.storage_key, key, claim.size)
        if not await self._database.write(lambda c: uploads.adopt(c, claim, key)):
            raise _overtaken()
        return replace(claim, storage_key=key, overtaken=False)

    async def _append(self, claim: Claim, chunk: Chunk, *, hold: bool) -> tuple[Claim, Hasher]:
        """Store the chunk behind what the session has. With `hold` the session stays ours unless this fails.

        When the client goes away, what has arrived is kept and recorded, so that it can go on from there.
        """
        hasher = await self._hasher(claim)
        writer = self._driver.append(claim.storage_key, claim.size)
        intake = _Intake(writer, hasher, self._hashers)
        try:
            await intake.take(chunk.body)
            if chunk.length is not None and intake.taken != chunk.length:
                raise SizeInvalid(f"Content-Range states {chunk.length} bytes, {intake.taken} arrived")
            if intake.taken or (hold and not claim.size):
                await writer.commit()
        except ClientGone:
            await writer.commit()
            await self._save(claim, claim.size + intake.taken, hasher)
            raise
        except Exception:
            await writer.abort()
            await self._database.write(lambda c: uploads.save(c, claim, claim.size, claim.hash_state))
            raise
        finally:
            await writer.abort()
        grown = replace(claim, size=claim.size + intake.taken, hash_state=hasher.state())
        if not hold and not await self._save(claim, grown.size, hasher):
            raise _overtaken()
        return grown, hasher

    async def _save(self, claim: Claim, size: int, hasher: Hasher) -> bool:
        return await self._database.write(lambda c: uploads.save(c, claim, size, hasher.state()))

    async def _hasher(self, claim: Claim) -> Hasher:
        if claim.hash_state is not None:
            try:
                return hashing.resume_hasher(claim.algorithm, claim.hash_state)
            except ValueError:  # another machine wrote it, and this one cannot take it up
                _log.warning(
                    "upload %s: its hash state cannot be resumed, its bytes are read again", claim.id
                )
        return await self._rehash(claim, claim.algorithm)

    async def _rehash(self, claim: Claim, algorithm: Algorithm) -> Hasher:
        """The running hash of what the session has, computed from storage."""
        hasher = hashing.new_hasher(algorithm)
        if claim.size:
            async with aclosing(self._driver.read(claim.storage_key, 0, claim.size)) as blocks:
                async for block in blocks:
                    await hashing.update(hasher, block, self._hashers)
        return hasher

    async def _finish(self, claim: Claim, name: RepositoryName, digest: Digest, hasher: Hasher) -> None:
        if digest.algorithm is not claim.algorithm:
            hasher = await self._rehash(claim, digest.algorithm)
        computed = hasher.digest()
        if computed != digest:
            await self._drop(claim, name, "upload_rejected", writer=claim.writer)
            raise DigestInvalid(f"the content's digest is {computed}, the request states {digest}")
        if not await self._database.write(lambda c: uploads.finish(c, claim, digest, claim.size)):
            raise _overtaken()
        self._ids.remember(name, claim.repository_id)

    async def _drop(
        self, claim: Claim, name: RepositoryName, reason: uploads.Reason, *, writer: UUID | None
    ) -> None:
        await self._database.write(
            lambda c: uploads.drop(c, claim.id, name, writer=writer, reason=reason, grace=timedelta(0))
        )


class _Intake:
    """Takes a body to storage and hash in blocks; while one is stored, the server receives what comes after it.

    Memory stays near two blocks, whatever the body's length. `taken` counts bytes that are stored and hashed.
    """

    def __init__(self, writer: Writer, hasher: Hasher, hashers: Threads) -> None:
        self._writer = writer
        self._hasher = hasher
        self._hashers = hashers
        self.taken = 0

    async def take(self, body: AsyncIterator[bytes]) -> None:
        async with aclosing(_blocks(body)) as blocks:
            async for block in blocks:
                await self._store(block)

    async def _store(self, block: bytes) -> None:
        # Hash and file system each have a thread of their own, so a block takes the longer of the two.
        hashed = asyncio.ensure_future(hashing.update(self._hasher, block, self._hashers))
        try:
            await self._writer.write(block)
        finally:
            await hashed
        self.taken += len(block)


async def _blocks(body: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The body in blocks of UPLOAD_BLOCK_BYTES or more. What arrived before the client went away is still given."""
    parts: list[bytes] = []
    size = 0
    gone: ClientGone | None = None
    try:
        async for part in body:
            parts.append(part)
            size += len(part)
            if size >= UPLOAD_BLOCK_BYTES:
                yield parts[0] if len(parts) == 1 else b"".join(parts)
                parts, size = [], 0
    except ClientGone as error:
        gone = error
    if size:
        yield b"".join(parts)
    if gone is not None:
        raise gone


def _overtaken() -> RangeInvalid:
    return RangeInvalid("another request has taken over this upload; ask for its status and go on from there")
