"""What the tests of services share: bodies as a server gives them, and storage that counts its calls and fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from app.blobs.driver import StorageUnavailable
from app.domain.access import Anyone
from app.domain.names import RepositoryName
from app.services.push_blob import Chunk
from tests.support.fsck import assert_fsck_clean
from tests.support.invariants import assert_invariants
from tests.support.registry import open_registry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from pathlib import Path

    from app.blobs.driver import DeleteFailure, Driver, StoredObject, Writer
    from app.domain.digest import Digest
    from app.store.engine import Target
    from tests.support.registry import Registry

NAME: Final = RepositoryName("a/b")
CALLER: Final = Anyone()


async def body(*parts: bytes, then: Exception | None = None) -> AsyncGenerator[bytes, None]:
    """A request's body, which ends with `then` if it is given."""
    for part in parts:
        await asyncio.sleep(0)
        yield part
    if then is not None:
        raise then


def chunk(*parts: bytes, start: int | None = None, then: Exception | None = None) -> Chunk:
    return Chunk(body(*parts, then=then), start)


async def content(registry: Registry, digest: Digest, name: RepositoryName = NAME) -> bytes:
    """The blob as a client gets it."""
    found = await registry.services.pull.blob(name, digest)
    async with aclosing(registry.services.pull.content(found, 0, found.size)) as blocks:
        return b"".join([block async for block in blocks])


def run(
    database: Target,
    root: Path,
    scenario: Callable[[Registry], Awaitable[None]],
    driver: Driver | None = None,
) -> None:
    """Run the scenario in a registry of its own; the invariants must hold when it is over."""

    async def bounded() -> None:
        async with asyncio.timeout(60), open_registry(database, root, driver=driver) as registry:
            await scenario(registry)
            await assert_invariants(database, registry.driver)
            await assert_fsck_clean(database, registry.driver)

    asyncio.run(bounded())


class Faulty:
    """A driver that counts its calls, and whose calls named in `failing`, as in ("write", 2), fail."""

    def __init__(self, driver: Driver, *failing: tuple[str, int]) -> None:
        self._driver = driver
        self._failing = set(failing)
        self.calls: Counter[str] = Counter()

    def fail_next(self, call: str) -> None:
        self._failing.add((call, self.calls[call] + 1))

    def count(self, call: str) -> None:
        self.calls[call] += 1
        if (call, self.calls[call]) in self._failing:
            raise StorageUnavailable

    def append(self, key: str, offset: int) -> Writer:
        return _FaultyWriter(self, self._driver.append(key, offset))

    async def read(self, key: str, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        self.count("read")
        async with aclosing(self._driver.read(key, start, stop)) as blocks:
            async for block in blocks:
                yield block

    async def size(self, key: str) -> int:
        return await self._driver.size(key)

    async def copy(self, source: str, target: str, length: int) -> None:
        self.count("copy")
        await self._driver.copy(source, target, length)

    async def delete(self, keys: Sequence[str]) -> Sequence[DeleteFailure]:
        return await self._driver.delete(keys)

    def list(self) -> AsyncGenerator[StoredObject, None]:
        return self._driver.list()

    async def check(self) -> None:
        await self._driver.check()

    async def close(self) -> None:
        await self._driver.close()


class _FaultyWriter:
    def __init__(self, driver: Faulty, writer: Writer) -> None:
        self._driver = driver
        self._writer = writer

    async def write(self, block: bytes) -> None:
        self._driver.count("write")
        await self._writer.write(block)

    async def commit(self) -> None:
        self._driver.count("commit")
        await self._writer.commit()

    async def abort(self) -> None:
        await self._writer.abort()
