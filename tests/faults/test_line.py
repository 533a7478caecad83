"""The line for connections: in order, for so long at most, and not longer than can be served in that time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import pytest

from app.runtime.line import Line
from tests.faults.clock import run

if TYPE_CHECKING:
    from collections.abc import Sequence

SECONDS: Final = 5.0
PLACES_MIN: Final = 2


class Refused(Exception):
    """What those are told who wait in vain."""


class Counter:
    """A line, who comes to it, and what becomes of them: what they were given, or how long it took to be refused."""

    def __init__(self) -> None:
        self.line: Line[int] = Line(
            SECONDS, places_min=PLACES_MIN, refusal=Refused, unclaimed=self.left_over.append
        )
        self.tasks: list[asyncio.Task[int | float]] = []

    @property
    def left_over(self) -> list[int]:
        return self.__dict__.setdefault("_left_over", [])

    async def come(self, count: int = 1) -> list[asyncio.Task[int | float]]:
        """So many more stand in the line."""
        tasks = [asyncio.ensure_future(self._wait()) for _ in range(count)]
        self.tasks += tasks
        await asyncio.sleep(0)
        return tasks

    async def serve(self, count: int, every: float) -> None:
        for number in range(count):
            await asyncio.sleep(every)
            self.line.serve(number)

    async def outcomes(self) -> list[int | float]:
        return [await task for task in self.tasks]

    async def _wait(self) -> int | float:
        began = asyncio.get_running_loop().time()
        try:
            return await self.line.wait()
        except Refused:
            return asyncio.get_running_loop().time() - began


def seconds(outcomes: Sequence[int | float]) -> list[float]:
    """Of those who were refused."""
    return [outcome for outcome in outcomes if isinstance(outcome, float)]


def test_line_when_something_comes_then_those_who_came_first_get_it_first() -> None:
    async def scenario() -> None:
        counter = Counter()
        await counter.come(3)
        for number in range(3):
            assert counter.line.serve(number)
        assert not counter.line.serve(3)
        assert await counter.outcomes() == [0, 1, 2]
        assert len(counter.line) == 0

    run(scenario())


def test_line_when_one_has_waited_long_enough_then_it_is_refused_and_the_others_wait_on() -> None:
    async def scenario() -> None:
        counter = Counter()
        await counter.come()
        await asyncio.sleep(1)
        counter.line.serve(0)
        await counter.come(2)
        await asyncio.sleep(3)
        counter.line.serve(1)
        await counter.come()
        await asyncio.sleep(2)
        counter.line.serve(2)
        assert await counter.outcomes() == [0, 1, SECONDS, 2]

    run(scenario())


def test_line_when_one_leaves_then_the_next_gets_its_turn() -> None:
    async def scenario() -> None:
        counter = Counter()
        gone, stays = await counter.come(2)
        gone.cancel()
        await asyncio.sleep(0)
        assert len(counter.line) == 1
        assert counter.line.serve(0)
        assert await stays == 0

    run(scenario())


def test_line_when_one_leaves_just_as_it_is_served_then_what_it_was_given_is_not_lost() -> None:
    async def scenario() -> None:
        counter = Counter()
        (gone,) = await counter.come()
        assert counter.line.serve(7)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert counter.left_over == [7]

    run(scenario())


def test_line_when_nobody_was_served_for_the_whole_wait_then_all_are_refused_at_once_until_it_moves() -> None:
    async def scenario() -> None:
        counter = Counter()
        await counter.come(3)
        await asyncio.sleep(4)
        await counter.come(3)
        await asyncio.sleep(2)
        await counter.come(3)
        assert await counter.outcomes() == [SECONDS] * 3 + [1.0] * 3 + [0.0] * 3
        assert not counter.line.serve(0)
        (one,) = await counter.come()
        assert counter.line.serve(1)
        assert await one == 1

    run(scenario())


def test_line_when_it_is_longer_than_can_be_served_then_the_last_are_refused_as_soon_as_that_is_known() -> (
    None
):
    async def scenario() -> None:
        counter = Counter()
        await counter.come(1000)
        await counter.serve(200, every=0.05)
        outcomes = await counter.outcomes()
        served = 1000 - len(seconds(outcomes))
        # Twenty a second, for five seconds. The first are served, and in order.
        assert outcomes[:served] == list(range(served))
        assert 90 <= served <= 101
        # All others were told after a fifth of the wait, but for those on the verge.
        told = sorted(seconds(outcomes))
        assert told[int(len(told) * 0.95)] == pytest.approx(1.0, abs=0.1)
        assert max(told) <= SECONDS

    run(scenario())


def test_line_when_it_is_as_long_as_can_be_served_then_who_comes_is_refused_at_once() -> None:
    async def scenario() -> None:
        counter = Counter()

        async def crowd() -> None:
            # Twice as many as can be served.
            for _ in range(40 * 20):
                await counter.come()
                await asyncio.sleep(1 / 40)

        async with asyncio.TaskGroup() as group:
            group.create_task(crowd())
            group.create_task(counter.serve(20 * 20, every=1 / 20))
        counter.line.send_away(Refused)
        outcomes = await counter.outcomes()
        assert seconds(outcomes).count(0.0) > 200
        # Nearly all others are served: hardly anyone waits for nothing.
        assert sum(told > 0 for told in seconds(outcomes)) < 120

    run(scenario())


def test_line_when_it_stops_for_a_while_then_hardly_anyone_is_refused_for_it() -> None:
    async def scenario() -> None:
        counter = Counter()
        await counter.come(30)
        await counter.serve(20, every=0.05)
        await counter.come(20)
        await asyncio.sleep(2)
        await counter.serve(30, every=0.05)
        assert len(seconds(await counter.outcomes())) <= 2

    run(scenario())


def test_line_when_it_goes_on_after_it_was_interrupted_then_nobody_is_refused_for_the_interruption() -> None:
    async def scenario() -> None:
        counter = Counter()
        await counter.come(100)
        await counter.serve(30, every=0.05)
        await asyncio.sleep(3)
        counter.line.resume()
        await counter.serve(70, every=0.005)
        assert seconds(await counter.outcomes()) == []

    run(scenario())


def test_line_when_it_is_slow_then_a_few_may_always_wait() -> None:
    async def scenario() -> None:
        counter = Counter()
        await counter.come(PLACES_MIN)
        await asyncio.sleep(4)
        counter.line.serve(0)
        await counter.come()
        await asyncio.sleep(0.5)
        counter.line.serve(1)
        await asyncio.sleep(4)
        counter.line.serve(2)
        assert await counter.outcomes() == [0, 1, 2]

    run(scenario())


def test_line_when_everyone_is_sent_away_then_each_gets_an_error_of_their_own() -> None:
    async def scenario() -> None:
        line: Line[int] = Line(SECONDS, places_min=1, refusal=Refused, unclaimed=lambda _: None)
        waiting = [asyncio.ensure_future(line.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        line.send_away(lambda: Refused("away"))
        errors = await asyncio.wait(waiting)
        found = [task.exception() for task in errors[0]]
        assert [str(error) for error in found] == ["away"] * 3
        assert len({id(error) for error in found}) == 3

    run(scenario())
