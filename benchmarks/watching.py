"""Looks at a contender's memory while something else happens."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from benchmarks.images import MIB

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.contenders import Contender

# Each look costs the server's processors some milliseconds.
_EVERY_SECONDS: Final = 0.2


@asynccontextmanager
async def watched(contender: Contender) -> AsyncGenerator[dict[str, float]]:
    """MiB, by name: before the block, and the most in it, with and without PostgreSQL."""
    now = await asyncio.to_thread(contender.memory_bytes)
    gauges = {"before": now.total / MIB, "peak": 0.0, "peak_no_postgres": 0.0}

    async def look() -> None:
        while True:
            seen = await asyncio.to_thread(contender.memory_bytes)
            gauges["peak"] = max(gauges["peak"], seen.total / MIB)
            gauges["peak_no_postgres"] = max(gauges["peak_no_postgres"], (seen.total - seen.database) / MIB)
            await asyncio.sleep(_EVERY_SECONDS)

    task = asyncio.create_task(look())
    try:
        yield gauges
    finally:
        task.cancel()
        await asyncio.wait([task])
