"""Access control, built from `auth`. The files that it names are looked at before anything is served."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.auth.htpasswd import HtpasswdError, ensure_htpasswd, read_htpasswd
from app.auth.jwts import Verifier
from app.auth.keys import ALGORITHMS, KeyFileError, read_keys
from app.auth.passwords import Verifications
from app.auth.signing import ensure_key, read_signing_key
from app.domain.errors import Unavailable
from app.runtime.threads import Threads
from app.runtime.watched import Watched
from app.services.access.basic import Basic
from app.services.access.bearer import Bearer, Realm
from app.services.access.unguarded import Silly
from app.services.issue_token import IssueToken, Terms
from app.services.logins import Logins
from app.services.signing_ring import SigningRing
from app.wiring.admission import OPEN, Access

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from app.config import Settings
    from app.services.access.controller import Controller
    from app.store.engine import Database

_ISSUER_PATH: Final = "/auth/token"
# A slow hash takes 64 MiB, and more than one processor.
_PASSWORD_THREADS: Final = 2


class AccessError(Exception):
    """A file that access control needs is no good. The text is a sentence for the operator."""


def prepare(settings: Settings) -> None:
    """Make what is missing and read what is there, once, before the workers start. Raises AccessError."""
    auth = settings.auth
    try:
        if auth.token is not None:
            read_keys(auth.token.rootcertbundle, auth.token.jwks)
        elif auth.htpasswd is not None:
            ensure_htpasswd(Path(auth.htpasswd.path))
            read_htpasswd(Path(auth.htpasswd.path))
        elif auth.issuer is not None:
            ensure_key(Path(auth.issuer.key), auth.issuer.algorithm)
            read_signing_key(Path(auth.issuer.key))
    except (KeyFileError, HtpasswdError) as error:
        raise AccessError(f"auth.{auth.provider}: {error}") from error


async def open_access(settings: Settings, database: Database, stack: AsyncExitStack) -> Access:
    """Build what `auth` says; `stack` closes it. Raises KeyFileError, HtpasswdError."""
    auth = settings.auth
    if auth.token is not None:
        return Access(_outside_tokens(settings))
    if auth.htpasswd is not None:
        return Access(_htpasswd(settings, database, stack))
    if auth.issuer is not None:
        return await _issuer(settings, database, stack)
    if auth.silly is not None:
        return Access(Silly(auth.silly.realm, auth.silly.service))
    return OPEN


def _outside_tokens(settings: Settings) -> Controller:
    token = settings.auth.token
    assert token is not None
    files = [Path(name) for name in (token.rootcertbundle, token.jwks) if name]
    keys = Watched(files, partial(read_keys, token.rootcertbundle, token.jwks), told=(KeyFileError,))
    verifier = Verifier(
        keys.current,
        issuer=token.issuer,
        service=token.service,
        algorithms=token.signingalgorithms or ALGORITHMS,
    )
    realm = (
        Realm(token.service, path=token.autoredirectpath)
        if token.autoredirect
        else Realm(token.service, token.realm)
    )
    return Bearer(verifier, realm)


def _htpasswd(settings: Settings, database: Database, stack: AsyncExitStack) -> Controller:
    htpasswd = settings.auth.htpasswd
    assert htpasswd is not None
    path = Path(htpasswd.path)
    users = Watched([path], partial(read_htpasswd, path), told=(HtpasswdError,))
    return Basic(htpasswd.realm, users.current, _logins(database, stack))


async def _issuer(settings: Settings, database: Database, stack: AsyncExitStack) -> Access:
    issuer = settings.auth.issuer
    assert issuer is not None
    path = Path(issuer.key)
    ring = SigningRing(
        database, Watched([path], partial(read_signing_key, path), told=(KeyFileError,)).current
    )
    # So that the key is known before its first token. Who may not sign, as its key is distrusted, serves all the same.
    with suppress(Unavailable):
        await ring.signing_key()
    keeping = asyncio.ensure_future(ring.keep())
    stack.callback(keeping.cancel)
    terms = Terms(
        issuer.issuer, issuer.service, int(issuer.expiresin.seconds), int(issuer.refreshexpiresin.seconds)
    )
    tokens = IssueToken(database, _logins(database, stack), ring, terms)
    verifier = Verifier(ring.keys, issuer=issuer.issuer, service=issuer.service, algorithms=ALGORITHMS)
    realm = Realm(issuer.service, issuer.realm, settings.http.prefix.rstrip("/") + _ISSUER_PATH)

    async def service() -> IssueToken:
        return tokens

    return Access(Bearer(verifier, realm, ring.find_key), service)


def _logins(database: Database, stack: AsyncExitStack) -> Logins:
    threads = Threads("passwords", _PASSWORD_THREADS)
    stack.push_async_callback(threads.close)
    return Logins(database, Verifications(threads))
