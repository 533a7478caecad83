"""Coalesced look-ups: few calls, fresh answers, nobody left waiting."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from app.services.coalescing import KEYS_MAX, Coalesced

if TYPE_CHECKING:
    from collections.abc import Sequence


class Shelf:
    """What is looked up, and each call's keys. While `gate` is shut, calls wait behind it."""

    def __init__(self) -> None:
        self.content: dict[str, int] = {}
        self.calls: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def look_up(self, keys: Sequence[str]) -> dict[str, int]:
        self.calls.append(list(keys))
        found = {key: self.content[key] for key in keys if key in self.content}
        await self.gate.wait()
        if "broken" in keys:
            raise LookupError("broken")
        return found


def test_questions_when_one_is_under_way_then_share_the_next_call() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        coalesced = Coalesced(shelf.look_up)
        shelf.content.update(a=1, b=2)
        shelf.gate.clear()
        first = asyncio.ensure_future(coalesced.ask("a"))
        while not shelf.calls:
            await asyncio.sleep(0)
        rest = [asyncio.ensure_future(coalesced.ask(key)) for key in ("a", "b", "a", "c")]
        await asyncio.sleep(0)
        shelf.gate.set()
        assert [await question for question in (first, *rest)] == [1, 1, 2, 1, None]
        assert shelf.calls == [["a"], ["a", "b", "c"]]

    asyncio.run(scenario())


def test_answer_when_the_content_changed_before_the_question_then_is_the_new_content() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        coalesced = Coalesced(shelf.look_up)
        shelf.content["a"] = 1
        shelf.gate.clear()
        old = asyncio.ensure_future(coalesced.ask("a"))
        while not shelf.calls:
            await asyncio.sleep(0)
        shelf.content["a"] = 2
        new = asyncio.ensure_future(coalesced.ask("a"))
        await asyncio.sleep(0)
        shelf.gate.set()
        assert (await old, await new) == (1, 2)

    asyncio.run(scenario())


def test_call_when_it_fails_then_its_askers_are_told_and_the_next_ones_are_served() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        coalesced = Coalesced(shelf.look_up)
        shelf.content["a"] = 1
        with pytest.raises(LookupError):
            await coalesced.ask("broken")
        assert await coalesced.ask("a") == 1

    asyncio.run(scenario())


def test_asker_when_cancelled_then_others_are_answered_all_the_same() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        coalesced = Coalesced(shelf.look_up)
        shelf.content["a"] = 1
        shelf.gate.clear()
        impatient, patient = (asyncio.ensure_future(coalesced.ask("a")) for _ in range(2))
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.sleep(0)
        shelf.gate.set()
        assert await patient == 1
        with pytest.raises(asyncio.CancelledError):
            await impatient

    asyncio.run(scenario())


def test_questions_when_they_are_very_many_then_no_call_has_more_keys_than_its_bound() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        coalesced = Coalesced(shelf.look_up)
        keys = [str(number) for number in range(3 * KEYS_MAX)]
        shelf.content.update({key: int(key) for key in keys})
        async with asyncio.TaskGroup() as group:
            questions = [group.create_task(coalesced.ask(key)) for key in keys]
        assert [question.result() for question in questions] == list(range(3 * KEYS_MAX))
        assert max(map(len, shelf.calls)) == KEYS_MAX

    asyncio.run(scenario())


def test_questions_when_asked_just_as_a_flight_ends_then_none_is_forgotten() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        coalesced = Coalesced(shelf.look_up)
        shelf.content["a"] = 1

        async def asker() -> None:
            for _ in range(200):
                assert await coalesced.ask("a") == 1

        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(asker())

    asyncio.run(scenario())
