"""The same work on many things, a few at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

T = TypeVar("T")


async def each(items: Iterable[T], work: Callable[[T], Awaitable[None]], at_once: int) -> None:
    """`work` on every item. The first error ends it, once what is under way is over."""
    left = iter(items)
    failures: list[Exception] = []

    async def worker() -> None:
        for item in left:
            if failures:
                return
            try:
                await work(item)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is raised below, and not in a group
                failures.append(error)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())
    if failures:
        raise failures[0]
