"""`/debug/health` when what it asks about hangs: it answers in time, does no harm by asking, and hears of the end."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import Final

from app.http.ops import Health
from app.runtime.threads import Threads

CHECK_SECONDS: Final = 0.5
SILENT: Final = {"disk": "no answer within 0.5 seconds"}


def test_health_when_a_check_hangs_in_a_thread_then_it_is_not_asked_again_until_it_has_ended() -> None:
    async def scenario() -> None:
        goes_on, runs = threading.Event(), 0
        threads = Threads("disk", 8)

        def probe() -> None:
            nonlocal runs
            runs += 1
            goes_on.wait()

        async def disk() -> None:
            await threads.run(probe)

        health = Health({"disk": disk}, check_seconds=CHECK_SECONDS, fresh_seconds=0)
        try:
            assert await health.failures() == SILENT
            began = time.monotonic()
            for _ in range(20):
                assert await health.failures() == SILENT
            # Whoever asks while it hangs is answered without waiting for it.
            assert time.monotonic() - began < 20 * CHECK_SECONDS
            assert runs == 1
        finally:
            goes_on.set()
        async with asyncio.timeout(10):
            while await health.failures():
                await asyncio.sleep(0.01)
        assert runs == 2
        await threads.close()

    asyncio.run(scenario())


def test_health_when_a_check_hangs_while_it_cleans_up_then_it_is_cancelled_again_and_the_next_one_counts() -> (
    None
):
    async def scenario() -> None:
        hangs, cleaned = True, 0

        async def database() -> None:
            nonlocal cleaned
            try:
                await asyncio.sleep(3600 if hangs else 0)
            finally:
                cleaned += 1
                await asyncio.sleep(3600 if hangs else 0)

        health = Health({"disk": database}, check_seconds=CHECK_SECONDS, fresh_seconds=0)
        assert await health.failures() == SILENT
        hangs = False
        async with asyncio.timeout(10):
            while await health.failures():
                await asyncio.sleep(0.01)
        assert cleaned == 2

    asyncio.run(scenario())


def test_health_when_a_check_fails_after_it_was_given_up_then_nothing_is_reported_as_forgotten() -> None:
    async def scenario() -> None:
        reported: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

        async def fails_late() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                raise OSError

        health = Health({"disk": fails_late}, check_seconds=CHECK_SECONDS, fresh_seconds=0)
        assert await health.failures() == SILENT
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del health
        gc.collect()
        assert reported == []

    asyncio.run(scenario())
