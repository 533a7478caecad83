"""The accounts that tokens are issued to. Everybody may know their secrets: their registry is gone after the run."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

from app.auth.passwords import hash_password, hash_secret
from app.domain.access import Action
from app.store import accounts, grants

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from app.store.engine import Connection, Database

PERSON: Final = "alice"
ROBOT: Final = "ci"
# Each logs in once in the life of a server, so that nobody's password is remembered.
NEWCOMERS: Final = tuple(f"newcomer-{number}" for number in range(6))
# In the form that robots' secrets have.
_SECRETS: Final = {ROBOT: "rgs_" + "benchmark" * 4 + "1234567"}
_PASSWORD: Final = "correct horse battery staple"  # noqa: S105  (see above)
_PATTERN: Final = "bench/**"
_PULL: Final = (Action.PULL,)
_PULL_AND_PUSH: Final = (Action.PULL, Action.PUSH)


def basic(name: str) -> dict[str, str]:
    """The header with which the account logs in."""
    credentials = f"{name}:{_SECRETS.get(name, _PASSWORD)}"
    return {"Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"}


def allowed(name: str) -> list[str]:
    """What the account is granted, an empty name that of everybody."""
    return [str(action) for action in _granted()[name or None]]


async def add(database: Database) -> None:
    """Add them all, and what they are granted."""
    for name in (PERSON, *NEWCOMERS):
        await _add(database, name, "person", hash_password(_PASSWORD))
    for name, secret in _SECRETS.items():
        await _add(database, name, "robot", hash_secret(secret))
    await _grant(database, None, _granted()[None])


def _granted() -> Mapping[str | None, Sequence[Action]]:
    return {None: _PULL, **dict.fromkeys((PERSON, ROBOT, *NEWCOMERS), _PULL_AND_PUSH)}


async def _add(database: Database, name: str, kind: accounts.Kind, secret_hash: str) -> None:
    async def add(c: Connection) -> int:
        return await accounts.add(c, name, kind, secret_hash=secret_hash)

    await _grant(database, await database.write(add), _granted()[name])


async def _grant(database: Database, account: int | None, actions: Sequence[Action]) -> None:
    await database.write(lambda c: grants.add(c, account, _PATTERN, actions))
