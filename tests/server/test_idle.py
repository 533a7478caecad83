"""The timer of idle connections, by a clock of the tests' own."""

from __future__ import annotations

import asyncio

from app.server.idle import IdleTimer
from tests.faults.clock import run

SECONDS = 10.0


def test_timer_when_nothing_happens_then_it_expires_once() -> None:
    async def scenario() -> None:
        expired: list[float] = []
        loop = asyncio.get_running_loop()
        timer = IdleTimer(loop, SECONDS, lambda: expired.append(loop.time()))
        began = loop.time()
        timer.begin()
        await asyncio.sleep(5 * SECONDS)
        assert len(expired) == 1
        assert expired[0] - began >= SECONDS

    run(scenario())


def test_timer_when_requests_keep_coming_then_the_last_one_counts() -> None:
    async def scenario() -> None:
        expired: list[float] = []
        loop = asyncio.get_running_loop()
        timer = IdleTimer(loop, SECONDS, lambda: expired.append(loop.time()))
        last = 0.0
        for _ in range(10):
            timer.begin()
            await asyncio.sleep(SECONDS / 5)
            timer.end()
            last = loop.time()
            timer.begin()
        await asyncio.sleep(5 * SECONDS)
        assert [moment >= last + SECONDS for moment in expired] == [True]

    run(scenario())


def test_timer_when_a_request_is_under_way_then_it_does_not_expire() -> None:
    async def scenario() -> None:
        expired: list[bool] = []
        timer = IdleTimer(asyncio.get_running_loop(), SECONDS, lambda: expired.append(True))
        timer.begin()
        timer.end()
        assert not timer.is_idle
        await asyncio.sleep(3 * SECONDS)
        assert expired == []
        timer.begin()
        timer.cancel()
        await asyncio.sleep(3 * SECONDS)
        assert expired == []

    run(scenario())
