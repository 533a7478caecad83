"""The checks behind `/debug/health`: bounded, and not run more often than they need to be."""

from __future__ import annotations

import asyncio
import time

from app.http.ops import Health


def test_health_when_a_check_hangs_then_it_fails_after_its_time_and_the_others_count() -> None:
    async def hang() -> None:
        await asyncio.sleep(60)

    async def good() -> None:
        return

    async def bad() -> None:
        raise ValueError("the disk is gone")

    async def mute() -> None:
        raise RuntimeError

    async def test() -> None:
        health = Health({"hang": hang, "good": good, "bad": bad, "mute": mute}, check_seconds=0.05)
        began = time.monotonic()
        assert await health.failures() == {
            "hang": "no answer within 0.05 seconds",
            "bad": "the disk is gone",
            "mute": "RuntimeError",
        }
        assert time.monotonic() - began < 5

    asyncio.run(test())


def test_health_when_it_is_asked_often_then_the_checks_run_once_a_second() -> None:
    runs = 0
    now = 100.0

    async def check() -> None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.01)
        raise ValueError(f"run {runs}")

    async def test() -> None:
        nonlocal now
        health = Health({"check": check}, clock=lambda: now)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(health.failures()) for _ in range(10)]
        assert [task.result() for task in tasks] == [{"check": "run 1"}] * 10
        now += 0.9
        assert await health.failures() == {"check": "run 1"}
        now += 0.2
        assert await health.failures() == {"check": "run 2"}

    asyncio.run(test())
