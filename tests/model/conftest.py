"""A database that does the same thing twice: reviews fall due after the delay and half a minute, not at random in it.

Otherwise an example that is played again could have other things collected in a batch, and so could not be shrunk.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.postgres import connected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.store.engine import Target

_DEFINITION: Final = "SELECT pg_get_functiondef('gc_review_after'::regproc)"


@pytest.fixture
def steady_database(database: Target) -> Iterator[Target]:
    original = asyncio.run(_asked(database, _DEFINITION))
    steady = original.replace("random() * interval '1 minute'", "interval '30 seconds'")
    assert steady != original
    asyncio.run(_asked(database, steady))
    yield database
    asyncio.run(_asked(database, original))


async def _asked(database: Target, sql: str) -> str:
    async with connected(database) as connection:
        return await connection.fetchval(sql)
