"""What the registry asks of object storage, and nothing more.

An object is a run of bytes under a key. One upload session writes one key: it may be appended to in several
requests, by several processes one after another, and is never written again once a blob names it. Who may
append to a key at a time is settled by the database, not here.

What every driver promises, and tests/blobs/test_conformance.py holds it to:

- After `Writer.commit` and after `copy` the bytes survive a power cut; after `delete` so does their
  absence.
- Bytes that were not committed may be there or not. `append` cuts off whatever lies behind its offset.
- No message of a `StorageError` holds a path, a host or a key, so it may be shown to a client; `__cause__`
  holds what the operator needs.
- A cancelled call leaves no file or connection open, and nothing at work on one that is closed.
- No key is the directory of another: beside `a/b` there is never an object `a`.

Object stores need more than this, and get it without a change here: a driver whose appends are a multipart
upload takes and gives the state of that upload as opaque JSON, `parts`, through its Writer; presigned URLs
and bulk deletes beyond `delete` are powers, separate optional protocols that a caller asks for with
isinstance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from datetime import datetime

# Keys of one `delete`: what S3 takes in one DeleteObjects request.
DELETE_KEYS_MAX: Final = 1000


class StorageError(Exception):
    """The object storage failed, or was used wrongly."""

    message: ClassVar[str] = "the object storage failed"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.message)


class KeyInvalid(StorageError):
    """A key is not what app/blobs/keys.py allows."""

    message = "the storage key is malformed"


class ObjectMissing(StorageError):
    """There is no object of that key."""

    message = "the object is not in storage"


class ObjectTooShort(StorageError):
    """The object ends before the bytes that were asked for."""

    def __init__(self, held_bytes: int, wanted_bytes: int) -> None:
        super().__init__(f"the object in storage has {held_bytes} bytes where {wanted_bytes} are needed")
        self.held_bytes = held_bytes
        self.wanted_bytes = wanted_bytes


class ObjectExists(StorageError):
    """A copy's target is there already."""

    message = "the storage key is in use already"


class StorageUnavailable(StorageError):
    """The storage cannot do it now: read-only, forbidden, broken, unreachable."""

    message = "the object storage is not available"


class StorageFull(StorageUnavailable):
    """No space, or no quota, is left."""

    message = "the object storage is full"


@dataclass(frozen=True)
class StoredObject:
    """An object as storage sees it. `modified` is in UTC."""

    key: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class DeleteFailure:
    """A key that `Driver.delete` could not delete, and why."""

    key: str
    error: StorageError


class Writer(Protocol):
    """One run of appended bytes. `commit` or `abort` ends it; after an error or a cancellation, only `abort`.

    Nothing is opened before the first `write` or the `commit`. `abort` may always follow, also after
    `commit`, so that it can stand in a `finally`.
    """

    async def write(self, block: bytes) -> None:
        """Append all of `block`. Raises StorageFull; at the first call also what `Driver.append` names."""
        ...

    async def commit(self) -> None:
        """Make what was written durable, the object's name included, and close."""
        ...

    async def abort(self) -> None:
        """Close, if it is open. Nothing is promised of the bytes since the last commit."""
        ...


class Driver(Protocol):
    """Object storage. Every method may raise StorageUnavailable, and KeyInvalid where it takes a key."""

    def append(self, key: str, offset: int) -> Writer:
        """A writer that adds to the object's first `offset` bytes and cuts off what lies behind them.

        Offset 0 creates the object. The writer's first call raises ObjectMissing or ObjectTooShort if there
        are fewer than `offset` bytes.
        """
        ...

    def read(self, key: str, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` up to but not including `stop`, in blocks of at most limits.BLOCK_BYTES.

        At the first step, before any byte is given, it raises ObjectMissing, or ObjectTooShort if the object
        ends before `stop`. A consumer that may stop early closes it (contextlib.aclosing).
        """
        ...

    async def size(self, key: str) -> int:
        """The object's length in bytes. Raises ObjectMissing."""
        ...

    async def copy(self, source: str, target: str, length: int) -> None:
        """Copy the first `length` bytes of `source` inside the storage to the new key `target`, durably.

        Raises ObjectMissing, ObjectTooShort, and ObjectExists if the target is there. A copy that fails
        leaves no target; a cancelled one may leave it.
        """
        ...

    async def delete(self, keys: Sequence[str]) -> Sequence[DeleteFailure]:
        """Delete up to DELETE_KEYS_MAX objects. A missing one counts as done; a failure stops no other."""
        ...

    def list(self) -> AsyncGenerator[StoredObject, None]:
        """Every object in the ascending order of its key's UTF-8 bytes, what `check` writes left out.

        Objects that come or go meanwhile may be given or not. A consumer that may stop early closes it.
        """
        ...

    async def check(self) -> None:
        """Write, read and delete a small object. Raises StorageUnavailable if any of it fails."""
        ...

    async def close(self) -> None:
        """Let go of threads and connections. Readers and writers end before; nothing is called after."""
        ...
