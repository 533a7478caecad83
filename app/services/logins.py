"""Attempts to log in, which are slowed for an address, or for an account, that fails too often.

The attempts at all replicas are counted, in the database. An address that has to wait is refused before anything of it
is looked at, so it does not make the account wait for others. Credentials that were right a moment ago, and robots'
secrets that are right, are not counted and need not wait: nobody guesses those.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from app.domain.errors import TooManyRequests, Unavailable
from app.runtime.threads import ThreadsBusy
from app.store import logins

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from app.auth.passwords import Verifications
    from app.store.engine import Database


# Attempts of one address that wait for each other in a process. Each takes some tenths of a second.
WAITING_MAX: Final = 50


@dataclass
class _Turn:
    """Who of an address is looked at. `waiting` counts those that want to be, with the one that is."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class Logins:
    """Checks passwords and keeps count of attempts."""

    def __init__(self, database: Database, verifications: Verifications) -> None:
        self._database = database
        self._verifications = verifications
        self._turns: dict[str, _Turn] = {}

    def remembered(self, hashes: Sequence[str], password: str) -> int | None:
        """What `check` would say at once, without asking or counting anything."""
        return self._verifications.remembered(hashes, password)

    async def check(self, address: str, account: str, hashes: Sequence[str], password: str) -> int | None:
        """The index of the hash that the password belongs to. Raises TooManyRequests, Unavailable.

        `address` is as `app.http.addresses.bucket` has it, `account` a name, or what `stranger` makes of one. `hashes`
        is empty for an account that does not exist, which takes as long as any other that fails.
        """
        if (known := self.remembered(hashes, password)) is not None:
            return known
        if not self._verifications.is_possible(password):
            # It is no guess. To count it would let rows be written as fast as requests come, unhashed.
            return None
        async with self._turn(address):
            if seconds := await self._database.read(lambda c: logins.wait(c, address, account)):
                raise TooManyRequests(
                    f"too many failed logins; try again in {seconds} {'second' if seconds == 1 else 'seconds'}",
                    retry_after_seconds=seconds,
                )
            try:
                matched = await self._verifications.verify(hashes, password)
            except ThreadsBusy:
                raise Unavailable("too many logins at once") from None
            record = logins.failed if matched is None else logins.succeeded
            await self._database.write(lambda c: record(c, address, account))
        return matched

    @asynccontextmanager
    async def _turn(self, address: str) -> AsyncGenerator[None]:
        """One attempt of an address at a time, or a hundred that come at once would all pass before one is counted."""
        turn = self._turns.setdefault(address, _Turn())
        if turn.waiting >= WAITING_MAX:
            raise TooManyRequests("too many logins at once from this address; try again in a second")
        turn.waiting += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                del self._turns[address]


def stranger(name: str) -> str:
    """What attempts at an account that does not exist are counted under.

    Not the name itself: now and then somebody types a password there.
    """
    return "?" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
