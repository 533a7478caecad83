"""What the kernel and PostgreSQL say of a running registry: memory, descriptors, connections."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.support.postgres import connected

if TYPE_CHECKING:
    from app.store.engine import Target

_CONNECTIONS: Final = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'registry' AND pid <> pg_backend_pid()
"""
_UPLOADS: Final = "SELECT count(*) FROM blob_uploads"
_BUSY: Final = "SELECT count(*) FROM blob_uploads WHERE writer IS NOT NULL"


def memory_bytes(pid: int) -> int:
    """What the process has for itself: neither files nor what it shares."""
    found = re.search(r"^RssAnon:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def descriptors(pid: int) -> list[str]:
    """What the process has open, in the kernel's words."""
    found: list[str] = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(entry.readlink()))
    return found


def connections(database: Target) -> int:
    """How many connections the workers have: not the collectors, nor who asks."""
    return asyncio.run(_asked(database, _CONNECTIONS))


def uploads(database: Target) -> int:
    """How many uploads are open."""
    return asyncio.run(_asked(database, _UPLOADS))


def uploads_under_way(database: Target) -> int:
    """How many uploads some request is writing to."""
    return asyncio.run(_asked(database, _BUSY))


async def _asked(database: Target, sql: str) -> int:
    async with connected(database) as connection:
        return await connection.fetchval(sql)
