"""Accounts for tests of the store, and clocks that are set back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from app.store import accounts
from app.store.engine import Connection
from tests.support.postgres import connected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.store.engine import Target

PASSWORD: Final = "$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA"
SECRET: Final = "sha256:" + "a" * 64
LIFETIMES: Final = {
    "account_secrets": ("expires_at", "last_used_at"),
    "refresh_tokens": ("expires_at", "last_used_at"),
    "signing_keys": ("expires_at",),
    "login_failures": ("last_failed_at", "succeeded_at", "forget_after"),
}


class Person:
    """One connection: `c` for store functions, `raw` for SQL."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.c = Connection(raw, None)

    async def secret_of(self, name: str) -> int:
        return await self.raw.fetchval(
            "SELECT s.id FROM account_secrets s JOIN accounts a ON a.id = s.account_id WHERE a.name = $1",
            name,
        )

    async def person(self, name: str = "alice") -> int:
        return await accounts.add(self.c, name, "person", secret_hash=PASSWORD)

    async def robot(self, name: str = "ci") -> int:
        return await accounts.add(self.c, name, "robot", secret_hash=SECRET)

    async def passes(self, interval: str) -> None:
        """So much time goes by."""
        for table, columns in LIFETIMES.items():
            moved = ", ".join(f"{column} = {column} - interval '{interval}'" for column in columns)
            await self.raw.execute(f"UPDATE {table} SET {moved}")

    async def versions(self, table: str) -> list[str]:
        """Each row's version: the same again means that nothing was written."""
        return [
            row[0] for row in await self.raw.fetch(f"SELECT ctid::text || xmin FROM {table} ORDER BY ctid")
        ]

    async def count(self, table: str) -> int:
        return await self.raw.fetchval(f"SELECT count(*) FROM {table}")


def talk(target: Target, scene: Callable[[Person], Awaitable[None]]) -> None:
    """Play the scene on one connection."""

    async def run() -> None:
        async with asyncio.timeout(40), connected(target) as raw:
            await scene(Person(raw))

    asyncio.run(run())
