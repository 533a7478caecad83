"""Look-ups that share a statement when the statement fails or hangs: all who wait for it are told, and soon."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from app.domain.errors import Unavailable
from app.services.coalescing import Coalesced

if TYPE_CHECKING:
    from collections.abc import Sequence

SECONDS: Final = 0.2
# Nothing that is measured here should come near it.
PATIENCE_SECONDS: Final = 20.0


class Table:
    """The n-th call finds n for every key, or raises `errors[n]`, once `goes_on` is set."""

    def __init__(self) -> None:
        self.calls = 0
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.errors: dict[int, Exception] = {}

    async def look_up(self, keys: Sequence[str]) -> dict[str, int]:
        self.calls += 1
        number = self.calls
        await self.goes_on.wait()
        if number in self.errors:
            raise self.errors[number]
        return dict.fromkeys(keys, number)


def asked(coalesced: Coalesced[str, int], *keys: str) -> list[asyncio.Task[Any]]:
    return [asyncio.ensure_future(coalesced.ask(key)) for key in keys]


async def told(questions: list[asyncio.Task[Any]]) -> list[str]:
    """What each was refused with."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.wait(questions)
    errors = [question.exception() for question in questions]
    assert all(isinstance(error, Unavailable) for error in errors)
    return [str(error) for error in errors]


def test_look_up_when_it_hangs_then_all_who_wait_are_refused_and_who_comes_later_at_once() -> None:
    async def scenario() -> None:
        table = Table()
        coalesced = Coalesced(table.look_up, seconds_max=SECONDS)
        table.goes_on.clear()
        aboard = asked(coalesced, "a", "a", "b")
        await asyncio.sleep(0)
        behind = asked(coalesced, "a", "c")
        assert len(set(await told(aboard + behind))) == 1
        for key in "abc":
            with pytest.raises(Unavailable):
                coalesced.ask(key).send(None)  # without a moment's waiting
        assert table.calls == 1

        table.goes_on.set()
        await asyncio.sleep(0.01)
        assert await coalesced.ask("a") == 2

    asyncio.run(scenario())


def test_look_up_when_it_hangs_and_then_fails_then_the_next_question_is_a_new_call() -> None:
    async def scenario() -> None:
        table = Table()
        coalesced = Coalesced(table.look_up, seconds_max=SECONDS)
        table.goes_on.clear()
        await told(asked(coalesced, "a"))
        table.errors[1] = Unavailable("cut off")
        table.goes_on.set()
        await asyncio.sleep(0.01)
        assert await coalesced.ask("a") == 2

    asyncio.run(scenario())


def test_look_up_when_one_of_two_hangs_then_the_other_serves_all() -> None:
    async def scenario() -> None:
        table = Table()
        coalesced = Coalesced(table.look_up, flights_max=2, seconds_max=SECONDS)
        table.goes_on.clear()
        stuck = asked(coalesced, "a")
        while not table.calls:
            await asyncio.sleep(0)
        table.goes_on = asyncio.Event()
        table.goes_on.set()
        await told(stuck)
        assert [await coalesced.ask(key) for key in "abc"] == [2, 3, 4]

    asyncio.run(scenario())


def test_look_up_when_it_fails_then_everyone_aboard_is_told_and_the_next_call_serves_those_behind() -> None:
    async def scenario() -> None:
        table = Table()
        coalesced = Coalesced(table.look_up)
        table.goes_on.clear()
        table.errors[1] = Unavailable("gone")
        aboard = asked(coalesced, "a", "b", "b")
        await asyncio.sleep(0)
        behind = asked(coalesced, "a", "c")
        await asyncio.sleep(0)
        table.goes_on.set()
        assert await told(aboard) == ["gone"] * 3
        assert [await question for question in behind] == [2, 2]

    asyncio.run(scenario())


def test_look_up_when_all_who_asked_have_left_then_the_next_question_is_answered_all_the_same() -> None:
    async def scenario() -> None:
        table = Table()
        coalesced = Coalesced(table.look_up, seconds_max=SECONDS)
        table.goes_on.clear()
        leaving = asked(coalesced, "a", "b")
        await asyncio.sleep(0)
        for question in leaving:
            question.cancel()
        await asyncio.wait(leaving)
        table.goes_on.set()
        assert await coalesced.ask("a") == 2

    asyncio.run(scenario())


def test_look_ups_when_they_go_well_for_longer_than_one_may_take_then_nobody_is_refused() -> None:
    async def scenario() -> None:
        table = Table()
        coalesced = Coalesced(table.look_up, seconds_max=SECONDS)
        end = time.monotonic() + 3 * SECONDS
        while time.monotonic() < end:
            assert await coalesced.ask("a") == table.calls
            await asyncio.sleep(0.001)

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [Unavailable("gone"), asyncio.CancelledError()])
def test_look_up_when_it_ends_with_an_error_then_none_who_waited_is_forgotten(error: BaseException) -> None:
    async def scenario() -> None:
        async def look_up(_: Sequence[str]) -> dict[str, int]:
            await asyncio.sleep(0)
            raise error

        coalesced = Coalesced(look_up)
        for question in asked(coalesced, "a", "b"):
            with pytest.raises(type(error)):
                await question

    asyncio.run(scenario())
