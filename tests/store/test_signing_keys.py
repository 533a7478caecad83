"""Keys that tokens are signed with: trusted for as long as was said last, and never exchanged under one name."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from app.store import signing_keys
from tests.store.people import Person, talk

if TYPE_CHECKING:
    from app.store.engine import Target

HOUR = timedelta(hours=1)


async def announce(p: Person, kid: str, lifetime: timedelta, public_key: str = "PEM") -> bool:
    return await signing_keys.announce(p.c, kid, "ES256", public_key, lifetime)


async def trusted(p: Person) -> dict[str, timedelta]:
    """Key → for how long it is trusted yet, to the hour."""
    now = await p.raw.fetchval("SELECT now()")
    return {
        key.kid: timedelta(hours=round((key.expires_at - now) / HOUR))
        for key in await signing_keys.trusted(p.c)
    }


def test_announce_when_said_again_then_the_longest_time_counts(database: Target) -> None:
    async def scene(p: Person) -> None:
        assert await announce(p, "a", HOUR * 5)
        assert await announce(p, "a", HOUR * 2)
        assert await announce(p, "b", HOUR)
        assert await trusted(p) == {"a": HOUR * 5, "b": HOUR}
        assert await announce(p, "a", HOUR * 9)
        assert await trusted(p) == {"a": HOUR * 9, "b": HOUR}

    talk(database, scene)


def test_retire_when_it_would_be_longer_then_nothing_changes(database: Target) -> None:
    async def scene(p: Person) -> None:
        await announce(p, "a", HOUR * 5)
        await signing_keys.retire(p.c, "a", HOUR * 9)
        await signing_keys.retire(p.c, "unknown", HOUR)
        assert await trusted(p) == {"a": HOUR * 5}
        await signing_keys.retire(p.c, "a", HOUR)
        assert await trusted(p) == {"a": HOUR}

    talk(database, scene)


def test_announce_when_another_key_has_that_id_then_it_is_refused(database: Target) -> None:
    async def scene(p: Person) -> None:
        await announce(p, "a", HOUR)
        assert not await announce(p, "a", HOUR * 9, "another")
        [key] = await signing_keys.trusted(p.c)
        assert (key.algorithm, key.public_key) == ("ES256", "PEM")
        assert await trusted(p) == {"a": HOUR}

    talk(database, scene)


def test_announce_when_the_key_was_distrusted_then_it_never_is_trusted_again(database: Target) -> None:
    async def scene(p: Person) -> None:
        await announce(p, "a", HOUR * 5)
        await announce(p, "b", HOUR * 5)
        assert await signing_keys.distrust(p.c, "a")
        assert not await signing_keys.distrust(p.c, "a")
        assert not await signing_keys.distrust(p.c, "unknown")
        assert await trusted(p) == {"b": HOUR * 5}
        assert not await announce(p, "a", HOUR)
        await p.passes("30 days")
        assert await announce(p, "b", HOUR)
        assert not await announce(p, "a", HOUR)
        assert await trusted(p) == {"b": HOUR}

    talk(database, scene)


def test_trusted_when_keys_have_expired_then_they_are_not_and_the_next_announcement_forgets_them(
    database: Target,
) -> None:
    async def scene(p: Person) -> None:
        await announce(p, "old", HOUR)
        await announce(p, "mine", HOUR)
        await p.passes("2 hours")
        assert await trusted(p) == {}
        assert await p.count("signing_keys") == 2
        assert await announce(p, "mine", HOUR)
        assert await trusted(p) == {"mine": HOUR}
        assert await p.count("signing_keys") == 1

    talk(database, scene)
