"""One session and more than one request on it: two writers, writers that never come back, clients that leave.

Bytes of two requests never mix, whatever the order of things, and no object is ever without a row.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.http.support import (
    Conversation,
    another,
    close_upload,
    contents,
    open_upload,
    patch,
    pulled,
    refused,
    served,
    unnamed_objects,
)
from tests.support.registry import digest_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from app.store.engine import Target
    from tests.support.registry import Registry

MIB = 1024 * 1024


class Sluice:
    """A body that stops after its first part until it is let go; `open` tells that the first part was taken."""

    def __init__(self, first: bytes, rest: bytes) -> None:
        self.content = first + rest
        self._first, self._rest = first, rest
        self.open, self.let_go = asyncio.Event(), asyncio.Event()

    async def body(self) -> AsyncGenerator[bytes, None]:
        yield self._first
        self.open.set()
        async with asyncio.timeout(30):
            await self.let_go.wait()
        yield self._rest


@pytest.mark.parametrize("content_range", [None, (0, 2 * MIB - 1)])
@served()
async def test_patches_when_two_write_at_once_one_wins_and_the_other_gets_416(
    registry: Registry, content_range: tuple[int, int] | None
) -> None:
    location = await open_upload(registry, "a/b")
    headers = {} if content_range is None else {"Content-Range": "{}-{}".format(*content_range)}
    slow, quick = Sluice(b"s" * MIB, b"s" * MIB), Sluice(b"q" * MIB, b"q" * MIB)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(registry.client.patch(location, content=slow.body(), headers=headers))
        await slow.open.wait()
        second = group.create_task(registry.client.patch(location, content=quick.body(), headers=headers))
        await quick.open.wait()
        # Both are in the middle of their bodies now; the one that came later has the session.
        slow.let_go.set()
        await first
        quick.let_go.set()
    assert second.result().status_code == 202
    refused(first.result(), 416, "RANGE_INVALID")
    assert first.result().headers["Range"] == "0-0"
    content = b"q" * 2 * MIB
    assert (await close_upload(registry, location, digest_of(content))).status_code == 201
    assert await pulled(registry, "a/b", digest_of(content)) == content
    assert await unnamed_objects(registry) == []


@served()
async def test_patch_when_the_other_writer_is_done_first_gets_416_and_harms_nothing(
    registry: Registry,
) -> None:
    location = await open_upload(registry, "a/b")
    await patch(registry, location, b"begun, ")
    slow = Sluice(b"s" * MIB, b"s" * MIB)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(registry.client.patch(location, content=slow.body()))
        await slow.open.wait()
        assert (await patch(registry, location, b"continued", "7-15")).status_code == 202
        slow.let_go.set()
    refused(first.result(), 416, "RANGE_INVALID")
    assert first.result().headers["Range"] == "0-15"
    digest = digest_of(b"begun, continued")
    assert (await close_upload(registry, location, digest)).status_code == 201
    assert await pulled(registry, "a/b", digest) == b"begun, continued"


@served()
async def test_puts_when_two_finish_at_once_one_wins_and_the_other_gets_416(registry: Registry) -> None:
    location = await open_upload(registry, "a/b")
    slow, quick = Sluice(b"s" * MIB, b"s"), Sluice(b"q" * MIB, b"q")
    wanted = {sluice: f"{location}?digest={digest_of(sluice.content)}" for sluice in (slow, quick)}
    async with asyncio.TaskGroup() as group:
        first = group.create_task(registry.client.put(wanted[slow], content=slow.body()))
        await slow.open.wait()
        quick.let_go.set()
        second = group.create_task(registry.client.put(wanted[quick], content=quick.body()))
        await second
        slow.let_go.set()
    assert second.result().status_code == 201
    refused(first.result(), 416, "RANGE_INVALID")
    content = b"q" * MIB + b"q"
    assert await pulled(registry, "a/b", digest_of(content)) == content
    assert (await registry.client.head(f"/v2/a/b/blobs/{digest_of(b's' * MIB + b's')}")).status_code == 404
    assert await unnamed_objects(registry) == []


@served()
async def test_patch_when_cancelled_by_another_request_is_refused_and_the_session_stays_gone(
    registry: Registry,
) -> None:
    location = await open_upload(registry, "a/b")
    slow = Sluice(b"s" * MIB, b"s")
    async with asyncio.TaskGroup() as group:
        first = group.create_task(registry.client.patch(location, content=slow.body()))
        await slow.open.wait()
        assert (await registry.client.delete(location)).status_code == 204
        slow.let_go.set()
    refused(first.result(), 416, "RANGE_INVALID")
    refused(await registry.client.get(location), 404, "BLOB_UPLOAD_UNKNOWN")
    assert await unnamed_objects(registry) == []


@served()
async def test_writers_when_many_race_leave_exactly_one_of_their_bodies(registry: Registry) -> None:
    location = await open_upload(registry, "a/b")
    bodies = [bytes([letter]) * (MIB + letter) for letter in b"abcdef"]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(patch(registry, location, body)) for body in bodies]
    codes = sorted(task.result().status_code for task in tasks)
    assert set(codes) <= {202, 416}
    size = int((await registry.client.get(location)).headers["Range"].partition("-")[2]) + 1
    # Those who came one after another are both in; each body is whole, and none is inside another.
    kept = [body for task, body in zip(tasks, bodies, strict=True) if task.result().status_code == 202]
    assert size == sum(map(len, kept))
    row = (await registry.rows("SELECT storage_key, size FROM blob_uploads"))[0]
    stored = b"".join([block async for block in registry.driver.read(row["storage_key"], 0, row["size"])])
    assert len(stored) == size
    assert all(body in stored for body in kept)
    assert (await close_upload(registry, location, digest_of(stored))).status_code == 201


@pytest.mark.parametrize("written", [b"", b"kept "])
@pytest.mark.parametrize("closing", ["PATCH", "PUT"])
@served()
async def test_session_when_its_writer_died_is_continued_from_what_was_recorded(
    registry: Registry, database: Target, tmp_path: Path, written: bytes, closing: str
) -> None:
    """What `kill -9` leaves: the dead writer's mark on the row, and bytes in the object that nobody recorded."""
    location = await open_upload(registry, "a/b")
    await patch(registry, location, written)
    before = (await registry.rows("SELECT storage_key FROM blob_uploads"))[0]["storage_key"]
    await registry.rows("UPDATE blob_uploads SET writer = $1", uuid4())
    dead = registry.driver.append(before, len(written))
    await dead.write(b"never recorded")
    await dead.commit()
    async with another(database, tmp_path) as other:
        status = await other.client.get(location)
        assert (status.status_code, status.headers["Range"]) == (204, f"0-{max(0, len(written) - 1)}")
        content = written + b"continued"
        if closing == "PATCH":
            assert (await patch(other, location, b"continued")).status_code == 202
            answer = await close_upload(other, location, digest_of(content))
        else:
            answer = await close_upload(other, location, digest_of(content), b"continued")
        assert answer.status_code == 201
        assert await pulled(other, "a/b", digest_of(content)) == content
    # The dead writer may be only slow: what it writes now reaches an object that nobody reads.
    late = registry.driver.append(before, len(written))
    await late.write(b"LATE")
    await late.commit()
    assert await pulled(registry, "a/b", digest_of(content)) == content
    tombstones = await registry.rows("SELECT storage_key, reason FROM gc_storage_deletions")
    assert tombstones == [{"storage_key": before, "reason": "upload_taken_over"}]
    assert await unnamed_objects(registry) == []


@served()
async def test_session_when_its_writer_was_killed_in_the_middle_goes_on_at_another_process(
    registry: Registry, database: Target, tmp_path: Path
) -> None:
    location = await open_upload(registry, "a/b")
    await patch(registry, location, b"kept ")
    request = Conversation(registry, "PATCH", location)
    request.give(b"x" * 2 * MIB)
    await request.asked()
    await request.kill()
    async with another(database, tmp_path) as other:
        assert (await other.client.get(location)).headers["Range"] == "0-4"
        digest = digest_of(b"kept and more")
        assert (await close_upload(other, location, digest, b"and more", "5-12")).status_code == 201
    assert await pulled(registry, "a/b", digest) == b"kept and more"
    assert await unnamed_objects(registry) == []


@pytest.mark.parametrize("arrived", [b"", b"some bytes", b"0123456789abcdef" * (MIB // 8 + 1)])
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@served()
async def test_body_when_its_client_leaves_keeps_what_arrived_and_is_resumed(
    registry: Registry, arrived: bytes, method: str
) -> None:
    location = await open_upload(registry, "a/b")
    await patch(registry, location, b"before ")
    content = b"before " + arrived + b" after"
    request = Conversation(registry, method, f"{location}?digest={digest_of(content)}")
    request.give(arrived)
    request.leave()
    assert await request.answer() is None
    assert registry.seen.requests[-1]["status"] == 499
    size = len(b"before " + arrived)
    status = await registry.client.get(location)
    assert (status.status_code, status.headers["Range"]) == (204, f"0-{size - 1}")
    answer = await close_upload(
        registry, location, digest_of(content), b" after", f"{size}-{len(content) - 1}"
    )
    assert answer.status_code == 201
    assert await pulled(registry, "a/b", digest_of(content)) == content


@pytest.mark.parametrize("arrived", [b"", b"some bytes"])
@served()
async def test_single_post_when_its_client_leaves_leaves_nothing(registry: Registry, arrived: bytes) -> None:
    """Nobody was told of the session, so nobody can go on from it."""
    request = Conversation(
        registry, "POST", f"/v2/a/b/blobs/uploads/?digest={digest_of(b'some bytes, more')}"
    )
    request.give(arrived)
    request.leave()
    assert await request.answer() is None
    tables = await contents(registry)
    assert "blob_uploads" not in tables
    assert "blobs" not in tables
    assert await unnamed_objects(registry) == []


@served()
async def test_session_when_cancelled_while_a_dead_writer_holds_it_ends(registry: Registry) -> None:
    location = await open_upload(registry, "a/b")
    await registry.rows("UPDATE blob_uploads SET writer = $1", uuid4())
    assert (await registry.client.delete(location)).status_code == 204
    refused(await registry.client.get(location), 404, "BLOB_UPLOAD_UNKNOWN")


@pytest.mark.parametrize("state", [b"", b"\x00" * 106, b"\x01\x01garbage", None])
@served()
async def test_session_when_its_hash_state_cannot_be_used_is_hashed_again(
    registry: Registry, state: bytes | None
) -> None:
    """The state is a fixed layout, checked; whatever else is found there costs a second reading, no more."""
    location = await open_upload(registry, "a/b")
    await patch(registry, location, b"first ")
    await registry.rows("UPDATE blob_uploads SET hash_state = $1", state)
    digest = digest_of(b"first second")
    assert (await close_upload(registry, location, digest, b"second")).status_code == 201
    assert await pulled(registry, "a/b", digest) == b"first second"
