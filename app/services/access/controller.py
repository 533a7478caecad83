"""What an access controller is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from app.domain.limits import AUTHORIZATION_CHARS_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.domain.access import Caller


class Refused(Exception):
    """The request brings no credentials, or none that are accepted. The text is for the administrator's log.

    `error` is the code of RFC 6750 §3.1 for the client, empty if there were no credentials to speak of.
    """

    def __init__(self, reason: str, *, error: str = "") -> None:
        super().__init__(reason)
        self.error = error


class Presented(NamedTuple):
    """What a request brings: the values of its Authorization headers, and how to tell where it comes from."""

    authorizations: tuple[str, ...]
    bucket_of: Callable[[Mapping[str, Any]], str]
    request: Mapping[str, Any]

    def address(self) -> str:
        """What its failed logins are counted under."""
        return self.bucket_of(self.request)

    def credentials(self, wanted: str) -> str:
        """What follows the scheme `wanted` (RFC 9110 §11.4), spelt in any case. Raises Refused."""
        if not self.authorizations:
            raise Refused("the request has no credentials")
        header, *others = self.authorizations
        if others:
            # Which of them a proxy in front of us has looked at, nobody knows.
            raise Refused("the request has several Authorization headers")
        if len(header) > AUTHORIZATION_CHARS_MAX:
            raise Refused(f"the Authorization header has {len(header)} characters", error="invalid_token")
        scheme, _, credentials = header.partition(" ")
        credentials = credentials.strip(" ")
        if not credentials or scheme.lower() != wanted:
            raise Refused(f"the request has no {wanted} credentials")
        return credentials


class Controller(Protocol):
    """Says who sends a request, and what a client without accepted credentials should do."""

    async def caller(self, presented: Presented) -> Caller:
        """Whom the request is from. Raises Refused, TooManyRequests, Unavailable."""
        ...

    def challenge(self, scopes: str, error: str, url: Callable[[str], str]) -> str:
        """The value of WWW-Authenticate. `scopes` and `error` may be empty; `url` makes a path of ours absolute."""
        ...


def quoted(text: str) -> str:
    """A quoted-string (RFC 9110 §5.6.4)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def bearer_challenge(realm: str, service: str, scopes: str, error: str) -> str:
    """A challenge in the order in which Distribution gives its parameters, which some clients' parsers expect."""
    parameters = {"realm": realm, "service": service, "scope": scopes, "error": error}
    given = [
        f"{key}={quoted(value)}" for key, value in parameters.items() if value or key in {"realm", "service"}
    ]
    return f"Bearer {','.join(given)}"
