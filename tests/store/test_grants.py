"""Grants: adding unites, removing subtracts, and the database refuses what would mean nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest

from app.domain.access import Action
from app.store import grants
from tests.store.people import Person, talk
from tests.store.scenes import play
from tests.support.postgres import connected

if TYPE_CHECKING:
    from app.store.engine import Target
    from tests.store.scenes import Stage

PULL, PUSH, DELETE, CATALOG = Action.PULL, Action.PUSH, Action.DELETE, Action.CATALOG


async def listed(p: Person, account: int | None) -> dict[str, tuple[Action, ...]]:
    return {one.pattern: one.actions for one in await grants.of(p.c, account)}


@pytest.mark.parametrize("everybody", [True, False])
def test_add_and_remove_when_actions_overlap_then_grants_are_united_and_subtracted(
    database: Target, everybody: bool
) -> None:
    async def scene(p: Person) -> None:
        account = None if everybody else await p.person()
        assert await grants.add(p.c, account, "a/**", {PULL})
        assert not await grants.add(p.c, account, "a/**", {PULL})
        assert await grants.add(p.c, account, "", {CATALOG})
        assert await listed(p, account) == {"": (CATALOG,), "a/**": (PULL,)}
        if account is not None:
            assert await grants.add(p.c, account, "a/**", {DELETE, PUSH, PULL})
            assert await listed(p, account) == {"": (CATALOG,), "a/**": (PULL, PUSH, DELETE)}
            assert await grants.remove(p.c, account, "a/**", {PUSH, CATALOG})
            assert await listed(p, account) == {"": (CATALOG,), "a/**": (PULL, DELETE)}
            assert await grants.remove(p.c, account, "a/**", {DELETE})
        assert not await grants.remove(p.c, account, "a/**", {PUSH})
        assert not await grants.remove(p.c, account, "a", {PULL})
        assert await grants.remove(p.c, account, "a/**", {PULL})
        assert await listed(p, account) == {"": (CATALOG,)}

    talk(database, scene)


def test_page_when_there_are_more_then_pages_follow_each_other_with_names(database: Target) -> None:
    async def scene(p: Person) -> None:
        alice, ci = await p.person(), await p.robot()
        await grants.add(p.c, None, "a", {PULL})
        await grants.add(p.c, ci, "a", {PULL})
        await grants.add(p.c, alice, "a", {PULL})
        first = await grants.page(p.c, 0, 2)
        assert [one.account for one in first] == [None, "ci"]
        assert [one.account for one in await grants.page(p.c, first[-1].id, 2)] == ["alice"]
        assert await listed(p, None) == {"a": (PULL,)}

    talk(database, scene)


@pytest.mark.parametrize(
    ("is_account", "pattern", "actions"),
    [
        (True, "a", []),
        (True, "a", [CATALOG]),
        (True, "a", [PULL, CATALOG]),
        (True, "", [PULL]),
        (True, "", [PULL, CATALOG]),
        (False, "a", [PUSH]),
        (False, "a", [PULL, DELETE]),
        (True, "a" * 256, [PULL]),
    ],
)
def test_add_when_the_grant_would_mean_nothing_then_the_database_refuses_it(
    database: Target, is_account: bool, pattern: str, actions: list[Action]
) -> None:
    async def scene(p: Person) -> None:
        account = await p.person() if is_account else None
        with pytest.raises(asyncpg.CheckViolationError):
            await grants.add(p.c, account, pattern, actions)

    talk(database, scene)


def test_add_and_remove_when_many_do_so_at_once_then_no_grant_of_nothing_is_left(database: Target) -> None:
    async def scene(p: Person) -> None:
        alice = await p.person()

        async def one(number: int) -> None:
            async with connected(database) as raw:
                mine = Person(raw)
                for _ in range(10):
                    await grants.add(mine.c, alice, "a", {(PULL, PUSH, DELETE)[number % 3]})
                    await grants.remove(mine.c, alice, "a", {(PULL, PUSH, DELETE)[number % 3]})

        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(one(number))
        assert await listed(p, alice) == {}

    talk(database, scene)


def test_remove_when_another_takes_from_the_same_grant_then_it_waits_and_brings_nothing_back(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        one, other = await s.actors(2)
        alice = await Person(one.raw).person()
        await grants.add(one.c, alice, "a", {PULL, PUSH})
        async with one.transaction():
            assert await grants.remove(one.c, alice, "a", {PULL})
            removing = s.start(other, grants.remove(other.c, alice, "a", {PUSH}))
            await s.waits(removing)
        assert await removing
        assert await s.count("grants") == 0

    play(database, scene)
