"""`htpasswd`: a name and a password with each request."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from app.domain.access import Anyone, Subject
from app.services.access.controller import Refused, quoted
from app.services.logins import stranger

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.auth.htpasswd import Htpasswd as Users
    from app.domain.access import Caller
    from app.services.access.controller import Presented
    from app.services.logins import Logins


class Login(NamedTuple):
    """What Basic credentials hold (RFC 7617)."""

    name: str
    password: str


def parse_basic(credentials: str) -> Login:
    """The name and password of Basic credentials. Raises Refused."""
    try:
        text = base64.b64decode(credentials, validate=True).decode()
    except (binascii.Error, ValueError):
        raise Refused("the Basic credentials are malformed") from None
    name, colon, password = text.partition(":")
    if not colon:
        raise Refused("the Basic credentials are malformed")
    return Login(name, password)


@dataclass(frozen=True)
class Basic:
    """Users of a file, who may do everything."""

    realm: str
    users: Callable[[], Users]
    logins: Logins

    async def caller(self, presented: Presented) -> Caller:
        login = parse_basic(presented.credentials("basic"))
        users = self.users()
        account = login.name if login.name in users else stranger(login.name)
        hashes = users.hashes_of(login.name)
        if await self.logins.check(presented.address(), account, hashes, login.password) is None:
            raise Refused("the name or the password is wrong")
        return Anyone(Subject(login.name, "htpasswd"))

    def challenge(self, scopes: str, error: str, url: Callable[[str], str]) -> str:
        del scopes, error, url
        return f"Basic realm={quoted(self.realm)}"
