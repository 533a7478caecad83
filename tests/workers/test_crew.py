"""Collectors at work, as a process runs them: woken, paused, stopped, and several crews on one database."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from app.store import collecting
from tests.support.fsck import assert_fsck_clean
from tests.support.invariants import assert_invariants
from tests.support.registry import image
from tests.workers.support import open_site

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from app.store.engine import Target
    from gc_workers.crew import Crew
    from tests.workers.support import Site

PATIENCE_SECONDS = 20.0
# No test lasts as long: whoever is idle only goes on when it is woken.
SLEEPY = {"manifests": {"interval": "10m"}, "blobs": {"interval": "10m", "storagedelay": "0s"}}
EAGER = {
    "maxbackoff": "20ms",
    "load": 1,
    "manifests": {"interval": "10ms"},
    "blobs": {"interval": "10ms", "storagedelay": "0s"},
}


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def working(*crews: Crew) -> AsyncGenerator[None]:
    """The crews at work; at the end they are told to stop and do."""
    stopping = asyncio.Event()
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        for crew in crews:
            group.create_task(crew.run(stopping))
        try:
            yield
        finally:
            stopping.set()


async def empty(site: Site) -> bool:
    return not await site.run(
        "SELECT (SELECT count(*) FROM manifests) + (SELECT count(*) FROM blobs)"
        " + (SELECT count(*) FROM gc_storage_deletions)"
    )


def test_crews_when_an_image_was_untagged_then_three_of_them_leave_nothing_of_it_and_all_of_another(
    database: Target, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with open_site(database, tmp_path, **EAGER) as site:
            client = site.registry.client
            for number in range(20):
                await site.registry.push_image("a/b", f"t{number}", image(b"layer %d" % number, b"shared"))
                if number:
                    assert (await client.delete(f"/v2/a/b/manifests/t{number}")).status_code == 202
            await site.fall_due()
            async with working(*(site.crew() for _ in range(3))):

                async def one_left() -> bool:
                    await site.fall_due()  # what the manifests' deletion makes suspect
                    return await site.run("SELECT count(*) FROM blobs") == 3 and not await site.run(
                        "SELECT count(*) FROM gc_storage_deletions"
                    )

                await until(one_left)
            assert site.counted.failures == []
            assert await site.run("SELECT count(*) FROM manifests") == 1
            assert (await client.get("/v2/a/b/manifests/t0")).status_code == 200
            assert await site.run("SELECT count(*) FROM gc_receipts WHERE kind = 'manifest'") == 19
            assert (
                await site.run(
                    "SELECT count(*) FROM gc_receipts WHERE kind = 'blob' AND removed_at IS NOT NULL"
                )
                == 19
            )
            assert len([item async for item in site.registry.driver.list()]) == 3
            await assert_invariants(database, site.registry.driver)
            await assert_fsck_clean(database, site.registry.driver)

    asyncio.run(scenario())


def test_bell_when_it_rings_then_an_idle_crew_looks_at_once(database: Target, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_site(database, tmp_path, **SLEEPY) as site:
            await site.registry.push_blob("a/b", b"unused")
            async with working(site.crew(bell=database)):

                async def idle() -> bool:
                    return {name for name, _ in site.counted.sleeps} >= {"blobs", "objects"}

                await until(idle)
                await site.fall_due()

                async def gone_once_rung() -> bool:
                    await site.run("SELECT pg_notify($1, '')", collecting.CHANNEL)
                    return await empty(site)

                await until(gone_once_rung)

    asyncio.run(scenario())


def test_pause_when_it_ends_then_idle_crews_go_on_and_until_then_nothing_is_deleted(
    database: Target, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with open_site(database, tmp_path, **SLEEPY) as site:
            await site.registry.push_blob("a/b", b"unused")
            await site.fall_due()
            await site.database.write(
                lambda c: collecting.set_paused(c, is_paused=True, reason="a copy is made")
            )
            async with working(site.crew(bell=database)):

                async def looked() -> bool:
                    return any(batch.is_paused for batch in site.counted.of("blobs"))

                await until(looked)
                assert not await empty(site)
                await site.database.write(lambda c: collecting.set_paused(c, is_paused=False))

                async def removed() -> bool:
                    await site.run(
                        "SELECT pg_notify($1, '')", collecting.CHANNEL
                    )  # the tombstone comes after it
                    return await empty(site)

                await until(removed)

    asyncio.run(scenario())


def test_review_delay_when_given_then_it_is_what_later_suspicions_wait(
    database: Target, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with open_site(database, tmp_path, **SLEEPY) as site:
            async with working(site.crew(review_delay=timedelta(hours=2))):

                async def written() -> bool:
                    return await site.run("SELECT bool_and(value = '2 hours') FROM gc_review_after_defaults")

                await until(written)
            await site.registry.push_blob("a/b", b"new")
            assert await site.run(
                "SELECT review_after BETWEEN now() + interval '119 minutes' AND now() + interval '122 minutes'"
                " FROM gc_blob_review_queue"
            )

    asyncio.run(scenario())


def test_stop_when_a_crew_is_idle_then_it_ends_at_once(database: Target, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_site(database, tmp_path, **SLEEPY) as site, working(site.crew(bell=database)):

            async def idle() -> bool:
                return len(site.counted.sleeps) >= len(site.collectors)

            await until(idle)

    asyncio.run(scenario())


def test_upload_when_it_was_given_up_then_its_session_and_object_go_and_a_young_one_stays(
    database: Target, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with open_site(database, tmp_path, **EAGER) as site:
            sessions: list[str] = []
            for content in (b"given up", b"young"):
                opened = await site.registry.client.post("/v2/a/b/blobs/uploads/")
                sent = await site.registry.client.patch(opened.headers["Location"], content=content)
                assert sent.status_code == 202
                sessions.append(sent.headers["Location"])
            await site.run(
                "UPDATE blob_uploads SET updated_at = now() - interval '8 days' WHERE size = $1",
                len(b"given up"),
            )
            async with working(site.crew()):

                async def ended() -> bool:
                    return await site.run("SELECT count(*) FROM blob_uploads") == 1

                await until(ended)
                # Its object stays a day for a request that may still write to it.
                assert len([item async for item in site.registry.driver.list()]) == 2
                await site.fall_due()

                async def removed() -> bool:
                    return not await site.run("SELECT count(*) FROM gc_storage_deletions")

                await until(removed)
            assert (await site.registry.client.get(sessions[0])).status_code == 404
            assert (await site.registry.client.get(sessions[1])).status_code == 204
            assert [item.size async for item in site.registry.driver.list()] == [len(b"young")]
            await assert_invariants(database, site.registry.driver)
            await assert_fsck_clean(database, site.registry.driver)

    asyncio.run(scenario())
