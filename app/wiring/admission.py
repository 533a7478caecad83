"""Whom a worker lets in: nobody is asked, or access control from the start, or from the first account on.

Cryptography takes 10 MiB in each worker, so it is loaded when it is needed.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Final

from app.domain.accounts import FIRST_ACCOUNT_SECONDS
from app.domain.errors import RegistryError, Unavailable
from app.http.call import no_tokens
from app.services.access.unguarded import Open
from app.store import accounts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.config import Settings
    from app.domain.access import Caller
    from app.services.access.controller import Controller, Presented
    from app.services.issue_token import IssueToken
    from app.store.engine import Database

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Access:
    """Who is let in, and the built-in token service, where there is one."""

    controller: Controller
    tokens: Callable[[], Awaitable[IssueToken | None]] = no_tokens


OPEN: Final = Access(Open())


async def admission(settings: Settings, database: Database, stack: AsyncExitStack) -> Access:
    """What `auth` says; `stack` closes it. Raises Unavailable."""
    if settings.auth.provider == "none":
        return OPEN
    issuer = settings.auth.issuer
    if issuer is None or not issuer.onceusersexist:
        return await _begin(settings, database, stack)
    later = await stack.enter_async_context(AsyncExitStack())
    once = OnceUsersExist(database, lambda: _begin(settings, database, later))
    await once.look()
    return Access(once, once.tokens)


async def _begin(settings: Settings, database: Database, stack: AsyncExitStack) -> Access:
    from app.wiring.access import open_access  # noqa: PLC0415

    return await open_access(settings, database, stack)


class OnceUsersExist:
    """The built-in token service and its controller, once there is an account (`serve --local`).

    As long as there is none, every request would ask for one: what was seen counts for FIRST_ACCOUNT_SECONDS. That
    there was one is never forgotten, so that the removal of the last account opens nothing while we run.
    """

    def __init__(self, database: Database, begin: Callable[[], Awaitable[Access]]) -> None:
        self._database = database
        self._begin = begin
        self._access = OPEN
        self._looking = asyncio.Lock()
        # When the question was put to which the answer was no.
        self._looked_at = float("-inf")

    async def look(self) -> Access:
        """What is in force, as of a time after the call."""
        called_at = monotonic()
        async with self._looking:
            if self._access is OPEN and self._looked_at < called_at:
                looked_at = monotonic()
                if await self._database.read(accounts.any_exists):
                    self._access = await self._begun()
                self._looked_at = looked_at
        return self._access

    async def _begun(self) -> Access:
        """Raises Unavailable. Until it works nobody is let in: each request comes here."""
        try:
            return await self._begin()
        except RegistryError:
            raise
        except Exception as error:
            _log.exception("there is an account, but access control cannot begin")
            raise Unavailable("access control cannot begin") from error

    async def tokens(self) -> IssueToken | None:
        """The token service. Another worker may have sent the client here, so what is known is not enough."""
        access = self._access if self._access is not OPEN else await self.look()
        return await access.tokens()

    async def caller(self, presented: Presented) -> Caller:
        if self._access is OPEN and monotonic() >= self._looked_at + FIRST_ACCOUNT_SECONDS:
            await self.look()
        return await self._access.controller.caller(presented)

    def challenge(self, scopes: str, error: str, url: Callable[[str], str]) -> str:
        return self._access.controller.challenge(scopes, error, url)
