"""Controllers that keep nobody out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.domain.access import ANYONE
from app.services.access.controller import Refused, bearer_challenge

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.domain.access import Caller
    from app.services.access.controller import Presented


class Open:
    """Everybody may do everything."""

    async def caller(self, presented: Presented) -> Caller:
        del presented
        return ANYONE

    def challenge(self, scopes: str, error: str, url: Callable[[str], str]) -> str:
        raise AssertionError((scopes, error, url))


@dataclass(frozen=True)
class Silly:
    """Whoever has an Authorization header of any kind may do everything, as Distribution's provider for tests."""

    realm: str
    service: str

    async def caller(self, presented: Presented) -> Caller:
        if not any(presented.authorizations):
            raise Refused("the request has no Authorization header")
        return ANYONE

    def challenge(self, scopes: str, error: str, url: Callable[[str], str]) -> str:
        del url
        return bearer_challenge(self.realm, self.service, scopes, error)
