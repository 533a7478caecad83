"""Objects in this process's memory: for tests and trials. Everything is gone when the process ends.

It behaves as the other drivers do, so that what passes on it is no surprise elsewhere; durability alone is
not to be had from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from app.blobs.driver import (
    DELETE_KEYS_MAX,
    DeleteFailure,
    KeyInvalid,
    ObjectExists,
    ObjectMissing,
    ObjectTooShort,
    StorageError,
    StoredObject,
)
from app.blobs.keys import HEALTH_PREFIX, check_key
from app.domain.limits import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence


@dataclass
class _Object:
    modified: datetime
    content: bytearray = field(default_factory=bytearray)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Memory:
    """The driver. `now` dates the objects."""

    def __init__(self, now: Callable[[], datetime] = _utc_now) -> None:
        self._objects: dict[str, _Object] = {}
        self._now = now

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, object]) -> Memory:
        if parameters:
            raise ValueError(f"storage.inmemory has no settings, but {', '.join(sorted(parameters))} is set")
        return cls()

    def append(self, key: str, offset: int) -> _Appender:
        check_key(key)
        if offset < 0:
            raise ValueError("an offset is not negative")
        return _Appender(self, key, offset)

    async def read(self, key: str, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        if not 0 <= start <= stop:
            raise ValueError("a range starts at 0 or later and does not end before its start")
        self._get(key, stop)
        for position in range(start, stop, BLOCK_BYTES):
            end = min(position + BLOCK_BYTES, stop)
            yield bytes(self._get(key, end).content[position:end])

    async def size(self, key: str) -> int:
        return len(self._get(key, 0).content)

    async def copy(self, source: str, target: str, length: int) -> None:
        check_key(target)
        found = self._get(source, length)
        if target in self._objects:
            raise ObjectExists
        self._objects[target] = _Object(self._now(), found.content[:length])

    async def delete(self, keys: Sequence[str]) -> Sequence[DeleteFailure]:
        if len(keys) > DELETE_KEYS_MAX:
            raise ValueError(f"at most {DELETE_KEYS_MAX} keys are deleted at a time")
        failures: list[DeleteFailure] = []
        for key in keys:
            try:
                check_key(key)
            except KeyInvalid as error:
                failures.append(DeleteFailure(key, error))
            else:
                self._objects.pop(key, None)
        return failures

    async def list(self) -> AsyncGenerator[StoredObject, None]:
        for key in sorted(self._objects, key=str.encode):
            found = self._objects.get(key)
            if found is not None and not key.startswith(HEALTH_PREFIX):
                yield StoredObject(key, len(found.content), found.modified)

    async def check(self) -> None:
        """Nothing can be wrong with it."""

    async def close(self) -> None:
        """Nothing is open; the objects stay until the driver itself is let go."""

    def open_at(self, key: str, offset: int) -> bytearray:
        """The object's bytes, cut off at `offset`; made if `offset` is 0. For the writer."""
        if offset == 0:
            self._objects.setdefault(key, _Object(self._now()))
        found = self._get(key, offset)
        found.modified = self._now()
        del found.content[offset:]
        return found.content

    def _get(self, key: str, length: int) -> _Object:
        check_key(key)
        found = self._objects.get(key)
        if found is None:
            raise ObjectMissing
        if len(found.content) < length:
            raise ObjectTooShort(len(found.content), length)
        return found


class _Appender:
    def __init__(self, driver: Memory, key: str, offset: int) -> None:
        self._driver, self._key, self._offset = driver, key, offset
        self._content: bytearray | None = None
        self._closed = False

    async def write(self, block: bytes) -> None:
        self._open().extend(block)

    async def commit(self) -> None:
        self._open()
        self._closed = True

    async def abort(self) -> None:
        self._closed = True

    def _open(self) -> bytearray:
        if self._closed:
            raise StorageError("the writer is closed")
        if self._content is None:
            try:
                self._content = self._driver.open_at(self._key, self._offset)
            except StorageError:
                self._closed = True
                raise
        return self._content
