"""The built-in token service: who somebody is, what they may do of what they ask for, and a token that says so."""

from __future__ import annotations

import hashlib
import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import uuid4

from app.auth.compact import TOKEN_CHARS_MAX
from app.domain.access import Action, Subject
from app.domain.errors import NameInvalid, ScopeInvalid, Unavailable
from app.domain.names import parse_name
from app.domain.patterns import PathPattern
from app.domain.scopes import ANY, CATALOG, REGISTRY, REPOSITORY, Scope
from app.services.logins import stranger
from app.store import accounts, refresh_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from app.auth.signing import SigningKey
    from app.services.logins import Logins
    from app.store.accounts import Credentials, Secret
    from app.store.engine import Database
    from app.store.grants import Grant

_IN_REPOSITORY: Final = (Action.PULL, Action.PUSH, Action.DELETE)
# Clocks of replicas differ, and a token is used at once.
_EARLIER_SECONDS: Final = 10
_REFRESH_PREFIX: Final = "rgr_"


@dataclass(frozen=True)
class Ask:
    """What a client asks for. `wants_refresh`: also for a token to come back with instead of the password."""

    scopes: Sequence[Scope]
    client_id: str = ""
    wants_refresh: bool = False


@dataclass(frozen=True)
class Issued:
    """What it gets. `scopes` is what of its wishes was granted."""

    token: str
    scopes: Sequence[Scope]
    subject: Subject
    issued_at: datetime
    expires_in_seconds: int
    refresh_token: str | None = None


@dataclass(frozen=True)
class Terms:
    """What tokens say and how long they hold; `refresh_seconds` 0: no refresh tokens are given."""

    issuer: str
    service: str
    seconds: int
    refresh_seconds: int


class Signer(Protocol):
    """Knows the key that signs."""

    async def signing_key(self) -> SigningKey:
        """The key, which all replicas trust by now."""
        ...


@dataclass(frozen=True)
class _Rights:
    """What somebody may do."""

    grants: Sequence[Grant]
    is_admin: bool = False

    def granted(self, scope: Scope) -> Scope | None:
        """What of the scope is allowed, None if nothing is."""
        if scope.kind == REGISTRY and scope.name == CATALOG:
            allowed = [ANY] if ANY in scope.actions and self._may(Action.CATALOG, "") else []
        elif scope.kind == REPOSITORY and _is_name(scope.name):
            wanted = [a for a in _IN_REPOSITORY if a in scope.actions or ANY in scope.actions]
            allowed = [str(action) for action in wanted if self._may(action, scope.name)]
        else:
            allowed = []
        return Scope(scope.kind, scope.name, tuple(allowed)) if allowed else None

    def _may(self, action: Action, repository: str) -> bool:
        if self.is_admin:
            return True
        return any(
            action in grant.actions
            and (action is Action.CATALOG or _pattern(grant.pattern).matches(repository))
            for grant in self.grants
        )


class IssueToken:
    """Issues tokens."""

    def __init__(self, database: Database, logins: Logins, signer: Signer, terms: Terms) -> None:
        self._database = database
        self._logins = logins
        self._signer = signer
        self._terms = terms
        self.service: Final = terms.service

    async def to_anybody(self, ask: Ask) -> Issued:
        """A token for a client that does not say who it is."""
        grants = await self._database.read(accounts.anonymous)
        return await self._issue(ask, Subject("", "anonymous"), _Rights(grants))

    async def to_account(self, ask: Ask, name: str, password: str, address: str) -> Issued | None:
        """A token for an account. None if there is none of that name and password. Raises TooManyRequests."""
        found = await self._database.read(lambda c: accounts.credentials(c, name))
        usable = _usable(found)
        hashes = [secret.hash for secret in usable]
        matched = self._logins.remembered(hashes, password)
        if matched is None:
            account = stranger(name) if found is None else found.name
            matched = await self._logins.check(address, account, hashes, password)
            if matched is None:
                return None
            # That took a while, in which the account may have been disabled and anything of it changed.
            found = await self._database.read(lambda c: accounts.credentials(c, name))
        secret = usable[matched]
        if found is None or secret.id not in {one.id for one in _usable(found)}:
            return None
        with suppress(Unavailable):  # a login needs nothing to be written, as while the database fails over
            await self._database.write(lambda c: accounts.mark_used(c, secret.id))
        subject = Subject(found.name, found.kind)
        issued = await self._issue(ask, subject, _Rights(found.grants, found.is_admin))
        return replace(issued, refresh_token=await self._refresh_token(found, secret.id, ask))

    async def to_holder(self, ask: Ask, refresh_token: str) -> Issued | None:
        """A token for whoever holds a refresh token. None if it does not hold any more.

        Failures are not counted: nobody guesses 256 bits, and one that has ended is presented again and again.
        """
        found = await self._database.write(lambda c: refresh_tokens.find(c, _hash(refresh_token)))
        if found is None or found.service != self.service:
            return None
        account = found.account
        rights = _Rights(account.grants, account.is_admin)
        return await self._issue(ask, Subject(account.name, account.kind), rights)

    async def _refresh_token(self, account: Credentials, secret_id: int, ask: Ask) -> str | None:
        """A refresh token for a person. A robot's secret serves as one already."""
        if not ask.wants_refresh or account.kind != "person" or not self._terms.refresh_seconds:
            return None
        token = _REFRESH_PREFIX + secrets.token_urlsafe(32)
        is_kept = await self._database.write(
            lambda c: refresh_tokens.add(
                c,
                _hash(token),
                secret_id,
                service=self.service,
                client_id=ask.client_id,
                lifetime=timedelta(seconds=self._terms.refresh_seconds),
            )
        )
        return token if is_kept else None

    async def _issue(self, ask: Ask, subject: Subject, rights: _Rights) -> Issued:
        """The token itself. Raises ScopeInvalid if nobody would accept one that says so much."""
        scopes = [granted for scope in _merged(ask.scopes) if (granted := rights.granted(scope)) is not None]
        now, terms = datetime.now(UTC), self._terms
        issued_at = int(now.timestamp())
        claims: dict[str, Any] = {
            "iss": terms.issuer,
            "sub": subject.name,
            "aud": terms.service,
            "iat": issued_at,
            "nbf": issued_at - _EARLIER_SECONDS,
            "exp": issued_at + terms.seconds,
            "jti": str(uuid4()),
            "auth_type": subject.kind,
            "access": [{"type": s.kind, "name": s.name, "actions": list(s.actions)} for s in scopes],
        }
        token = (await self._signer.signing_key()).sign(claims)
        if len(token) > TOKEN_CHARS_MAX:
            raise ScopeInvalid(
                f"a token for {len(scopes)} such scopes would be too long to be accepted; ask for fewer"
            )
        return Issued(token, scopes, subject, now, terms.seconds)


def _usable(account: Credentials | None) -> Sequence[Secret]:
    """What may be logged in with."""
    return () if account is None or account.is_disabled else account.secrets


def _is_name(text: str) -> bool:
    """Whether a repository may be called so. A token for `team/*` might mean more to others than it says."""
    try:
        parse_name(text)
    except NameInvalid:
        return False
    return True


@lru_cache(maxsize=4096)
def _pattern(text: str) -> PathPattern:
    return PathPattern.parse(text)


def _merged(scopes: Iterable[Scope]) -> list[Scope]:
    """Each thing once, with all that was asked for it."""
    wanted: dict[tuple[str, str], dict[str, None]] = {}
    for scope in scopes:
        wanted.setdefault((scope.kind, scope.name), {}).update(dict.fromkeys(scope.actions))
    return [Scope(kind, name, tuple(actions)) for (kind, name), actions in wanted.items()]


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
