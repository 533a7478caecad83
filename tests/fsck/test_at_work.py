"""A check of a registry that is at work: pushes, deletes and collectors give no finding, damage does all the same."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest

from app.blobs.drivers.filesystem import Filesystem
from app.blobs.keys import new_key
from app.services.fsck import Kind
from app.services.fsck import verdicts as judging
from app.store import collecting
from tests.services.support import Faulty
from tests.support.effort import EFFORT
from tests.support.fsck import assert_fsck_clean, run_fsck
from tests.support.invariants import assert_invariants
from tests.support.postgres import connected
from tests.support.registry import image, index, open_registry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
    from pathlib import Path

    import httpx

    from app.blobs.driver import DeleteFailure, Driver, StoredObject
    from app.store.engine import Database, Target
    from tests.support.registry import Registry

SECONDS: Final = 3.0 * EFFORT
NOW: Final = timedelta(0)


async def hurry(target: Target, milliseconds: int = 0) -> None:
    """Have reviews fall due after this."""
    async with connected(target) as connection:
        await connection.execute(
            "UPDATE gc_review_after_defaults SET value = $1", timedelta(milliseconds=milliseconds)
        )


class Collectors:
    """Every collector, once per call, until nothing is left to do."""

    def __init__(self, database: Database, driver: Driver) -> None:
        self._database = database
        self._driver = driver
        self.deleted = 0

    async def once(self) -> None:
        write = self._database.write
        await write(lambda c: collecting.collect_manifests(c, 50, None, keep_untagged=False))
        blobs = await write(lambda c: collecting.collect_blobs(c, 50, None, NOW))
        await write(lambda c: collecting.expire_uploads(c, 5, timedelta(seconds=0.2), NOW))
        taken = await write(lambda c: collecting.take_tombstones(c, 50, timedelta(minutes=1)))
        keys = [one.storage_key for one in taken]
        assert not await self._driver.delete(keys)
        await write(lambda c: collecting.settle_tombstones(c, keys))
        self.deleted += blobs.deleted if blobs else 0


class Client:
    """Pushes images that share layers, moves and deletes tags, abandons uploads."""

    def __init__(self, registry: Registry, number: int) -> None:
        self._registry = registry
        self._chance = random.Random(number)
        self._name = f"team/app-{number % 2}"
        self.pushed = 0

    async def once(self) -> None:
        choose = self._chance.choice
        await choose((self._push, self._push, self._push_index, self._delete, self._abandon))()

    def _image(self) -> bytes:
        return f"layer {self._chance.randrange(30)}".encode() * 100

    async def _push(self) -> None:
        pushed = image(self._image(), self._image())
        for blob in dict.fromkeys(pushed.blobs):
            await self._registry.push_blob(self._name, blob)
        answer = await self._registry.put_manifest(self._name, f"v{self._chance.randrange(5)}", pushed)
        self.pushed += self._is_pushed(answer)

    async def _push_index(self) -> None:
        child = image(self._image())
        for blob in child.blobs:
            await self._registry.push_blob(self._name, blob)
        await self._registry.put_manifest(self._name, child.digest(), child)
        self._is_pushed(
            await self._registry.put_manifest(self._name, f"i{self._chance.randrange(3)}", index(child))
        )

    def _is_pushed(self, answer: httpx.Response) -> bool:
        """With hardly any delay a collector may take a blob before the manifest comes."""
        assert answer.status_code == 201 or "MANIFEST_BLOB_UNKNOWN" in answer.text, answer.text
        return answer.status_code == 201

    async def _delete(self) -> None:
        tag = f"{self._chance.choice('vi')}{self._chance.randrange(5)}"
        await self._registry.client.delete(f"/v2/{self._name}/manifests/{tag}")

    async def _abandon(self) -> None:
        answer = await self._registry.client.post(f"/v2/{self._name}/blobs/uploads/")
        await self._registry.client.patch(answer.headers["Location"], content=self._image())


async def again_and_again(stop: asyncio.Event, *works: Callable[[], Awaitable[None]]) -> None:
    while not stop.is_set():
        for work in works:
            await work()
            await asyncio.sleep(0)


def test_fsck_when_the_registry_is_at_work_then_it_finds_nothing_and_all_the_damage_there_is(
    database: Target, tmp_path: Path
) -> None:
    async def scenario() -> None:
        await hurry(database, 50)
        async with asyncio.timeout(60 + SECONDS), open_registry(database, tmp_path) as registry:
            lasting = await registry.push_image("team/lasting", "v1", image(b"stays", config=b"{ }"))
            assert lasting.blobs
            collectors = Collectors(registry.database, registry.driver)
            clients = [Client(registry, number) for number in range(4)]
            stop, runs, suspicions = asyncio.Event(), 0, 0
            async with asyncio.TaskGroup() as group:
                for client in clients:
                    group.create_task(again_and_again(stop, client.once))
                group.create_task(again_and_again(stop, collectors.once))
                try:
                    end = asyncio.get_running_loop().time() + SECONDS
                    while asyncio.get_running_loop().time() < end:
                        # Slowly, so that the storage is another one at the listing's end than at its beginning.
                        summary = await assert_fsck_clean(database, Slow(registry.driver), share=0.3)
                        runs, suspicions = runs + 1, suspicions + summary.suspicions
                    orphan = new_key()
                    writer = registry.driver.append(orphan, 0)
                    await writer.write(b"nobody's")
                    await writer.commit()
                    rows = await registry.rows("SELECT storage_key FROM blobs WHERE size = 5")
                    (tmp_path / rows[0]["storage_key"]).unlink()
                    result = await run_fsck(database, Slow(registry.driver))
                    assert result.kinds == ["blob_lost", "lost", "orphan"]
                    assert result.one(Kind.ORPHAN).key == orphan
                finally:
                    stop.set()
            await registry.push_blob("team/lasting", b"stays")
            await registry.driver.delete([orphan, rows[0]["storage_key"]])
            assert runs > 1
            assert min(client.pushed for client in clients) > 0
            assert collectors.deleted > 0
            # The test has tested something: there was what could have been taken for damage.
            assert suspicions > 0

    asyncio.run(scenario())


class Slow(Faulty):
    """A storage whose listing takes a while, as that of millions of objects does."""

    async def list(self) -> AsyncGenerator[StoredObject, None]:
        async with aclosing(super().list()) as objects:
            number = 0
            async for found in objects:
                number += 1
                if number % 5 == 0:
                    await asyncio.sleep(0.01)
                yield found


# One change at a time, at the worst moment: while the storage is listed, and while a suspicion is looked at again


class Interrupted(Faulty):
    """Runs `work` before the storage is listed, or before the object's size is looked at."""

    def __init__(self, driver: Driver, at: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        super().__init__(driver)
        self._at = at
        self._work: Callable[[], Coroutine[None, None, None]] | None = work
        self.looks = 0

    async def _run(self, at: str) -> None:
        work = self._work
        if at == self._at and work is not None:
            self._work = None
            await work()

    async def list(self) -> AsyncGenerator[StoredObject, None]:
        await self._run("list")
        async with aclosing(super().list()) as objects:
            async for found in objects:
                yield found
        await self._run("listed")

    async def size(self, key: str) -> int:
        self.looks += 1
        await self._run("size")
        return await super().size(key)

    async def delete(self, keys: Sequence[str]) -> Sequence[DeleteFailure]:
        return await self._driver.delete(keys)


async def push(registry: Registry) -> None:
    await registry.push_image("team/new", "latest", image(b"of a new image", config=b"{new}"))


async def start_upload(registry: Registry) -> None:
    answer = await registry.client.post("/v2/team/new/blobs/uploads/")
    await registry.client.patch(answer.headers["Location"], content=b"some bytes")


async def collect(registry: Registry) -> None:
    """The tagged image goes, and its objects with it."""
    await registry.client.delete("/v2/team/old/manifests/latest")
    collectors = Collectors(registry.database, registry.driver)
    for _ in range(3):
        await collectors.once()


@pytest.mark.parametrize("work", [push, start_upload, collect], ids=lambda work: work.__name__)
def test_fsck_when_something_happens_between_rows_and_objects_then_it_is_a_suspicion_and_no_finding(
    database: Target, tmp_path: Path, work: Callable[[Registry], Coroutine[None, None, None]]
) -> None:
    async def scenario() -> None:
        await hurry(database)
        async with open_registry(database, tmp_path) as registry:
            await registry.push_image("team/old", "latest", image(b"of an old image", config=b"{old}"))
            driver = Interrupted(registry.driver, "list", lambda: work(registry))
            summary = await assert_fsck_clean(database, driver)
            assert summary.suspicions > 0
            await assert_invariants(database, registry.driver)

    asyncio.run(scenario())


def test_lost_when_the_blob_is_collected_between_the_two_looks_then_it_is_no_finding(
    database: Target, tmp_path: Path
) -> None:
    """The blob's row was there before the object was looked for: only the look after it tells the truth."""

    async def scenario() -> None:
        await hurry(database)
        async with open_registry(database, tmp_path) as registry:
            await registry.push_image("team/old", "latest", image(b"of an old image", config=b"{old}"))
            keys = {row["storage_key"] for row in await registry.rows("SELECT storage_key FROM blobs")}
            driver = Unseen(Interrupted(registry.driver, "size", lambda: collect(registry)), keys)
            summary = await assert_fsck_clean(database, driver)
            assert summary.suspicions == len(keys)
            assert driver.looks > 0

    asyncio.run(scenario())


class Unseen(Faulty):
    """A listing without some of the objects, as one may be that was under way when they came."""

    def __init__(self, driver: Interrupted, keys: set[str]) -> None:
        super().__init__(driver)
        self._keys = keys
        self._inner = driver

    @property
    def looks(self) -> int:
        return self._inner.looks

    async def list(self) -> AsyncGenerator[StoredObject, None]:
        async with aclosing(super().list()) as objects:
            async for found in objects:
                if found.key not in self._keys:
                    yield found


def test_upload_damaged_when_the_session_ends_between_the_looks_then_it_is_no_finding(
    database: Target, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with open_registry(database, tmp_path) as registry:
            await start_upload(registry)
            row = (await registry.rows("SELECT id, storage_key FROM blob_uploads"))[0]

            async def cancel() -> None:
                answer = await registry.client.delete(f"/v2/team/new/blobs/uploads/{row['id']}")
                assert answer.status_code == 204
                await registry.driver.delete([row["storage_key"]])

            driver = Unseen(Interrupted(registry.driver, "size", cancel), {row["storage_key"]})
            assert (await assert_fsck_clean(database, driver)).suspicions == 1
            assert driver.looks == 1

    asyncio.run(scenario())


def test_repair_when_the_blob_is_pushed_again_meanwhile_then_the_new_object_stays(
    database: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two repairs race: the other one's mark and a push come between our look and our own mark."""

    async def scenario() -> None:
        async with open_registry(database, tmp_path) as registry:
            await registry.push_image("team/old", "latest", image(b"layer", config=b"{of an old image}"))
            rows = await registry.rows("SELECT storage_key FROM blobs WHERE size = 5")
            (tmp_path / rows[0]["storage_key"]).unlink()
            mark = judging.Verdicts._mark

            async def late(self: judging.Verdicts, damages: object) -> object:
                async with connected(database) as connection:
                    await connection.execute("UPDATE blobs SET storage_key = NULL WHERE size = 5")
                await registry.push_blob("team/old", b"layer")
                return await mark(self, damages)  # type: ignore[arg-type]

            monkeypatch.setattr(judging.Verdicts, "_mark", late)
            result = await run_fsck(database, registry.driver, repair=True)
            assert not result.one(Kind.LOST).is_repaired
            await assert_fsck_clean(database, registry.driver, share=1.0)

    asyncio.run(scenario())


def test_repair_when_the_collectors_carry_it_out_then_nothing_of_the_damage_is_left(
    database: Target, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with open_registry(database, tmp_path) as registry:
            pushed = await registry.push_image(
                "team/old", "latest", image(b"layer", config=b"{of an old image}")
            )
            damaged = (await registry.rows("SELECT storage_key FROM blobs WHERE size = 5"))[0]["storage_key"]
            (tmp_path / damaged).write_bytes(b"other bytes")
            orphan = new_key()
            (tmp_path / orphan).parent.mkdir(exist_ok=True)
            (tmp_path / orphan).write_bytes(b"nobody's")
            await run_fsck(database, registry.driver, repair=True)
            await registry.push_image("team/old", "latest", pushed)
            async with connected(database) as connection:
                await connection.execute("UPDATE gc_storage_deletions SET not_before = now()")
            await Collectors(registry.database, registry.driver).once()
            assert not (tmp_path / damaged).exists()
            assert not (tmp_path / orphan).exists()
            await assert_fsck_clean(database, registry.driver, share=1.0)
            await assert_invariants(database, registry.driver)

    asyncio.run(scenario())


# Cancelled


@pytest.mark.parametrize("moment", ["list", "listed", "size"])
def test_fsck_when_it_is_cancelled_then_it_leaves_no_transaction_and_no_connection(
    database: Target, tmp_path: Path, moment: str
) -> None:
    async def scenario() -> None:
        async with open_registry(database, tmp_path) as registry:
            await registry.push_image("team/old", "latest", image(b"layer", config=b"{of an old image}"))
            rows = await registry.rows("SELECT storage_key FROM blobs")
            (tmp_path / rows[0]["storage_key"]).unlink()
            reached = asyncio.Event()

            async def wait() -> None:
                reached.set()
                await asyncio.sleep(60)

            async with connected(database) as connection:
                before = await connection.fetchval(OTHERS)
                run = asyncio.ensure_future(
                    run_fsck(database, Interrupted(registry.driver, moment, wait), repair=moment == "x")
                )
                await asyncio.wait_for(reached.wait(), 20)
                assert await connection.fetchval(OTHERS) > before
                run.cancel()
                with suppress(asyncio.CancelledError):
                    await run
                async with asyncio.timeout(20):
                    while await connection.fetchval(OTHERS) > before:
                        await asyncio.sleep(0.02)

    asyncio.run(scenario())


OTHERS: Final = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


def test_rows_when_a_registry_writes_on_then_they_are_all_of_one_moment(
    database: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.store import census  # noqa: PLC0415

    monkeypatch.setattr(census, "ROWS_PER_FETCH", 3)

    async def scenario() -> None:
        async with open_registry(database, tmp_path) as registry:
            await registry.push_image("team/old", "latest", image(*(b"%d" % n for n in range(20))))
            before = await registry.rows('SELECT storage_key FROM blobs ORDER BY storage_key COLLATE "C"')
            async with census.named_rows(database) as pages:
                found = await anext(pages)
                await push(registry)
                async with connected(database) as connection:
                    await connection.execute("DELETE FROM repository_blobs")
                found += [row async for page in pages for row in page]
            assert [row[0] for row in found] == [row["storage_key"] for row in before]
            assert await Filesystem(tmp_path).size(found[0][0]) == found[0][2]

    asyncio.run(scenario())
