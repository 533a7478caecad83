"""Accounts: people and robots, what they log in with, and what they are granted.

Secrets come here as hashes and leave as hashes. What a login needs is one statement, `credentials`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import bindparam, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.types import BigInteger, Boolean, Integer, Text

from app.store.grants import Grant, unpack
from app.store.statements import Statement
from app.store.tables import account_secrets, accounts

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from app.store.engine import Connection, Row

Kind = Literal["person", "robot"]

# Each login compares with all of a robot's secrets.
SECRETS_MAX: Final = 20

_name = bindparam("name", type_=Text)
_account = bindparam("account_id", type_=BigInteger)
_secret = bindparam("secret_id", type_=BigInteger)
_hash = bindparam("hash", type_=Text)
_label = bindparam("label", type_=Text)
_lifetime = bindparam("lifetime", type_=INTERVAL)
_kind = bindparam("kind", type_=Text)

ADD: Final = Statement(
    "accounts.add",
    select(
        func.add_account(
            _name,
            _kind,
            bindparam("is_admin", type_=Boolean),
            bindparam("description", type_=Text),
            _hash,
            _label,
            _lifetime,
        )
    ),
)
_last_used = (
    select(func.max(account_secrets.c.last_used_at))
    .where(account_secrets.c.account_id == accounts.c.id)
    .scalar_subquery()
)
_ACCOUNT: Final = (
    accounts.c.id,
    accounts.c.name,
    accounts.c.kind,
    accounts.c.is_admin,
    accounts.c.disabled_at,
    accounts.c.created_at,
    accounts.c.description,
    _last_used,
)
FIND: Final = Statement("accounts.find", select(*_ACCOUNT).where(accounts.c.name == _name))
PAGE: Final = Statement(
    "accounts.page",
    select(*_ACCOUNT)
    .where(accounts.c.kind == _kind, accounts.c.name > bindparam("last", type_=Text))
    .order_by(accounts.c.name)
    .limit(bindparam("limit", type_=BigInteger)),
)
SET_DISABLED: Final = Statement(
    "accounts.set_disabled",
    select(func.set_account_disabled(_name, bindparam("is_disabled", type_=Boolean))),
)
SET_ADMIN: Final = Statement(
    "accounts.set_admin",
    update(accounts)
    .where(accounts.c.name == _name)
    .values(is_admin=bindparam("new_is_admin", type_=Boolean))
    .returning(accounts.c.id),
)
REMOVE: Final = Statement(
    "accounts.remove", delete(accounts).where(accounts.c.name == _name).returning(accounts.c.id)
)
# By its key, as the planner would read the table itself for a bare EXISTS.
ANY_EXISTS: Final = Statement(
    "accounts.any_exists", text("SELECT (SELECT id FROM accounts ORDER BY id LIMIT 1) IS NOT NULL")
)
SET_PASSWORD: Final = Statement("accounts.set_password", select(func.set_account_password(_account, _hash)))
ADD_SECRET: Final = Statement(
    "accounts.add_secret",
    select(func.add_account_secret(_account, _hash, _label, _lifetime, bindparam("most", type_=Integer))),
)
REMOVE_SECRET: Final = Statement(
    "accounts.remove_secret", select(func.remove_account_secret(_account, _secret))
)
SECRETS: Final = Statement(
    "accounts.secrets",
    select(
        account_secrets.c.id,
        account_secrets.c.label,
        account_secrets.c.created_at,
        account_secrets.c.expires_at,
        account_secrets.c.last_used_at,
    )
    .where(account_secrets.c.account_id == _account)
    .order_by(account_secrets.c.id),
)
# The row is passed over if somebody is at it, who writes the same: no login waits for another one.
MARK_USED: Final = Statement(
    "accounts.mark_used",
    text(
        """
        UPDATE account_secrets SET last_used_at = now() WHERE id = (
            SELECT id FROM account_secrets
            WHERE id = :secret_id AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
            FOR NO KEY UPDATE SKIP LOCKED)
        """
    ).bindparams(_secret),
)

# What account `a` is granted, and everybody is: two arrays, as `grants.unpack` takes them.
GRANTED: Final = """
    SELECT coalesce(array_agg(pattern), '{}') AS patterns,
        coalesce(array_agg(array_to_string(actions, ',')), '{}') AS actions
    FROM (SELECT pattern, actions FROM grants WHERE account_id = a.id
          UNION ALL SELECT pattern, actions FROM grants WHERE account_id IS NULL) AS every
"""
CREDENTIALS: Final = Statement(
    "accounts.credentials",
    text(
        f"""
        SELECT a.id, a.name, a.kind, a.is_admin, a.disabled_at IS NOT NULL AS is_disabled,
            s.ids, s.hashes, s.expiries, g.patterns, g.actions
        FROM accounts AS a
        CROSS JOIN LATERAL (
            SELECT array_agg(id) AS ids, array_agg(hash) AS hashes, array_agg(expires_at) AS expiries
            FROM account_secrets WHERE account_id = a.id AND (expires_at IS NULL OR expires_at > now())) AS s
        CROSS JOIN LATERAL ({GRANTED}) AS g
        WHERE a.name = :name
        """  # noqa: S608
    ).bindparams(_name),
)
ANONYMOUS: Final = Statement(
    "accounts.anonymous",
    text("SELECT pattern, array_to_string(actions, ',') AS actions FROM grants WHERE account_id IS NULL"),
)


class AccountExists(ValueError):
    """The name is taken."""


class TooManySecrets(ValueError):
    """The robot has SECRETS_MAX secrets that have not expired."""


@dataclass(frozen=True)
class Account:
    """An account as operators see it. `last_used_at`: when any of its secrets was, to the minute."""

    id: int
    name: str
    kind: Kind
    is_admin: bool
    disabled_at: datetime | None
    created_at: datetime
    description: str
    last_used_at: datetime | None


@dataclass(frozen=True)
class SecretRow:
    """A password or secret as operators see it: all but its hash."""

    id: int
    label: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True)
class Secret:
    """What a login is compared with."""

    id: int
    hash: str
    expires_at: datetime | None


@dataclass(frozen=True)
class Granted:
    """Whom tokens are issued to, and what for: grants of the account and of everybody. Admins need none."""

    id: int
    name: str
    kind: Kind
    is_admin: bool
    grants: tuple[Grant, ...]


@dataclass(frozen=True)
class Credentials(Granted):
    """What a login needs: beside the above, the secrets that have not expired."""

    is_disabled: bool
    secrets: tuple[Secret, ...]


async def add(
    c: Connection,
    name: str,
    kind: Kind,
    *,
    is_admin: bool = False,
    description: str = "",
    secret_hash: str | None = None,
    label: str = "",
    lifetime: timedelta | None = None,
) -> int:
    """A new account, with what it logs in with if that is given. Raises AccountExists."""
    account_id: int | None = await c.value(
        ADD,
        name=name,
        kind=kind,
        is_admin=is_admin,
        description=description,
        hash=secret_hash,
        label=label,
        lifetime=lifetime,
    )
    if account_id is None:
        raise AccountExists(f"there is an account {name} already")
    return account_id


async def find(c: Connection, name: str) -> Account | None:
    """The account of that name."""
    row = await c.one(FIND, name=name)
    return None if row is None else Account(*row)


async def page(c: Connection, kind: Kind, last: str, limit: int) -> list[Account]:
    """Up to `limit` accounts by name, after `last`."""
    return [Account(*row) for row in await c.all(PAGE, kind=kind, last=last, limit=limit)]


async def set_disabled(c: Connection, name: str, *, is_disabled: bool) -> bool:
    """Whether it may log in. To disable it also deletes its refresh tokens. False: there is no such account."""
    return await c.value(SET_DISABLED, name=name, is_disabled=is_disabled)


async def set_admin(c: Connection, name: str, *, is_admin: bool) -> bool:
    """Whether it may do everything. False: there is no such account."""
    return await c.one(SET_ADMIN, name=name, new_is_admin=is_admin) is not None


async def remove(c: Connection, name: str) -> bool:
    """Remove the account with its secrets, grants and refresh tokens. False: there is none."""
    return await c.one(REMOVE, name=name) is not None


async def any_exists(c: Connection) -> bool:
    """Whether there is any account."""
    return await c.value(ANY_EXISTS)


async def set_password(c: Connection, account_id: int, secret_hash: str) -> bool:
    """The person's new password, which ends all refresh tokens. False: there is no such person."""
    return await c.value(SET_PASSWORD, account_id=account_id, hash=secret_hash)


async def add_secret(
    c: Connection, account_id: int, secret_hash: str, *, label: str = "", lifetime: timedelta | None = None
) -> int | None:
    """One more secret of a robot, valid for `lifetime` (None: for ever). Raises TooManySecrets.

    Returns its id; None: there is no such robot.
    """
    secret_id: int | None = await c.value(
        ADD_SECRET, account_id=account_id, hash=secret_hash, label=label, lifetime=lifetime, most=SECRETS_MAX
    )
    if secret_id == 0:
        raise TooManySecrets(f"a robot has at most {SECRETS_MAX} secrets; remove one that nobody needs")
    return secret_id


async def remove_secret(c: Connection, account_id: int, secret_id: int) -> bool:
    """Remove a robot's secret, which ends the refresh tokens that it was used for. False: it has no such secret."""
    return await c.value(REMOVE_SECRET, account_id=account_id, secret_id=secret_id)


async def secrets(c: Connection, account_id: int) -> list[SecretRow]:
    """The account's secrets, those that have expired among them."""
    return [SecretRow(*row) for row in await c.all(SECRETS, account_id=account_id)]


async def mark_used(c: Connection, secret_id: int) -> None:
    """Note that somebody logged in with that secret. Written once a minute at most."""
    await c.one(MARK_USED, secret_id=secret_id)


async def credentials(c: Connection, name: str) -> Credentials | None:
    """What a login needs. The name may be anything that a client sent."""
    if not _may_be_asked(name):
        return None
    row = await c.one(CREDENTIALS, name=name)
    if row is None:
        return None
    found = zip(*(row[column] or () for column in ("ids", "hashes", "expiries")), strict=True)
    return Credentials(
        **_granted(row), is_disabled=row["is_disabled"], secrets=tuple(Secret(*one) for one in found)
    )


async def anonymous(c: Connection) -> tuple[Grant, ...]:
    """What everybody may do."""
    rows = await c.all(ANONYMOUS)
    return unpack([row[0] for row in rows], [row[1] for row in rows])


def _granted(row: Row) -> dict[str, Any]:
    """The parts of a Granted."""
    parts = {key: row[key] for key in ("id", "name", "kind", "is_admin")}
    return {**parts, "grants": unpack(row["patterns"], row["actions"])}


def _may_be_asked(name: str) -> bool:
    """Whether PostgreSQL takes the text. No account's name is other than this."""
    return name.isascii() and name.isprintable()
