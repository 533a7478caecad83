"""Failed logins: who has to wait, who has not, and what is remembered for how long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from app.store import logins
from tests.store.people import Person, talk
from tests.support.postgres import connected

if TYPE_CHECKING:
    from app.store.engine import Target

HERE, THERE = "192.0.2.1", "2001:db8::/64"


async def fail(p: Person, times: int, address: str = HERE, account: str = "alice") -> None:
    for _ in range(times):
        await logins.failed(p.c, address, account)


async def besiege(p: Person, account: str = "alice") -> None:
    """As many failures from many addresses as the account bears."""
    for n in range(10):
        await fail(p, 10, f"198.51.100.{n}", account)


@pytest.mark.parametrize("address", [HERE, ""])
def test_wait_when_an_address_fails_ten_times_then_it_waits_twice_as_long_each_time_up_to_a_bound(
    database: Target, address: str
) -> None:
    async def scene(p: Person) -> None:
        for n in range(10):
            assert await logins.wait(p.c, address, "alice") == 0
            await logins.failed(p.c, address, f"account-{n}")
        waits: list[int] = []
        for _ in range(11):
            waits.append(await logins.wait(p.c, address, "bob"))
            await logins.failed(p.c, address, "alice")
        assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
        assert await logins.wait(p.c, THERE, "alice") == 0

    talk(database, scene)


def test_wait_when_time_passes_then_it_is_less_and_ends(database: Target) -> None:
    async def scene(p: Person) -> None:
        await fail(p, 16)
        assert await logins.wait(p.c, HERE, "alice") == 64
        await p.passes("30 seconds")
        assert await logins.wait(p.c, HERE, "alice") in {33, 34}
        await p.passes("34 seconds")
        assert await logins.wait(p.c, HERE, "alice") == 0
        await fail(p, 1)
        assert await logins.wait(p.c, HERE, "alice") == 128
        await p.passes("15 minutes")
        assert await logins.wait(p.c, HERE, "alice") == 0
        await fail(p, 9)
        assert await logins.wait(p.c, HERE, "alice") == 0, "they begin at one again"
        await fail(p, 1)
        assert await logins.wait(p.c, HERE, "alice") == 1

    talk(database, scene)


def test_wait_when_one_address_fails_without_end_then_the_account_is_open_to_others(database: Target) -> None:
    async def scene(p: Person) -> None:
        await fail(p, 1_000)
        assert await logins.wait(p.c, HERE, "alice") == 300
        assert await logins.wait(p.c, THERE, "alice") == 0

    talk(database, scene)


def test_wait_when_many_addresses_fail_then_only_those_wait_that_the_account_does_not_know(
    database: Target,
) -> None:
    async def scene(p: Person) -> None:
        await logins.succeeded(p.c, THERE, "alice")
        await besiege(p)
        assert await logins.wait(p.c, HERE, "alice") == 1
        assert await logins.wait(p.c, HERE, "bob") == 0
        assert await logins.wait(p.c, THERE, "alice") == 0
        await p.raw.execute("UPDATE login_failures SET succeeded_at = now() - interval '31 days'")
        assert await logins.wait(p.c, THERE, "alice") == 1

    talk(database, scene)


def test_wait_when_an_address_is_known_and_fails_itself_then_it_waits(database: Target) -> None:
    async def scene(p: Person) -> None:
        await logins.succeeded(p.c, HERE, "alice")
        await fail(p, 10)
        assert await logins.wait(p.c, HERE, "alice") == 1

    talk(database, scene)


def test_succeeded_when_others_failed_from_there_then_their_failures_stay(database: Target) -> None:
    async def scene(p: Person) -> None:
        await fail(p, 5, account="mallory")
        await fail(p, 10)
        assert await logins.wait(p.c, HERE, "mallory") == 32
        await logins.succeeded(p.c, HERE, "mallory")
        assert await logins.wait(p.c, HERE, "mallory") == 1
        await logins.succeeded(p.c, HERE, "alice")
        assert await logins.wait(p.c, HERE, "mallory") == 0

    talk(database, scene)


def test_succeeded_when_called_often_then_it_writes_once_an_hour(database: Target) -> None:
    async def scene(p: Person) -> None:
        await logins.succeeded(p.c, HERE, "alice")
        written = await p.versions("login_failures")
        await logins.succeeded(p.c, HERE, "alice")
        assert await p.versions("login_failures") == written
        await p.passes("61 minutes")
        written = await p.versions("login_failures")
        await logins.succeeded(p.c, HERE, "alice")
        assert await p.versions("login_failures") != written

    talk(database, scene)


def test_failed_when_many_fail_at_once_then_each_is_counted(database: Target) -> None:
    async def scene(p: Person) -> None:
        async def one() -> None:
            async with connected(database) as raw:
                await logins.failed(Person(raw).c, HERE, "alice")

        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(one())
        assert await p.raw.fetchval("SELECT failures FROM login_failures") == 20

    talk(database, scene)


def test_failed_and_succeeded_when_many_write_and_prune_at_once_then_nobody_waits_in_a_circle(
    database: Target,
) -> None:
    async def scene(p: Person) -> None:
        await p.raw.execute(
            "INSERT INTO login_failures (address, account, failures, forget_after)"
            " SELECT 'past', n::text, 1, now() - interval '1 second' FROM generate_series(1, 2000) n"
        )

        async def one(number: int) -> None:
            async with connected(database) as raw:
                mine = Person(raw)
                for n in range(10):
                    await logins.failed(mine.c, HERE, f"{(n * number) % 5}")
                    await logins.failed(mine.c, "past", f"{1 + (n * number) % 5}")
                    await logins.succeeded(mine.c, HERE, f"{(n + number) % 5}")

        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(one(number))
        assert await p.raw.fetchval("SELECT count(*) FROM login_failures WHERE address = 'past'") <= 5

    talk(database, scene)


def test_prune_when_rows_have_no_meaning_any_more_then_a_hundred_go_at_a_time(database: Target) -> None:
    async def scene(p: Person) -> None:
        for n in range(3):
            await fail(p, 1, account=f"failed-{n}")
        await logins.succeeded(p.c, HERE, "known")
        await p.passes("25 hours")
        await fail(p, 1, THERE)
        rows = await p.raw.fetch("SELECT account FROM login_failures ORDER BY account")
        assert [row[0] for row in rows] == ["alice", "known"]
        await p.passes("30 days")
        await p.raw.execute(
            "INSERT INTO login_failures (address, account, failures, forget_after)"
            " SELECT 'past', n::text, 1, now() - interval '1 second' FROM generate_series(1, 150) n"
        )
        await logins.succeeded(p.c, "new", "known")
        assert await p.count("login_failures") == 3 + 150 - 100
        await logins.succeeded(p.c, "new", "alice")
        assert await p.count("login_failures") == 2

    talk(database, scene)


@pytest.mark.parametrize("account", ["", "a\x00b", "\udc80\ud800", "é" * 500, "Alice", "'; --", "\U0001f600"])
def test_wait_when_a_client_sends_any_name_then_it_is_counted_like_others(
    database: Target, account: str
) -> None:
    async def scene(p: Person) -> None:
        await fail(p, 10, account=account)
        assert await logins.wait(p.c, HERE, account) == 1
        await logins.succeeded(p.c, HERE, account)
        assert await logins.wait(p.c, HERE, account) == 0

    talk(database, scene)
