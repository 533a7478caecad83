"""Bearer tokens: of a token service outside, or of our own."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Final

from app.auth.jwts import TokenRefused
from app.domain.access import ANYONE
from app.services.access.controller import Refused, bearer_challenge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.auth.jwts import Verifier
    from app.domain.access import Caller
    from app.services.access.controller import Controller, Presented

# As long as there are no accounts, every request would ask for them.
_LOOK_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Realm:
    """Where clients get tokens: a URL, or a path at whatever address they reach us by."""

    service: str
    url: str = ""
    path: str = ""

    def challenge(self, scopes: str, error: str, url: Callable[[str], str]) -> str:
        """See Controller."""
        return bearer_challenge(self.url or url(self.path), self.service, scopes, error)


class Bearer:
    """Takes tokens that the verifier accepts.

    `find_key` is asked once about a token whose key is not known, and says whether asking again makes sense.
    """

    def __init__(
        self, verifier: Verifier, realm: Realm, find_key: Callable[[], Awaitable[bool]] | None = None
    ) -> None:
        self._verifier = verifier
        self._find_key = find_key
        self.challenge = realm.challenge

    async def caller(self, presented: Presented) -> Caller:
        token = presented.credentials("bearer")
        try:
            try:
                return self._verifier.verify(token).grants
            except TokenRefused as error:
                if error.kind != "unknown_key" or self._find_key is None or not await self._find_key():
                    raise
                return self._verifier.verify(token).grants
        except TokenRefused as error:
            raise Refused(error.reason, error="invalid_token") from error


class OnceUsersExist:
    """Another controller, from the second on in which there is an account; until then everybody may do everything.

    That there is one is never forgotten, so that the removal of the last account opens nothing while we run.
    """

    def __init__(
        self, controller: Controller, any_account: Callable[[], Awaitable[bool]], *, is_closed: bool
    ) -> None:
        self._controller = controller
        self._any_account = any_account
        self._is_closed = is_closed
        self._look_at = monotonic() + _LOOK_SECONDS
        self.challenge = controller.challenge

    @classmethod
    async def watching(
        cls, controller: Controller, any_account: Callable[[], Awaitable[bool]]
    ) -> OnceUsersExist:
        """One that knows before its first request whether there are accounts."""
        return cls(controller, any_account, is_closed=await any_account())

    async def caller(self, presented: Presented) -> Caller:
        if not self._is_closed and monotonic() >= self._look_at:
            self._look_at = monotonic() + _LOOK_SECONDS
            self._is_closed = await self._any_account()
        return await self._controller.caller(presented) if self._is_closed else ANYONE
