"""What the storage tests share: whole objects in one line, and a count of open files."""

from __future__ import annotations

import os
from contextlib import aclosing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.blobs.driver import Driver, StoredObject


async def put(driver: Driver, key: str, *blocks: bytes, offset: int = 0) -> None:
    """One session's request: append the blocks and commit."""
    writer = driver.append(key, offset)
    try:
        for block in blocks:
            await writer.write(block)
        await writer.commit()
    finally:
        await writer.abort()


async def get(driver: Driver, key: str, start: int = 0, stop: int | None = None) -> bytes:
    end = await driver.size(key) if stop is None else stop
    async with aclosing(driver.read(key, start, end)) as blocks:
        return b"".join([block async for block in blocks])


async def listed(driver: Driver) -> list[StoredObject]:
    async with aclosing(driver.list()) as objects:
        return [found async for found in objects]


def open_files() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/dev/fd"))  # noqa: PTH208 - it counts its own descriptor, always one
