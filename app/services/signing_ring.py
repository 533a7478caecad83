"""The keys that the built-in token service signs with: each replica's own, and the public halves of all of them.

A replica announces the public half of its key in the database before it signs anything with it, and every replica
trusts what is announced there. So replicas need no secret in common, any of them takes the tokens of any other, and a
key is changed without a moment in which tokens are refused.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from app.auth.keys import KeySet, KeyUnusableError, TrustedKey, trusted
from app.domain.errors import Unavailable
from app.store import signing_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from app.auth.signing import SigningKey
    from app.store.engine import Database
    from app.store.signing_keys import SigningKey as AnnouncedKey

# How long others trust a key that nobody announces again: much longer than a token lives, or a replica is away.
ANNOUNCED: Final = timedelta(days=7)
_ANNOUNCE_AGAIN_SECONDS: Final = 6 * 3600
# A key that an administrator distrusts is trusted for at most so long.
_FRESH_SECONDS: Final = 10.0
# Tokens with made-up keys make us ask the database no more often than this.
_ASK_AGAIN_SECONDS: Final = 1.0

_REMEDY: Final = "to change it, run on this machine: registry issuer rotate"

_log = logging.getLogger(__name__)


class SigningRing:
    """The keys as this process knows them. `own` is its key, as the file has it now."""

    def __init__(self, database: Database, own: Callable[[], SigningKey]) -> None:
        self._database = database
        self._own = own
        self._announced: dict[str, float] = {}
        self._known: frozenset[tuple[str, str]] = frozenset()
        self._keys = KeySet(())
        # When the last look began; when the last that came to its end did, and whether it was in vain.
        self._asked_at = self._looked_at = float("-inf")
        self._is_unanswered = False
        self._asking = asyncio.Lock()

    def keys(self) -> KeySet:
        """What tokens are verified with: the same object as long as nothing changes."""
        return self._keys

    async def signing_key(self) -> SigningKey:
        """The key to sign with. Every replica trusts it by now, or finds out when it meets it first."""
        key = self._own()
        if key.kid not in self._announced:
            await self._announce(key)
        return key

    async def find_key(self) -> bool:
        """Look whether there are new keys. Returns whether there are. Raises Unavailable.

        Those who ask at the same time share one look, and there is one a second at most: one who asks too early waits,
        since a key that was announced a moment ago is in use already. Nobody waits for more than one look that began
        after they asked, or made-up tokens would keep everybody with a new key waiting.
        """
        before, called_at = self._keys, monotonic()
        async with self._asking:
            if self._keys is before and self._looked_at <= called_at:
                await asyncio.sleep(self._asked_at + _ASK_AGAIN_SECONDS - monotonic())
                await self._refresh()
        if self._keys is before and self._is_unanswered:
            raise Unavailable("the announced signing keys could not be read")
        return self._keys is not before

    async def keep(self) -> None:
        """Stay up to date until cancelled. The keys known stay known while the database is away."""
        while True:
            try:
                async with self._asking:
                    await self._refresh()
                key = self._own()
                if monotonic() - self._announced.get(key.kid, float("-inf")) > _ANNOUNCE_AGAIN_SECONDS:
                    await self._announce(key)
            except Unavailable as error:
                _log.info("the signing keys may be out of date: %s", error)
            except Exception:  # noqa: BLE001  (whatever it is)
                # Without this loop a key that is distrusted would stay in force here, and nobody would hear of it.
                _log.exception("the signing keys may be out of date")
            await asyncio.sleep(_FRESH_SECONDS)

    async def _announce(self, key: SigningKey) -> None:
        if not await self._database.write(
            lambda c: signing_keys.announce(c, key.kid, key.algorithm, key.public_pem, ANNOUNCED)
        ):
            _log.warning("no tokens are issued: the signing key %s was distrusted; %s", key.kid, _REMEDY)
            raise Unavailable("the signing key of this replica was distrusted")
        self._announced = {key.kid: monotonic()}
        async with self._asking:
            await self._refresh()

    async def _refresh(self) -> None:
        began = self._asked_at = monotonic()
        try:
            rows = await self._database.read(signing_keys.trusted)
        except Unavailable:
            self._looked_at, self._is_unanswered = began, True
            raise
        self._looked_at, self._is_unanswered = began, False
        # What is gone, as after the database was put back in time, has to be announced again.
        self._announced = {row.kid: at for row in rows if (at := self._announced.get(row.kid)) is not None}
        known = frozenset((row.kid, row.public_key) for row in rows)
        if known != self._known:
            self._keys, self._known = key_set(rows), known


def key_set(rows: Iterable[AnnouncedKey]) -> KeySet:
    """The announced keys. One that cannot be read is left out, with a line in the log."""
    keys: list[TrustedKey] = []
    for row in rows:
        try:
            keys.append(trusted(load_pem_public_key(row.public_key.encode()), algorithm=row.algorithm))
        except (KeyUnusableError, UnsupportedAlgorithm, ValueError):
            _log.warning("the announced signing key %s is of no use", row.kid)
    return KeySet(keys)
