"""Accounts: what a login sees, and that whatever ends an account's rights ends its refresh tokens as well."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest

from app.domain.access import Action
from app.store import accounts, grants, refresh_tokens
from app.store.accounts import AccountExists, Credentials, Secret, TooManySecrets
from app.store.grants import Grant
from tests.store.people import PASSWORD, SECRET, Person, talk

if TYPE_CHECKING:
    from app.store.engine import Target

DAY = timedelta(days=1)


async def token(p: Person, name: str, content: bytes = b"t" * 32) -> bool:
    secret = await p.secret_of(name)
    return await refresh_tokens.add(p.c, content, secret, service="r", client_id="docker", lifetime=DAY)


def test_credentials_when_an_account_has_grants_then_one_look_finds_all_that_a_login_needs(
    database: Target,
) -> None:
    async def scene(p: Person) -> None:
        alice = await p.person()
        await p.robot("other")
        await grants.add(p.c, alice, "a/**", {Action.PUSH, Action.PULL})
        await grants.add(p.c, await p.robot("ci"), "b/**", {Action.PULL})
        await grants.add(p.c, None, "public/*", {Action.PULL})
        everybody = Grant("public/*", frozenset({Action.PULL}))
        expected = (Grant("a/**", frozenset({Action.PULL, Action.PUSH})), everybody)
        found = await accounts.credentials(p.c, "alice")
        secret = Secret(await p.secret_of("alice"), PASSWORD, None)
        assert found == Credentials(alice, "alice", "person", False, expected, False, (secret,))
        assert await accounts.anonymous(p.c) == (everybody,)
        bare = await accounts.credentials(p.c, "other")
        assert bare is not None
        assert bare.grants == (everybody,)

    talk(database, scene)


@pytest.mark.parametrize("name", ["nobody", "Alice", "", "a\x00b", "\udc80", "é", "a" * 100_000, "a' OR 'a"])
def test_credentials_when_a_client_sends_any_name_then_there_are_none(database: Target, name: str) -> None:
    async def scene(p: Person) -> None:
        await p.person()
        assert await accounts.credentials(p.c, name) is None

    talk(database, scene)


def test_credentials_when_a_secret_has_expired_then_it_is_left_out(database: Target) -> None:
    async def scene(p: Person) -> None:
        ci = await p.robot()
        kept = await p.secret_of("ci")
        assert await accounts.add_secret(p.c, ci, SECRET, label="short", lifetime=DAY) is not None
        found = await accounts.credentials(p.c, "ci")
        assert found is not None
        assert len(found.secrets) == 2
        await p.passes("25 hours")
        found = await accounts.credentials(p.c, "ci")
        assert found is not None
        assert [one.id for one in found.secrets] == [kept]
        assert [one.label for one in await accounts.secrets(p.c, ci)] == ["", "short"]

    talk(database, scene)


@pytest.mark.parametrize(
    "name", ["", "A", "-a", "a b", "a/b", "a:b", "a\n", "é", "anonymous", "a" * 129, "a\n'"]
)
def test_add_when_the_name_is_none_then_the_database_refuses_it(database: Target, name: str) -> None:
    async def scene(p: Person) -> None:
        with pytest.raises(asyncpg.CheckViolationError):
            await accounts.add(p.c, name, "person")

    talk(database, scene)


def test_add_when_the_name_is_taken_then_it_says_so_and_changes_nothing(database: Target) -> None:
    async def scene(p: Person) -> None:
        assert not await accounts.any_exists(p.c)
        await p.person("a.b_c@d+e-0")
        assert await accounts.any_exists(p.c)
        with pytest.raises(AccountExists, match=r"a\.b_c@d\+e-0"):
            await accounts.add(p.c, "a.b_c@d+e-0", "robot", secret_hash=SECRET)
        assert await p.count("account_secrets") == 1
        found = await accounts.find(p.c, "a.b_c@d+e-0")
        assert found is not None
        assert (found.kind, found.is_admin, found.disabled_at, found.last_used_at) == (
            "person", False, None, None,
        )  # fmt: skip
        assert await accounts.find(p.c, "nobody") is None

    talk(database, scene)


def test_page_when_there_are_more_then_pages_follow_each_other_by_name_and_kind(database: Target) -> None:
    async def scene(p: Person) -> None:
        for name in ("c", "a", "b_", "b-"):
            await p.person(name)
        await p.robot("aa")
        first = await accounts.page(p.c, "person", "", 3)
        assert [one.name for one in first] == ["a", "b-", "b_"]
        assert [one.name for one in await accounts.page(p.c, "person", "b_", 3)] == ["c"]
        assert [one.name for one in await accounts.page(p.c, "robot", "", 3)] == ["aa"]

    talk(database, scene)


def test_set_disabled_when_it_is_on_then_refresh_tokens_are_gone_and_none_can_be_added(
    database: Target,
) -> None:
    async def scene(p: Person) -> None:
        await p.person()
        assert await token(p, "alice")
        assert await accounts.set_disabled(p.c, "alice", is_disabled=True)
        assert await refresh_tokens.find(p.c, b"t" * 32) is None
        assert not await token(p, "alice")
        found = await accounts.credentials(p.c, "alice")
        assert found is not None
        assert found.is_disabled
        since = (await accounts.find(p.c, "alice")).disabled_at  # type: ignore[union-attr]
        await accounts.set_disabled(p.c, "alice", is_disabled=True)
        assert (await accounts.find(p.c, "alice")).disabled_at == since  # type: ignore[union-attr]
        await accounts.set_disabled(p.c, "alice", is_disabled=False)
        assert await refresh_tokens.find(p.c, b"t" * 32) is None
        assert await token(p, "alice")
        assert not await accounts.set_disabled(p.c, "nobody", is_disabled=True)

    talk(database, scene)


def test_set_password_when_there_was_one_then_it_is_replaced_and_its_refresh_tokens_are_gone(
    database: Target,
) -> None:
    async def scene(p: Person) -> None:
        alice, ci = await p.person(), await p.robot()
        before = await p.secret_of("alice")
        assert await token(p, "alice")
        assert await accounts.set_password(p.c, alice, PASSWORD + "2")
        found = await accounts.credentials(p.c, "alice")
        assert found is not None
        assert [one.hash for one in found.secrets] == [PASSWORD + "2"]
        assert await refresh_tokens.find(p.c, b"t" * 32) is None
        # Whoever had checked the old password just before gets none for it either.
        late = await refresh_tokens.add(p.c, b"l" * 32, before, service="r", client_id="", lifetime=DAY)
        assert not late
        assert not await accounts.set_password(p.c, ci, PASSWORD)
        assert await accounts.add_secret(p.c, alice, SECRET) is None
        assert not await accounts.remove_secret(p.c, alice, await p.secret_of("alice"))

    talk(database, scene)


def test_secrets_when_a_robot_has_many_then_there_is_an_end_and_removing_one_makes_room(
    database: Target,
) -> None:
    async def scene(p: Person) -> None:
        ci, other = await p.robot(), await p.robot("other")
        first = await p.secret_of("ci")
        for _ in range(accounts.SECRETS_MAX - 2):
            await accounts.add_secret(p.c, ci, SECRET)
        assert await accounts.add_secret(p.c, ci, SECRET, lifetime=DAY)
        with pytest.raises(TooManySecrets, match="20"):
            await accounts.add_secret(p.c, ci, SECRET)
        assert not await accounts.remove_secret(p.c, other, first)
        assert await token(p, "other")
        assert await accounts.remove_secret(p.c, ci, first)
        assert not await accounts.remove_secret(p.c, ci, first)
        assert await refresh_tokens.find(p.c, b"t" * 32) is not None
        await p.passes("2 days")
        assert await accounts.add_secret(p.c, ci, SECRET)
        assert await accounts.add_secret(p.c, ci, SECRET), "one had expired"
        await p.passes("31 days")
        await accounts.remove_secret(p.c, ci, (await accounts.secrets(p.c, ci))[0].id)
        await accounts.add_secret(p.c, ci, SECRET)
        assert all(one.expires_at is None for one in await accounts.secrets(p.c, ci))

    talk(database, scene)


def test_mark_used_when_called_often_then_it_is_written_once_a_minute(database: Target) -> None:
    async def scene(p: Person) -> None:
        await p.person()
        secret = await p.secret_of("alice")
        await accounts.mark_used(p.c, secret)
        written = await p.versions("account_secrets")
        await accounts.mark_used(p.c, secret)
        assert await p.versions("account_secrets") == written
        found = await accounts.find(p.c, "alice")
        assert found is not None
        assert found.last_used_at is not None
        await p.passes("61 seconds")
        written = await p.versions("account_secrets")
        await accounts.mark_used(p.c, secret)
        assert await p.versions("account_secrets") != written

    talk(database, scene)


def test_remove_when_the_account_has_everything_then_nothing_of_it_is_left(database: Target) -> None:
    async def scene(p: Person) -> None:
        alice = await p.person()
        await grants.add(p.c, alice, "a", {Action.PULL})
        await grants.add(p.c, None, "a", {Action.PULL})
        assert await token(p, "alice")
        assert await accounts.set_admin(p.c, "alice", is_admin=True)
        assert (await accounts.find(p.c, "alice")).is_admin  # type: ignore[union-attr]
        assert await accounts.remove(p.c, "alice")
        assert not await accounts.remove(p.c, "alice")
        assert not await accounts.set_admin(p.c, "alice", is_admin=True)
        assert [await p.count(t) for t in ("accounts", "account_secrets", "refresh_tokens", "grants")] == [
            0, 0, 0, 1,
        ]  # fmt: skip

    talk(database, scene)
