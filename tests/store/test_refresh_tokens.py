"""Refresh tokens: who may use one, and what ends it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from app.domain.access import Action
from app.store import accounts, grants, refresh_tokens
from app.store.grants import Grant
from tests.store.people import SECRET, Person, talk
from tests.store.scenes import Actor, play

if TYPE_CHECKING:
    from app.store.engine import Target
    from tests.store.scenes import Stage

DAY = timedelta(days=1)
HASH = b"h" * 32


async def add(p: Person, secret: int, content: bytes = HASH, lifetime: timedelta = DAY) -> bool:
    return await refresh_tokens.add(
        p.c, content, secret, service="registry", client_id="docker\x00\udc80" + "x" * 999, lifetime=lifetime
    )


def test_find_when_the_token_is_good_then_the_account_comes_with_what_it_may_do_now(database: Target) -> None:
    async def scene(p: Person) -> None:
        alice = await p.person()
        secret = await p.secret_of("alice")
        assert await add(p, secret)
        await grants.add(p.c, alice, "a", {Action.PULL})
        found = await refresh_tokens.find(p.c, HASH)
        assert found is not None
        assert (found.account.id, found.account.name, found.account.kind) == (alice, "alice", "person")
        assert found.account.grants == (Grant("a", frozenset({Action.PULL})),)
        assert (found.secret_id, found.service, found.client_id[:9]) == (secret, "registry", "docker??x")
        assert await refresh_tokens.find(p.c, b"x" * 32) is None
        assert (await accounts.find(p.c, "alice")).last_used_at is not None  # type: ignore[union-attr]

    talk(database, scene)


def test_find_when_called_often_then_it_writes_once_a_minute(database: Target) -> None:
    async def scene(p: Person) -> None:
        await p.person()
        await add(p, await p.secret_of("alice"))
        await refresh_tokens.find(p.c, HASH)
        written = await p.versions("refresh_tokens"), await p.versions("account_secrets")
        assert await p.raw.fetchval("SELECT last_used_at FROM refresh_tokens") is not None
        assert await refresh_tokens.find(p.c, HASH) is not None
        assert (await p.versions("refresh_tokens"), await p.versions("account_secrets")) == written
        await p.passes("61 seconds")
        written_then = await p.versions("refresh_tokens")
        await refresh_tokens.find(p.c, HASH)
        assert await p.versions("refresh_tokens") != written_then

    talk(database, scene)


def test_find_when_the_token_or_its_secret_has_expired_then_there_is_none(database: Target) -> None:
    async def scene(p: Person) -> None:
        ci = await p.robot()
        short = await accounts.add_secret(p.c, ci, SECRET, lifetime=DAY)
        assert short is not None
        await add(p, await p.secret_of("ci"), b"1" * 32, DAY)
        await add(p, short, b"2" * 32, DAY * 9)
        await p.passes("25 hours")
        assert await refresh_tokens.find(p.c, b"1" * 32) is None
        assert await refresh_tokens.find(p.c, b"2" * 32) is None
        assert not await add(p, short, b"3" * 32)
        # The first has expired itself, and goes when another one comes.
        assert await add(p, await p.secret_of("ci"), b"4" * 32)
        rows = await p.raw.fetch("SELECT hash FROM refresh_tokens ORDER BY hash")
        assert [row[0][:1] for row in rows] == [b"2", b"4"]

    talk(database, scene)


def test_add_when_an_account_has_as_many_as_it_may_then_the_one_used_longest_ago_goes(
    database: Target,
) -> None:
    async def scene(p: Person) -> None:
        await p.person()
        await p.robot()
        await add(p, await p.secret_of("ci"))
        secret = await p.secret_of("alice")
        for content in (b"used", b"idle"):
            await add(p, secret, content * 8)
        await p.raw.execute(
            "INSERT INTO refresh_tokens (hash, account_id, secret_id, service, client_id, expires_at)"
            " SELECT sha256(n::text::bytea), account_id, secret_id, service, client_id, expires_at"
            " FROM refresh_tokens, generate_series(1, $1) n WHERE hash = $2",
            *(refresh_tokens.TOKENS_MAX - 2, b"idle" * 8),
        )
        await p.raw.execute("UPDATE refresh_tokens SET created_at = created_at - interval '1 hour'")
        await p.raw.execute(
            "UPDATE refresh_tokens SET created_at = created_at - interval '1 day' WHERE hash IN ($1, $2)",
            *(b"used" * 8, b"idle" * 8),
        )
        assert await refresh_tokens.find(p.c, b"used" * 8) is not None
        assert await add(p, secret, b"new!" * 8)
        assert await p.count("refresh_tokens") == refresh_tokens.TOKENS_MAX + 1
        for content, is_kept in ((b"used", True), (b"idle", False), (b"new!", True)):
            assert (await refresh_tokens.find(p.c, content * 8) is not None) is is_kept
        assert await refresh_tokens.find(p.c, HASH) is not None, "another's stay"

    talk(database, scene)


def test_revoke_all_when_an_account_has_some_then_others_keep_theirs(database: Target) -> None:
    async def scene(p: Person) -> None:
        alice, _ = await p.person(), await p.robot()
        for n in range(3):
            await add(p, await p.secret_of("alice"), bytes([n]) * 32)
        await add(p, await p.secret_of("ci"))
        assert await refresh_tokens.revoke_all(p.c, alice) == 3
        assert await refresh_tokens.revoke_all(p.c, alice) == 0
        assert await refresh_tokens.find(p.c, HASH) is not None

    talk(database, scene)


def test_add_when_the_account_is_being_disabled_then_it_waits_and_gives_none(database: Target) -> None:
    async def scene(s: Stage) -> None:
        admin, login = await s.actors(2)
        await Person(admin.raw).person()
        secret = await Person(admin.raw).secret_of("alice")
        async with admin.transaction():
            await accounts.set_disabled(admin.c, "alice", is_disabled=True)
            adding = s.start(login, add(Person(login.raw), secret))
            await s.waits(adding)
        assert await adding is False
        assert await s.count("refresh_tokens") == 0

    play(database, scene)


def test_set_disabled_when_a_token_is_being_added_then_it_waits_and_ends_that_too(database: Target) -> None:
    async def scene(s: Stage) -> None:
        admin, login = await s.actors(2)
        await Person(admin.raw).person()
        secret = await Person(admin.raw).secret_of("alice")

        async def ending(actor: Actor) -> None:
            await accounts.set_disabled(actor.c, "alice", is_disabled=True)

        async with login.transaction():
            assert await add(Person(login.raw), secret)
            disabling = s.start(admin, ending(admin))
            await s.waits(disabling)
        await disabling
        assert await s.count("refresh_tokens") == 0

    play(database, scene)


def test_set_password_when_a_token_is_being_added_then_it_waits_and_ends_that_too(database: Target) -> None:
    async def scene(s: Stage) -> None:
        admin, login = await s.actors(2)
        alice = await Person(admin.raw).person()
        secret = await Person(admin.raw).secret_of("alice")
        async with login.transaction():
            assert await add(Person(login.raw), secret)
            changing = s.start(admin, accounts.set_password(admin.c, alice, "$argon2id$new"))
            await s.waits(changing)
        assert await changing
        assert await s.count("refresh_tokens") == 0

    play(database, scene)
