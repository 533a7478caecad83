"""What every storage driver does, whatever stands behind it. A new driver adds its settings to SETTINGS."""

from __future__ import annotations

import asyncio
import inspect
import tempfile
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.blobs.driver import (
    DELETE_KEYS_MAX,
    Driver,
    KeyInvalid,
    ObjectExists,
    ObjectMissing,
    ObjectTooShort,
    StorageError,
)
from app.blobs.drivers import DRIVERS, open_driver
from app.blobs.keys import new_key
from app.domain.limits import BLOCK_BYTES
from tests.blobs.support import get, listed, put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SETTINGS: Mapping[str, Callable[[Path], Mapping[str, object]]] = {
    "filesystem": lambda directory: {"rootdirectory": str(directory), "maxthreads": 4},
    "inmemory": lambda directory: {},
}
LARGE = bytes(range(256)) * (BLOCK_BYTES // 256 * 3) + b"and a bit"
WRONG_KEYS = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/../b",
    "a/./b",
    "a\0b",
    "a\nb",
    "a\\b",
    "\ud800",
]


@pytest.fixture(params=sorted(DRIVERS))
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driver]:
    opened = open_driver(request.param, SETTINGS[request.param](tmp_path))
    yield opened
    asyncio.run(opened.close())


def test_driver_protocol_has_at_most_nine_methods() -> None:
    methods = [name for name, _ in inspect.getmembers(Driver, inspect.isfunction) if not name.startswith("_")]
    assert len(methods) <= 9, methods


def test_drivers_each_run_this_suite() -> None:
    assert SETTINGS.keys() == DRIVERS.keys()


def test_open_driver_when_the_name_is_unknown_then_the_known_ones_are_named() -> None:
    with pytest.raises(ValueError, match=r"no storage driver 'tape': use one of filesystem, inmemory"):
        open_driver("tape", {})


@pytest.mark.parametrize("name", sorted(DRIVERS))
def test_open_driver_when_a_setting_is_unknown_then_it_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=rf"storage\.{name} has no settings?.* colour"):
        open_driver(name, {"colour": "red"})


def test_commit_when_blocks_were_written_then_the_object_is_their_sum(driver: Driver) -> None:
    async def scenario() -> None:
        key = new_key()
        await put(driver, key, b"one ", b"", b"two")
        assert await driver.size(key) == 7
        assert await get(driver, key) == b"one two"

    asyncio.run(scenario())


def test_commit_when_nothing_was_written_then_the_object_is_empty(driver: Driver) -> None:
    async def scenario() -> None:
        key = new_key()
        await put(driver, key)
        assert await driver.size(key) == 0
        assert await get(driver, key) == b""
        assert [(found.key, found.size) for found in await listed(driver)] == [(key, 0)]

    asyncio.run(scenario())


def test_append_when_no_call_was_made_then_no_object_exists(driver: Driver) -> None:
    async def scenario() -> None:
        await driver.append(new_key(), 0).abort()
        assert await listed(driver) == []

    asyncio.run(scenario())


def test_append_when_a_session_goes_on_then_the_bytes_follow(driver: Driver) -> None:
    async def scenario() -> None:
        key = new_key()
        await put(driver, key, b"first")
        await put(driver, key, b" second", offset=5)
        await put(driver, key, offset=12)
        assert await get(driver, key) == b"first second"

    asyncio.run(scenario())


@pytest.mark.parametrize(("offset", "expected"), [(0, b"new"), (3, b"oldnew"), (9, b"old-newernew")])
def test_append_when_bytes_lie_behind_the_offset_then_they_are_cut_off(
    driver: Driver, offset: int, expected: bytes
) -> None:
    async def scenario() -> None:
        key = new_key()
        await put(driver, key, b"old-newer, and left by a crash")
        await put(driver, key, b"new", offset=offset)
        assert await get(driver, key) == expected

    asyncio.run(scenario())


def test_append_when_nothing_is_written_behind_the_offset_then_the_rest_is_cut_off(driver: Driver) -> None:
    async def scenario() -> None:
        key = new_key()
        await put(driver, key, b"kept and left by a crash")
        await put(driver, key, offset=4)
        assert await get(driver, key) == b"kept"

    asyncio.run(scenario())


@pytest.mark.parametrize("first", ["write", "commit"])
def test_append_when_the_object_is_missing_then_the_first_call_says_so(driver: Driver, first: str) -> None:
    async def scenario() -> None:
        key = new_key()
        writer = driver.append(key, 1)
        with pytest.raises(ObjectMissing):
            await (writer.write(b"x") if first == "write" else writer.commit())
        await writer.abort()
        assert await listed(driver) == []

    asyncio.run(scenario())


def test_append_when_the_object_is_too_short_then_it_is_left_as_it_is(driver: Driver) -> None:
    async def scenario() -> None:
        key = new_key()
        await put(driver, key, b"four")
        with pytest.raises(ObjectTooShort) as refused:
            await put(driver, key, b"x", offset=5)
        assert (refused.value.held_bytes, refused.value.wanted_bytes) == (4, 5)
        assert await get(driver, key) == b"four"

    asyncio.run(scenario())


def test_write_when_the_writer_ended_then_it_is_refused(driver: Driver) -> None:
    async def scenario() -> None:
        committed, aborted, failed = (driver.append(new_key(), offset) for offset in (0, 0, 1))
        await committed.commit()
        await aborted.abort()
        with pytest.raises(ObjectMissing):
            await failed.write(b"x")
        for writer in (committed, aborted, failed):
            with pytest.raises(StorageError, match="writer is closed"):
                await writer.write(b"x")
            with pytest.raises(StorageError, match="writer is closed"):
                await writer.commit()
            await writer.abort()

    asyncio.run(scenario())


def test_abort_when_a_session_goes_on_later_then_only_committed_bytes_are_needed(driver: Driver) -> None:
    async def scenario() -> None:
        key = new_key()
        await put(driver, key, b"kept ")
        writer = driver.append(key, 5)
        await writer.write(b"lost, as the client went away")
        await writer.abort()
        await put(driver, key, b"and more", offset=5)
        assert await get(driver, key) == b"kept and more"

    asyncio.run(scenario())


def test_append_when_two_keys_are_written_at_once_then_bytes_do_not_mix(driver: Driver) -> None:
    async def scenario() -> None:
        keys = [new_key() for _ in range(6)]
        async with asyncio.TaskGroup() as group:
            for number, key in enumerate(keys):
                group.create_task(put(driver, key, *[bytes([number]) * 1000] * 20))
        for number, key in enumerate(keys):
            assert await get(driver, key) == bytes([number]) * 20_000

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (0, len(LARGE)),
        (0, 0),
        (5, 5),
        (len(LARGE), len(LARGE)),
        (0, 1),
        (len(LARGE) - 1, len(LARGE)),
        (0, BLOCK_BYTES),
        (1, BLOCK_BYTES + 1),
        (1, BLOCK_BYTES + 2),
        (7, 2 * BLOCK_BYTES + 7),
        (BLOCK_BYTES - 1, 3 * BLOCK_BYTES + 1),
    ],
)
def test_read_when_a_range_is_asked_for_then_exactly_it_comes_in_bounded_blocks(
    driver: Driver, start: int, stop: int
) -> None:
    async def scenario() -> None:
        key = new_key()
        await put(driver, key, LARGE)
        async with aclosing(driver.read(key, start, stop)) as blocks:
            read = [block async for block in blocks]
        assert b"".join(read) == LARGE[start:stop]
        assert all(0 < len(block) <= BLOCK_BYTES for block in read)

    asyncio.run(scenario())


@pytest.mark.parametrize("stop", [0, 1, 3 * BLOCK_BYTES])
def test_read_when_the_object_is_missing_then_the_first_step_says_so(driver: Driver, stop: int) -> None:
    async def scenario() -> None:
        blocks = driver.read(new_key(), 0, stop)
        with pytest.raises(ObjectMissing):
            await anext(blocks)

    asyncio.run(scenario())


@pytest.mark.parametrize("stop", [5, BLOCK_BYTES, 3 * BLOCK_BYTES])
def test_read_when_the_object_is_too_short_then_no_byte_comes(driver: Driver, stop: int) -> None:
    async def scenario() -> None:
        key = new_key()
        await put(driver, key, b"four")
        blocks = driver.read(key, 0, stop)
        with pytest.raises(ObjectTooShort, match=f"has 4 bytes where {stop} are needed"):
            await anext(blocks)

    asyncio.run(scenario())


def test_read_when_the_consumer_stops_early_then_the_object_can_be_read_again(driver: Driver) -> None:
    async def scenario() -> None:
        key = new_key()
        await put(driver, key, LARGE)
        async with aclosing(driver.read(key, 0, len(LARGE))) as blocks:
            assert await anext(blocks) == LARGE[:BLOCK_BYTES]
        assert await get(driver, key) == LARGE

    asyncio.run(scenario())


@pytest.mark.parametrize(("start", "stop"), [(-1, 1), (2, 1)])
def test_read_when_the_range_is_none_then_it_is_refused(driver: Driver, start: int, stop: int) -> None:
    async def scenario() -> None:
        key = new_key()
        await put(driver, key, b"four")
        with pytest.raises(ValueError, match="a range"):
            await anext(driver.read(key, start, stop))

    asyncio.run(scenario())


def test_append_when_the_offset_is_negative_then_it_is_refused(driver: Driver) -> None:
    with pytest.raises(ValueError, match="an offset"):
        driver.append(new_key(), -1)


def test_size_when_the_object_is_missing_then_it_says_so(driver: Driver) -> None:
    async def scenario() -> None:
        with pytest.raises(ObjectMissing):
            await driver.size(new_key())

    asyncio.run(scenario())


@pytest.mark.parametrize("length", [0, 1, BLOCK_BYTES + 1, len(LARGE)])
def test_copy_when_a_length_is_given_then_the_target_has_those_bytes_and_lives_alone(
    driver: Driver, length: int
) -> None:
    async def scenario() -> None:
        source, target = new_key(), new_key()
        await put(driver, source, LARGE)
        await driver.copy(source, target, length)
        await put(driver, source, b"changed")
        assert await get(driver, target) == LARGE[:length]

    asyncio.run(scenario())


def test_copy_when_the_source_is_missing_or_short_then_no_target_is_left(driver: Driver) -> None:
    async def scenario() -> None:
        source = new_key()
        with pytest.raises(ObjectMissing):
            await driver.copy(source, new_key(), 0)
        await put(driver, source, b"four")
        with pytest.raises(ObjectTooShort):
            await driver.copy(source, new_key(), 5)
        assert [found.key for found in await listed(driver)] == [source]

    asyncio.run(scenario())


def test_copy_when_the_target_exists_then_it_is_refused_and_kept(driver: Driver) -> None:
    async def scenario() -> None:
        source, target = new_key(), new_key()
        await put(driver, source, b"source")
        await put(driver, target, b"target")
        with pytest.raises(ObjectExists):
            await driver.copy(source, target, 6)
        with pytest.raises(ObjectExists):
            await driver.copy(source, source, 6)
        assert await get(driver, target) == b"target"
        assert await get(driver, source) == b"source"

    asyncio.run(scenario())


def test_delete_when_some_are_missing_then_all_count_as_done(driver: Driver) -> None:
    async def scenario() -> None:
        kept, gone = new_key(), new_key()
        await put(driver, kept, b"kept")
        await put(driver, gone, b"gone")
        assert await driver.delete([gone, new_key(), "docker/registry/v2/none", gone]) == []
        assert await driver.delete([gone]) == []
        assert await driver.delete([]) == []
        assert [found.key for found in await listed(driver)] == [kept]
        with pytest.raises(ObjectMissing):
            await driver.size(gone)

    asyncio.run(scenario())


def test_delete_when_one_fails_then_the_others_are_deleted(driver: Driver) -> None:
    async def scenario() -> None:
        first, last = new_key(), new_key()
        await put(driver, first, b"x")
        await put(driver, last, b"x")
        failures = await driver.delete([first, "../outside", last])
        assert [(failure.key, type(failure.error)) for failure in failures] == [("../outside", KeyInvalid)]
        assert await listed(driver) == []

    asyncio.run(scenario())


def test_delete_when_a_batch_is_full_then_it_goes_and_a_larger_one_is_refused(driver: Driver) -> None:
    async def scenario() -> None:
        assert await driver.delete([new_key() for _ in range(DELETE_KEYS_MAX)]) == []
        with pytest.raises(ValueError, match="at most 1000 keys"):
            await driver.delete([new_key() for _ in range(DELETE_KEYS_MAX + 1)])

    asyncio.run(scenario())


def test_list_when_keys_of_all_trees_are_there_then_they_come_in_byte_order_with_size_and_time(
    driver: Driver,
) -> None:
    async def scenario() -> None:
        before = datetime.now(UTC) - timedelta(seconds=2)
        imported = "docker/registry/v2/blobs/sha256/ab/" + "ab" * 32 + "/data"
        keys = [new_key(), new_key(), imported, "a/z", "a-b/x", "a.txt", "ä/b", "\U0001f40b", "\uffee"]
        for length, key in enumerate(keys):
            await put(driver, key, b"x" * length)
        found = await listed(driver)
        assert [(one.key, one.size) for one in found] == sorted(
            [(key, length) for length, key in enumerate(keys)], key=lambda pair: pair[0].encode()
        )
        assert all(before <= one.modified <= datetime.now(UTC) + timedelta(seconds=2) for one in found)

    asyncio.run(scenario())


def test_list_when_an_object_goes_meanwhile_then_the_rest_comes(driver: Driver) -> None:
    async def scenario() -> None:
        keys = sorted(new_key() for _ in range(5))
        for key in keys:
            await put(driver, key, b"x")
        async with aclosing(driver.list()) as objects:
            assert (await anext(objects)).key == keys[0]
            await driver.delete(keys[1:3])
            assert {found.key async for found in objects} >= set(keys[3:])

    asyncio.run(scenario())


def test_check_when_all_is_well_then_it_leaves_no_trace(driver: Driver) -> None:
    async def scenario() -> None:
        await driver.check()
        assert await listed(driver) == []

    asyncio.run(scenario())


@pytest.mark.parametrize("key", [*WRONG_KEYS, "a" * 256, "a/" * 512 + "a"])
def test_key_when_it_could_leave_the_root_then_every_method_refuses_it(driver: Driver, key: str) -> None:
    async def scenario() -> None:
        good = new_key()
        await put(driver, good, b"x")
        for attempt in (
            lambda: put(driver, key, b"x"),
            lambda: get(driver, key, 0, 1),
            lambda: driver.size(key),
            lambda: driver.copy(key, new_key(), 0),
            lambda: driver.copy(good, key, 0),
        ):
            with pytest.raises(KeyInvalid) as refused:
                await attempt()
            assert str(refused.value) == "the storage key is malformed"
        assert [failure.key for failure in await driver.delete([key])] == [key]
        assert [found.key for found in await listed(driver)] == [good]

    asyncio.run(scenario())


REQUEST = st.tuples(st.floats(0, 1), st.lists(st.binary(max_size=50), max_size=4), st.booleans())


@pytest.mark.parametrize("name", sorted(DRIVERS))
@settings(max_examples=40, deadline=None)
@given(requests=st.lists(REQUEST, max_size=8))
def test_session_when_requests_commit_or_break_off_then_the_object_is_what_was_committed(
    name: str, requests: list[tuple[float, list[bytes], bool]]
) -> None:
    async def scenario(driver: Driver) -> None:
        key, kept, exists = new_key(), b"", False
        for part, blocks, commits in requests:
            offset = int(part * len(kept))
            writer = driver.append(key, offset)
            for block in blocks:
                await writer.write(block)
            if commits:
                await writer.commit()
                kept, exists = kept[:offset] + b"".join(blocks), True
            elif blocks:
                # What it cut off is gone, what it wrote is not promised.
                kept = kept[:offset]
            await writer.abort()
        if exists:
            assert await get(driver, key, 0, len(kept)) == kept

    with tempfile.TemporaryDirectory() as directory:
        opened = open_driver(name, SETTINGS[name](Path(directory)))
        asyncio.run(scenario(opened))
        asyncio.run(opened.close())
