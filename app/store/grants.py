"""Grants: what an account may do to which repositories, and what everybody may (`account_id` None).

A pattern is the text of an `app.domain.patterns.PathPattern`. The catalog is about no repository: Action.CATALOG goes
with the empty pattern and the empty pattern with it alone; the database refuses anything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import BigInteger, Text

from app.domain.access import Action
from app.store.statements import Statement
from app.store.tables import accounts, grants

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from app.store.engine import Connection, Row

_account = bindparam("account_id", type_=BigInteger)
_pattern = bindparam("pattern", type_=Text)
_actions = bindparam("actions", type_=ARRAY(Text))
_limit = bindparam("limit", type_=BigInteger)

# Written only where it grants anything new. The order of the actions is always the same.
ADD: Final = Statement(
    "grants.add",
    text(
        """
        INSERT INTO grants AS g (account_id, pattern, actions) VALUES (:account_id, :pattern, :actions)
        ON CONFLICT (account_id, pattern) DO UPDATE
        SET actions = ARRAY(SELECT action FROM unnest('{pull,push,delete,catalog}'::text[])
                            WITH ORDINALITY AS every (action, n)
                            WHERE action = ANY (g.actions || excluded.actions) ORDER BY n)
        WHERE NOT g.actions @> excluded.actions
        RETURNING id
        """
    ).bindparams(_account, _pattern, _actions),
)
REMOVE: Final = Statement("grants.remove", select(func.remove_grant(_account, _pattern, _actions)))
_row = (accounts.c.name, grants.c.id, grants.c.pattern, grants.c.actions, grants.c.created_at)
OF_ACCOUNT: Final = Statement(
    "grants.of_account",
    select(*_row)
    .select_from(grants.join(accounts, accounts.c.id == grants.c.account_id))
    .where(grants.c.account_id == _account)
    .order_by(grants.c.pattern),
)
OF_EVERYBODY: Final = Statement(
    "grants.of_everybody",
    select(text("NULL"), *_row[1:]).where(grants.c.account_id.is_(None)).order_by(grants.c.pattern),
)
PAGE: Final = Statement(
    "grants.page",
    select(*_row)
    .select_from(grants.outerjoin(accounts, accounts.c.id == grants.c.account_id))
    .where(grants.c.id > bindparam("after", type_=BigInteger))
    .order_by(grants.c.id)
    .limit(_limit),
)


@dataclass(frozen=True)
class Grant:
    """Actions on the repositories that a pattern matches."""

    pattern: str
    actions: frozenset[Action]


@dataclass(frozen=True)
class GrantRow:
    """A grant as operators see it. `account` is None where everybody has it."""

    account: str | None
    id: int
    pattern: str
    actions: tuple[Action, ...]
    created_at: datetime


async def add(c: Connection, account_id: int | None, pattern: str, actions: Iterable[Action]) -> bool:
    """Grant the actions, beside what that account (None: everybody) is granted on the pattern. False: it was before."""
    wanted = frozenset(actions)
    ordered = [action for action in Action if action in wanted]
    return await c.one(ADD, account_id=account_id, pattern=pattern, actions=ordered) is not None


async def remove(c: Connection, account_id: int | None, pattern: str, actions: Iterable[Action]) -> bool:
    """Take these actions back, whatever others the grant has. False: it had none of them."""
    return await c.value(REMOVE, account_id=account_id, pattern=pattern, actions=list(actions))


async def of(c: Connection, account_id: int | None) -> list[GrantRow]:
    """What is granted to the account alone (None: to everybody), by pattern."""
    if account_id is None:
        return _rows(await c.all(OF_EVERYBODY))
    return _rows(await c.all(OF_ACCOUNT, account_id=account_id))


async def page(c: Connection, after: int, limit: int) -> list[GrantRow]:
    """Up to `limit` grants of anybody and everybody, oldest first, after that id."""
    return _rows(await c.all(PAGE, after=after, limit=limit))


def unpack(patterns: Sequence[str], actions: Sequence[str]) -> tuple[Grant, ...]:
    """Grants from two columns of arrays, as statements about accounts give them: actions are joined by commas."""
    return tuple(
        Grant(pattern, frozenset(map(Action, joined.split(","))))
        for pattern, joined in zip(patterns, actions, strict=True)
    )


def _rows(rows: Sequence[Row]) -> list[GrantRow]:
    return [
        GrantRow(account, number, pattern, tuple(map(Action, actions)), created_at)
        for account, number, pattern, actions, created_at in rows
    ]
