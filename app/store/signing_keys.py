"""The public halves of the keys that replicas sign tokens with, as each announces its own to all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.types import Text

from app.store.statements import Statement
from app.store.tables import signing_keys

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from app.store.engine import Connection

_kid = bindparam("id", type_=Text)
_lifetime = bindparam("lifetime", type_=INTERVAL)

ANNOUNCE: Final = Statement(
    "signing_keys.announce",
    select(
        func.announce_signing_key(
            _kid, bindparam("algorithm", type_=Text), bindparam("public_key", type_=Text), _lifetime
        )
    ),
)
RETIRE: Final = Statement(
    "signing_keys.retire",
    update(signing_keys)
    .where(signing_keys.c.kid == _kid, signing_keys.c.expires_at > func.now() + _lifetime)
    .values(expires_at=func.now() + _lifetime),
)
DISTRUST: Final = Statement(
    "signing_keys.distrust",
    update(signing_keys)
    .where(signing_keys.c.kid == _kid, signing_keys.c.distrusted_at.is_(None))
    .values(expires_at=func.least(signing_keys.c.expires_at, func.now()), distrusted_at=func.now())
    .returning(signing_keys.c.kid),
)
TRUSTED: Final = Statement(
    "signing_keys.trusted",
    select(signing_keys.c.kid, signing_keys.c.algorithm, signing_keys.c.public_key, signing_keys.c.expires_at)
    .where(signing_keys.c.expires_at > func.now())
    .order_by(signing_keys.c.kid),
)


@dataclass(frozen=True)
class SigningKey:
    """A key that tokens may be signed with. `public_key` is PEM."""

    kid: str
    algorithm: str
    public_key: str
    expires_at: datetime


async def announce(c: Connection, kid: str, algorithm: str, public_key: str, lifetime: timedelta) -> bool:
    """Have all replicas trust the key for so long from now, or longer if that was said before.

    Keys that have expired are forgotten. False: it was distrusted, or another key goes by that id; it is not trusted.
    """
    return await c.value(ANNOUNCE, id=kid, algorithm=algorithm, public_key=public_key, lifetime=lifetime)


async def retire(c: Connection, kid: str, lifetime: timedelta) -> None:
    """Have the key trusted for so long from now and no longer, unless it ends before."""
    await c.one(RETIRE, id=kid, lifetime=lifetime)


async def distrust(c: Connection, kid: str) -> bool:
    """Have the key trusted no more, for good: whoever announces it is refused. False: it is unknown, or was before."""
    return await c.one(DISTRUST, id=kid) is not None


async def trusted(c: Connection) -> list[SigningKey]:
    """The keys that have not expired."""
    return [SigningKey(*row) for row in await c.all(TRUSTED)]
