"""Upload sessions: flat in memory, continued by anybody, and usable after whatever went wrong."""

from __future__ import annotations

import asyncio
import json
import sys
import tracemalloc
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import pytest

from app.blobs import hashing
from app.blobs.driver import StorageUnavailable
from app.blobs.drivers.filesystem import Filesystem
from app.blobs.drivers.memory import Memory
from app.domain.digest import Algorithm, Digest
from app.domain.errors import BlobUploadUnknown, ClientGone, DigestInvalid, RangeInvalid, SizeInvalid
from app.domain.limits import BLOCK_BYTES
from app.services.push_blob import Chunk
from tests.services.support import CALLER, NAME, Faulty, body, chunk, content, run
from tests.support.invariants import assert_invariants
from tests.support.registry import open_registry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path
    from uuid import UUID

    from app.store.engine import Target
    from tests.support.registry import Registry

MIB: Final = 1024 * 1024
ONE, TWO, THREE = b"one" * 100_000, b"two" * 400_000, b"three" * 7
WHOLE = ONE + TWO + THREE
DIGEST = Digest.of(WHOLE)

each_algorithm = pytest.mark.parametrize("algorithm", list(Algorithm), ids=lambda one: one.label)


async def started(registry: Registry, algorithm: Algorithm = Algorithm.SHA256) -> UUID:
    return await registry.services.push_blob.start(NAME, algorithm, CALLER)


# Memory


def test_append_when_64_mib_pass_through_then_memory_stays_flat(database: Target, tmp_path: Path) -> None:
    async def stream() -> AsyncGenerator[bytes, None]:
        for n in range(64 * MIB // (64 * 1024)):
            yield bytes([n % 256]) * (64 * 1024)

    async def scenario(registry: Registry) -> None:
        push = registry.services.push_blob
        upload = await started(registry)
        await push.append(NAME, upload, chunk(b"warm"))
        tracemalloc.start()
        try:
            assert await push.append(NAME, upload, Chunk(stream())) == 64 * MIB + 4
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # One block is received, one is joined, one is stored and hashed.
        assert peak < 5 * BLOCK_BYTES, f"{peak / MIB:.1f} MiB"
        await push.cancel(NAME, upload)

    run(database, tmp_path, scenario)


# Continued by anybody


@each_algorithm
def test_session_when_another_process_goes_on_then_it_takes_up_the_hash_without_reading(
    database: Target, tmp_path: Path, algorithm: Algorithm
) -> None:
    if not hashing.is_resumable():
        pytest.skip("this machine has no libcrypto to resume hashes with")

    async def scenario(registry: Registry) -> None:
        driver = Faulty(Filesystem(tmp_path))
        async with open_registry(database, tmp_path, driver=driver) as other:
            upload = await started(registry, algorithm)
            assert await registry.services.push_blob.append(NAME, upload, chunk(ONE, start=0)) == len(ONE)
            size = len(ONE) + len(TWO)
            assert await other.services.push_blob.append(NAME, upload, chunk(TWO, start=len(ONE))) == size
            assert await registry.services.push_blob.size(NAME, upload) == size
            digest = Digest.of(WHOLE, algorithm)
            await other.services.push_blob.finish(NAME, upload, digest, chunk(THREE))
            assert driver.calls["read"] == driver.calls["copy"] == 0
            assert await content(registry, digest) == WHOLE

    run(database, tmp_path, scenario)


def test_session_when_it_is_finished_with_the_other_algorithm_then_its_bytes_are_read_again(
    database: Target, tmp_path: Path
) -> None:
    driver = Faulty(Filesystem(tmp_path))

    async def scenario(registry: Registry) -> None:
        upload = await started(registry)
        await registry.services.push_blob.append(NAME, upload, chunk(ONE, TWO))
        digest = Digest.of(WHOLE, Algorithm.SHA512)
        await registry.services.push_blob.finish(NAME, upload, digest, chunk(THREE))
        assert driver.calls["read"] == 1
        assert await content(registry, digest) == WHOLE

    run(database, tmp_path, scenario, driver)


@pytest.mark.parametrize("state", [None, b"", b"what another release wrote", b"\x01\x01" + b"\xff" * 104])
def test_session_when_its_hash_state_cannot_be_taken_up_then_its_bytes_are_read_again(
    database: Target, tmp_path: Path, state: bytes | None
) -> None:
    driver = Faulty(Filesystem(tmp_path))

    async def scenario(registry: Registry) -> None:
        upload = await started(registry)
        await registry.services.push_blob.append(NAME, upload, chunk(ONE, TWO))
        await registry.rows("UPDATE blob_uploads SET hash_state = $1", state)
        await registry.services.push_blob.finish(NAME, upload, DIGEST, chunk(THREE))
        assert driver.calls["read"] == 1
        assert await content(registry, DIGEST) == WHOLE

    run(database, tmp_path, scenario, driver)


# On a system other than Linux no libcrypto is tried, so that hashes have no state there.
ELSEWHERE: Final = """
import asyncio, json, sys
from uuid import UUID
from app.blobs import hashing
from app.blobs.drivers.filesystem import Filesystem
from app.runtime.threads import Threads
from app.services.push_blob import Chunk, PushBlob
from app.services.repository_ids import RepositoryIds
from app.store.engine import Database, Target

target, root, name, upload, content = json.loads(sys.argv[1])
sys.platform = "another"
assert not hashing.is_resumable()

async def body():
    yield content.encode()

async def main():
    database = await Database.open(Target(**target), connections_max=2)
    driver, hashers = Filesystem(root), Threads("hash", 1)
    push = PushBlob(database, driver, RepositoryIds(database), hashers)
    print(await push.append(name, UUID(upload), Chunk(body())))
    for part in (hashers, driver, database):
        await part.close()

asyncio.run(main())
"""


def test_session_when_a_machine_without_resumable_hashes_goes_on_then_both_it_and_its_successor_read_again(
    database: Target, tmp_path: Path
) -> None:
    driver = Faulty(Filesystem(tmp_path))
    middle = "in the middle" * 1000

    async def scenario(registry: Registry) -> None:
        upload = await started(registry)
        await registry.services.push_blob.append(NAME, upload, chunk(ONE))
        arguments = json.dumps([asdict(database), str(tmp_path), NAME, str(upload), middle])
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", ELSEWHERE, arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        stdout, stderr = await process.communicate()
        assert process.returncode == 0, stderr.decode()
        assert int(stdout) == len(ONE) + len(middle)
        assert (await registry.rows("SELECT hash_state FROM blob_uploads"))[0]["hash_state"] is None
        whole = ONE + middle.encode() + THREE
        await registry.services.push_blob.finish(NAME, upload, Digest.of(whole), chunk(THREE))
        assert driver.calls["read"] == 1
        assert await content(registry, Digest.of(whole)) == whole

    run(database, tmp_path, scenario, driver)


# Storage that fails


@pytest.mark.parametrize(
    "failing", [("write", 2), ("write", 3), ("commit", 2)], ids=lambda one: "-".join(map(str, one))
)
@pytest.mark.parametrize("memory", [False, True], ids=["filesystem", "memory"])
def test_append_when_storage_fails_in_the_middle_then_the_session_stands_where_it_stood_and_goes_on(
    database: Target, tmp_path: Path, failing: tuple[str, int], memory: bool
) -> None:
    driver = Faulty(Memory() if memory else Filesystem(tmp_path), failing)

    async def scenario(registry: Registry) -> None:
        push = registry.services.push_blob
        upload = await started(registry)
        assert await push.append(NAME, upload, chunk(ONE)) == len(ONE)
        with pytest.raises(StorageUnavailable):
            await push.append(NAME, upload, chunk(b"x" * BLOCK_BYTES, b"lost", start=len(ONE)))
        assert await push.size(NAME, upload) == len(ONE)
        assert await push.append(NAME, upload, chunk(TWO, start=len(ONE))) == len(ONE) + len(TWO)
        await push.finish(NAME, upload, DIGEST, chunk(THREE))
        assert await content(registry, DIGEST) == WHOLE

    run(database, tmp_path, scenario, driver)


@pytest.mark.parametrize("call", ["write", "commit"])
def test_append_when_storage_fails_at_the_very_first_chunk_then_it_can_be_sent_again(
    database: Target, tmp_path: Path, call: str
) -> None:
    driver = Faulty(Filesystem(tmp_path), (call, 1))

    async def scenario(registry: Registry) -> None:
        push = registry.services.push_blob
        upload = await started(registry)
        with pytest.raises(StorageUnavailable):
            await push.append(NAME, upload, chunk(WHOLE, start=0))
        assert await push.size(NAME, upload) == 0
        assert await push.append(NAME, upload, chunk(WHOLE, start=0)) == len(WHOLE)
        await push.finish(NAME, upload, DIGEST, chunk())
        assert await content(registry, DIGEST) == WHOLE

    run(database, tmp_path, scenario, driver)


@pytest.mark.parametrize("call", ["write", "commit", "read"])
def test_finish_when_storage_fails_then_it_can_be_sent_again(
    database: Target, tmp_path: Path, call: str
) -> None:
    driver = Faulty(Filesystem(tmp_path))

    async def scenario(registry: Registry) -> None:
        push = registry.services.push_blob
        upload = await started(registry)
        await push.append(NAME, upload, chunk(ONE, TWO))
        driver.fail_next(call)
        # The other algorithm, so that what is there is read.
        digest = Digest.of(WHOLE, Algorithm.SHA512)
        with pytest.raises(StorageUnavailable):
            await push.finish(NAME, upload, digest, chunk(THREE))
        assert await push.size(NAME, upload) == len(ONE) + len(TWO)
        await push.finish(NAME, upload, digest, chunk(THREE, start=len(ONE) + len(TWO)))
        assert await content(registry, digest) == WHOLE

    run(database, tmp_path, scenario, driver)


def test_take_over_when_its_copy_fails_then_the_session_can_still_be_taken_over(
    database: Target, tmp_path: Path
) -> None:
    driver = Faulty(Filesystem(tmp_path), ("copy", 1))

    async def scenario(registry: Registry) -> None:
        push = registry.services.push_blob
        upload = await started(registry)
        await push.append(NAME, upload, chunk(ONE))
        await registry.rows("UPDATE blob_uploads SET writer = gen_random_uuid()")  # a writer that died
        with pytest.raises(StorageUnavailable):
            await push.append(NAME, upload, chunk(TWO))
        assert await push.append(NAME, upload, chunk(TWO, start=len(ONE))) == len(ONE) + len(TWO)
        await push.finish(NAME, upload, DIGEST, chunk(THREE))
        assert driver.calls["copy"] == 2
        assert await content(registry, DIGEST) == WHOLE
        reasons = await registry.rows("SELECT reason FROM gc_storage_deletions")
        assert [row["reason"] for row in reasons] == ["upload_taken_over"] * 2

    run(database, tmp_path, scenario, driver)


@pytest.mark.parametrize("failing", [("write", 1), ("commit", 1)], ids=lambda one: one[0])
def test_whole_when_storage_fails_then_no_session_is_left_and_no_object_is_nameless(
    database: Target, tmp_path: Path, failing: tuple[str, int]
) -> None:
    driver = Faulty(Filesystem(tmp_path), failing)

    async def scenario(registry: Registry) -> None:
        push = registry.services.push_blob
        with pytest.raises(StorageUnavailable):
            await push.whole(NAME, DIGEST, chunk(WHOLE), CALLER)
        assert await registry.rows("SELECT id FROM blob_uploads") == []
        await push.whole(NAME, DIGEST, chunk(WHOLE), CALLER)
        assert await content(registry, DIGEST) == WHOLE

    run(database, tmp_path, scenario, driver)


# Clients that go away


def test_append_when_the_client_goes_away_then_what_arrived_is_kept(database: Target, tmp_path: Path) -> None:
    async def scenario(registry: Registry) -> None:
        push = registry.services.push_blob
        upload = await started(registry)
        with pytest.raises(ClientGone):
            await push.append(NAME, upload, chunk(ONE, TWO, then=ClientGone()))
        assert await push.size(NAME, upload) == len(ONE) + len(TWO)
        with pytest.raises(ClientGone):
            await push.append(NAME, upload, chunk(then=ClientGone()))
        assert await push.size(NAME, upload) == len(ONE) + len(TWO)
        await push.finish(NAME, upload, DIGEST, chunk(THREE, start=len(ONE) + len(TWO)))
        assert await content(registry, DIGEST) == WHOLE

    run(database, tmp_path, scenario)


def test_append_when_the_client_goes_away_before_its_first_byte_then_the_session_is_empty_and_usable(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(registry: Registry) -> None:
        push = registry.services.push_blob
        upload = await started(registry)
        with pytest.raises(ClientGone):
            await push.append(NAME, upload, chunk(then=ClientGone()))
        assert await push.size(NAME, upload) == 0
        await push.finish(NAME, upload, DIGEST, chunk(WHOLE))
        assert await content(registry, DIGEST) == WHOLE

    run(database, tmp_path, scenario)


def test_finish_when_the_client_goes_away_then_what_arrived_is_kept_and_it_is_no_blob(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(registry: Registry) -> None:
        push = registry.services.push_blob
        upload = await started(registry)
        await push.append(NAME, upload, chunk(ONE))
        with pytest.raises(ClientGone):
            await push.finish(NAME, upload, DIGEST, chunk(TWO, then=ClientGone()))
        assert await push.size(NAME, upload) == len(ONE) + len(TWO)
        assert await registry.rows("SELECT digest FROM blobs") == []
        await push.finish(NAME, upload, DIGEST, chunk(THREE))
        assert await content(registry, DIGEST) == WHOLE

    run(database, tmp_path, scenario)


def test_whole_when_the_client_goes_away_then_nothing_is_left_but_a_tombstone(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(registry: Registry) -> None:
        with pytest.raises(ClientGone):
            await registry.services.push_blob.whole(NAME, DIGEST, chunk(ONE, then=ClientGone()), CALLER)
        assert await registry.rows("SELECT id FROM blob_uploads") == []
        assert await registry.rows("SELECT digest FROM blobs") == []
        reasons = await registry.rows("SELECT reason FROM gc_storage_deletions")
        assert [row["reason"] for row in reasons] == ["upload_cancelled"]

    run(database, tmp_path, scenario)


@pytest.mark.parametrize("stated", [len(TWO) - 1, len(TWO) + 1])
def test_append_when_fewer_or_more_bytes_arrive_than_stated_then_none_is_kept(
    database: Target, tmp_path: Path, stated: int
) -> None:
    async def scenario(registry: Registry) -> None:
        push = registry.services.push_blob
        upload = await started(registry)
        await push.append(NAME, upload, chunk(ONE))
        with pytest.raises(SizeInvalid):
            await push.append(NAME, upload, Chunk(body(TWO), len(ONE), stated))
        assert await push.size(NAME, upload) == len(ONE)
        await push.append(NAME, upload, Chunk(body(TWO), len(ONE), len(TWO)))
        await push.finish(NAME, upload, DIGEST, chunk(THREE))
        assert await content(registry, DIGEST) == WHOLE

    run(database, tmp_path, scenario)


def test_finish_when_the_digest_is_wrong_then_the_session_is_over_and_its_object_a_tombstone(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(registry: Registry) -> None:
        push = registry.services.push_blob
        upload = await started(registry)
        with pytest.raises(DigestInvalid):
            await push.finish(NAME, upload, DIGEST, chunk(ONE))
        with pytest.raises(DigestInvalid):
            await push.whole(NAME, DIGEST, chunk(TWO), CALLER)
        with pytest.raises(BlobUploadUnknown):
            await push.size(NAME, upload)
        reasons = await registry.rows("SELECT reason FROM gc_storage_deletions")
        assert [row["reason"] for row in reasons] == ["upload_rejected"] * 2

    run(database, tmp_path, scenario)


# Two writers, and one that was stopped


class Paused:
    """A body that waits in its middle until it is let go."""

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before, self._after = before, after
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def stream(self) -> AsyncGenerator[bytes, None]:
        yield self._before
        self.reached.set()
        await self.go_on.wait()
        yield self._after


@pytest.mark.parametrize("size", [10, BLOCK_BYTES + 10], ids=["small", "large"])
def test_append_when_a_second_writer_overtakes_then_the_first_is_refused_and_no_bytes_mix(
    database: Target, tmp_path: Path, size: int
) -> None:
    async def scenario(registry: Registry) -> None:
        push = registry.services.push_blob
        upload = await started(registry)
        await push.append(NAME, upload, chunk(ONE))
        slow = Paused(b"s" * size, b"slow" * size)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(refused(registry, upload, Chunk(slow.stream(), len(ONE))))
            await slow.reached.wait()
            assert await push.append(NAME, upload, chunk(TWO, start=len(ONE))) == len(ONE) + len(TWO)
            slow.go_on.set()
            await first
        await push.finish(NAME, upload, DIGEST, chunk(THREE, start=len(ONE) + len(TWO)))
        assert await content(registry, DIGEST) == WHOLE

    run(database, tmp_path, scenario)


async def refused(registry: Registry, upload: UUID, one: Chunk) -> None:
    with pytest.raises(RangeInvalid, match="another request"):
        await registry.services.push_blob.append(NAME, upload, one)


def test_append_when_the_second_writer_finishes_then_the_first_cannot_touch_the_blob(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(registry: Registry) -> None:
        push = registry.services.push_blob
        upload = await started(registry)
        slow = Paused(b"s" * BLOCK_BYTES * 2, b"slow" * BLOCK_BYTES)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(refused(registry, upload, Chunk(slow.stream())))
            await slow.reached.wait()
            await push.finish(NAME, upload, DIGEST, chunk(WHOLE, start=0))
            slow.go_on.set()
            await first
        assert await content(registry, DIGEST) == WHOLE

    run(database, tmp_path, scenario)


def test_append_when_its_task_is_cancelled_then_the_next_request_goes_on_from_the_last_saved_byte(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(registry: Registry) -> None:
        push = registry.services.push_blob
        upload = await started(registry)
        await push.append(NAME, upload, chunk(ONE))
        slow = Paused(b"s" * BLOCK_BYTES * 3, b"")
        stopped = asyncio.ensure_future(push.append(NAME, upload, Chunk(slow.stream())))
        await slow.reached.wait()
        stopped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopped
        assert await push.size(NAME, upload) == len(ONE)
        await push.append(NAME, upload, chunk(TWO, start=len(ONE)))
        await push.finish(NAME, upload, DIGEST, chunk(THREE))
        assert await content(registry, DIGEST) == WHOLE

    run(database, tmp_path, scenario)


def test_whole_when_one_blob_is_pushed_by_many_at_once_then_it_is_stored_once_and_all_succeed(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(registry: Registry) -> None:
        push = registry.services.push_blob
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(push.whole(NAME, DIGEST, chunk(WHOLE), CALLER))
        assert len(await registry.rows("SELECT digest FROM blobs")) == 1
        reasons = await registry.rows("SELECT reason FROM gc_storage_deletions")
        assert [row["reason"] for row in reasons] == ["upload_duplicate"] * 7
        assert await content(registry, DIGEST) == WHOLE

    run(database, tmp_path, scenario)


def test_invariants_when_a_blobs_object_is_lost_or_nobodys_then_they_are_found_broken(
    database: Target, tmp_path: Path
) -> None:
    """The checker itself."""

    async def scenario(registry: Registry) -> None:
        await registry.push_image("a/b", "latest")
        rows = await registry.rows("SELECT storage_key FROM blobs")
        await assert_invariants(database, registry.driver)
        nobodys = registry.driver.append("objects/00/" + "0" * 32, 0)
        await nobodys.commit()
        with pytest.raises(AssertionError, match="no row names"):
            await assert_invariants(database, registry.driver)
        await registry.driver.delete(["objects/00/" + "0" * 32])
        await registry.driver.delete([rows[0]["storage_key"]])
        with pytest.raises(AssertionError, match="damaged"):
            await assert_invariants(database, registry.driver)
        await registry.rows(
            "INSERT INTO gc_storage_deletions (storage_key, reason, not_before) VALUES ($1, 'blob_unused', now())",
            rows[0]["storage_key"],
        )
        with pytest.raises(AssertionError, match="more than one row"):
            await assert_invariants(database)
        await registry.rows("DELETE FROM gc_storage_deletions")
        await registry.rows("DELETE FROM tags")
        with pytest.raises(AssertionError, match="catalog"):
            await assert_invariants(database)
        await registry.rows("UPDATE repositories SET has_tags = false")
        await registry.rows(
            "UPDATE blobs SET storage_key = NULL WHERE storage_key = $1", rows[0]["storage_key"]
        )

    run(database, tmp_path, scenario)
