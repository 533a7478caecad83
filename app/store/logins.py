"""Failed logins are slowed down, by address and by account.

The address: after ADDRESS_FREE failures within WINDOW, with whatever account names, it waits. One second first, twice
as long after each further failure, WAIT_SECONDS_MAX at most, from the last failure on.

The account: after ACCOUNT_FREE failures from all addresses together, every address waits in the same way that has not
logged in to this account within KNOWN. One address adds no more than ADDRESS_FREE to that sum, however long it goes
on, so a single one never locks an account for others.

A failure counts until WINDOW has passed without another one of the same address and account. Who waits is not even
listened to, so waiting addresses add nothing. All by the database's clock.
"""

from __future__ import annotations

from datetime import timedelta
from math import ceil
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, func, select, text
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.types import Integer, Text

from app.store.statements import Statement

if TYPE_CHECKING:
    from app.store.engine import Connection

ADDRESS_FREE: Final = 10
ACCOUNT_FREE: Final = 100
WINDOW: Final = timedelta(minutes=15)
WAIT_SECONDS_MAX: Final = 300
# For how long after a success an address is not kept waiting for what others do to the account.
KNOWN: Final = timedelta(days=30)
# For how long failures can be looked at.
FAILURES_KEPT: Final = timedelta(days=1)
# So that not every login writes.
SUCCESS_PAUSE: Final = timedelta(hours=1)
PRUNED_AT_ONCE: Final = 100
ACCOUNT_CHARS_MAX: Final = 128
_ADDRESS_CHARS_MAX: Final = 64
_DOUBLINGS_MAX: Final = 16

_who = (bindparam("address", type_=Text), bindparam("account", type_=Text))
_keep = bindparam("keep", type_=INTERVAL)
_prune = bindparam("prune", type_=Integer)

STATE: Final = Statement(
    "logins.state",
    text(
        """
        SELECT a.failures, extract(epoch FROM now() - a.last)::float8, b.failures,
            extract(epoch FROM now() - b.last)::float8,
            EXISTS (SELECT FROM login_failures
                    WHERE address = :address AND account = :account AND succeeded_at > now() - :known)
        FROM (SELECT coalesce(sum(failures), 0)::bigint AS failures, max(last_failed_at) AS last FROM login_failures
              WHERE address = :address AND failures > 0 AND last_failed_at > now() - :window) AS a,
             (SELECT coalesce(sum(least(failures, :cap)), 0)::bigint AS failures, max(last_failed_at) AS last
              FROM login_failures
              WHERE account = :account AND failures > 0 AND last_failed_at > now() - :window) AS b
        """
    ).bindparams(
        *_who,
        bindparam("known", type_=INTERVAL),
        bindparam("window", type_=INTERVAL),
        bindparam("cap", type_=Integer),
    ),
)
FAILED: Final = Statement(
    "logins.failed",
    select(func.login_failed(*_who, bindparam("window", type_=INTERVAL), _keep, _prune)),
)
SUCCEEDED: Final = Statement(
    "logins.succeeded",
    select(func.login_succeeded(*_who, bindparam("pause", type_=INTERVAL), _keep, _prune)),
)


async def wait(c: Connection, address: str, account: str) -> int:
    """For how many seconds this address must not try to log in to this account. 0: go ahead."""
    row = await c.one(STATE, **_pair(address, account), known=KNOWN, window=WINDOW, cap=ADDRESS_FREE)
    assert row is not None
    of_address, address_age, of_account, account_age, is_known = row
    waits = [_left(of_address - ADDRESS_FREE, address_age)]
    if not is_known:
        waits.append(_left(of_account - ACCOUNT_FREE, account_age))
    return max(waits)


async def failed(c: Connection, address: str, account: str) -> None:
    """Count a failure."""
    pair = _pair(address, account)
    await c.one(FAILED, **pair, window=WINDOW, keep=FAILURES_KEPT, prune=PRUNED_AT_ONCE)


async def succeeded(c: Connection, address: str, account: str) -> None:
    """Note a success, which takes back the failures of this account from this address. Most of these write nothing."""
    pair = _pair(address, account)
    await c.one(SUCCEEDED, **pair, pause=SUCCESS_PAUSE, keep=KNOWN, prune=PRUNED_AT_ONCE)


def _left(over: int, age: float | None) -> int:
    """What is left of the wait after so many failures too many, the last of them `age` seconds ago."""
    if over < 0 or age is None:
        return 0
    whole = min(WAIT_SECONDS_MAX, 2 ** min(over, _DOUBLINGS_MAX))
    return max(0, ceil(whole - max(0.0, age)))


def _pair(address: str, account: str) -> dict[str, str]:
    """Both as PostgreSQL takes them, whatever the client wrote."""
    return {
        "address": _storable(address, _ADDRESS_CHARS_MAX),
        "account": _storable(account, ACCOUNT_CHARS_MAX),
    }


def _storable(words: str, chars_max: int) -> str:
    return words[:chars_max].encode(errors="replace").decode().replace("\x00", "?")
