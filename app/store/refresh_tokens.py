"""Refresh tokens, by their SHA-256. One lives as long as the secret that it was given for, at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, func, select, text
from sqlalchemy.dialects.postgresql import BYTEA, INTERVAL
from sqlalchemy.types import BigInteger, Integer, Text

from app.store.accounts import GRANTED, Granted
from app.store.grants import unpack
from app.store.statements import Statement

if TYPE_CHECKING:
    from datetime import timedelta

    from app.store.engine import Connection

# Expired tokens that one new one clears away.
PRUNED_AT_ONCE: Final = 100
# Of one account: far more than it has machines. Whoever logs in again and again must not fill the database.
TOKENS_MAX: Final = 1000
_TEXT_CHARS_MAX: Final = 255

ADD: Final = Statement(
    "refresh_tokens.add",
    select(
        func.add_refresh_token(
            bindparam("hash", type_=BYTEA),
            bindparam("secret_id", type_=BigInteger),
            bindparam("service", type_=Text),
            bindparam("client_id", type_=Text),
            bindparam("lifetime", type_=INTERVAL),
            bindparam("most", type_=Integer),
            bindparam("prune", type_=Integer),
        )
    ),
)
# Both marks are written once a minute at most, and passed over where somebody is at it.
FIND: Final = Statement(
    "refresh_tokens.find",
    text(
        f"""
        WITH found AS MATERIALIZED (
            SELECT t.hash, t.service, t.client_id, t.secret_id, a.id, a.name, a.kind, a.is_admin
            FROM refresh_tokens AS t
            JOIN accounts AS a ON a.id = t.account_id
            JOIN account_secrets AS s ON s.id = t.secret_id
            WHERE t.hash = :hash AND t.expires_at > now() AND a.disabled_at IS NULL
                AND (s.expires_at IS NULL OR s.expires_at > now())
        ), used_token AS (
            UPDATE refresh_tokens SET last_used_at = now() WHERE hash = (
                SELECT t.hash FROM refresh_tokens AS t WHERE t.hash = (SELECT hash FROM found)
                AND (t.last_used_at IS NULL OR t.last_used_at < now() - interval '1 minute')
                FOR NO KEY UPDATE SKIP LOCKED)
        ), used_secret AS (
            UPDATE account_secrets SET last_used_at = now() WHERE id = (
                SELECT s.id FROM account_secrets AS s WHERE s.id = (SELECT secret_id FROM found)
                AND (s.last_used_at IS NULL OR s.last_used_at < now() - interval '1 minute')
                FOR NO KEY UPDATE SKIP LOCKED)
        )
        SELECT a.id, a.name, a.kind, a.is_admin, g.patterns, g.actions, a.secret_id, a.service, a.client_id
        FROM found AS a CROSS JOIN LATERAL ({GRANTED}) AS g
        """  # noqa: S608
    ).bindparams(bindparam("hash", type_=BYTEA)),
)
REVOKE_ALL: Final = Statement(
    "refresh_tokens.revoke_all",
    select(func.revoke_refresh_tokens(bindparam("account_id", type_=BigInteger))),
)


@dataclass(frozen=True)
class RefreshToken:
    """A token that may be used: whose it is, for which service, and what the client called itself."""

    account: Granted
    secret_id: int
    service: str
    client_id: str


async def add(
    c: Connection, token_hash: bytes, secret_id: int, *, service: str, client_id: str, lifetime: timedelta
) -> bool:
    """Keep a token for whoever has just logged in with that secret. Beyond TOKENS_MAX the least used ones end.

    False: the account was disabled or the secret changed or removed meanwhile, so that there is no token.
    """
    return await c.value(
        ADD,
        hash=token_hash,
        secret_id=secret_id,
        service=_storable(service),
        client_id=_storable(client_id),
        lifetime=lifetime,
        most=TOKENS_MAX,
        prune=PRUNED_AT_ONCE,
    )


async def find(c: Connection, token_hash: bytes) -> RefreshToken | None:
    """The token with its account and what that may do now.

    None: it is unknown or has expired, or its account is disabled, or the secret that it was given for has expired.
    """
    row = await c.one(FIND, hash=token_hash)
    if row is None:
        return None
    grants = unpack(row["patterns"], row["actions"])
    account = Granted(row["id"], row["name"], row["kind"], row["is_admin"], grants)
    return RefreshToken(account, row["secret_id"], row["service"], row["client_id"])


async def revoke_all(c: Connection, account_id: int) -> int:
    """End all of the account's tokens. Returns how many there were."""
    return await c.value(REVOKE_ALL, account_id=account_id)


def _storable(words: str) -> str:
    """What a client wrote, as PostgreSQL takes it."""
    return words[:_TEXT_CHARS_MAX].encode(errors="replace").decode().replace("\x00", "?")
