"""Bearer tokens: of a token service outside, or of our own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.auth.jwts import TokenRefused
from app.services.access.controller import Refused, bearer_challenge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.auth.jwts import Verifier
    from app.domain.access import Caller
    from app.services.access.controller import Presented


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
