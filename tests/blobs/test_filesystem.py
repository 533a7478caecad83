"""What the file system driver does beyond the conformance suite: flushes, modes, failures, cancellation."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING

import pytest

from app.blobs.driver import (
    ObjectMissing,
    ObjectTooShort,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from app.blobs.drivers.filesystem import COPY_STEP_BYTES, Disk, Filesystem
from app.blobs.keys import new_key
from app.domain.limits import BLOCK_BYTES
from tests.blobs.support import get, listed, open_files, put

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "objects/ab/ab000000000000000000000000000000"
NEIGHBOUR = "objects/ab/ab000000000000000000000000000001"


class RecordingDisk(Disk):
    """Notes what was written and flushed, in order; directories by their path below the root."""

    def __init__(self, root: Path) -> None:
        self.root, self.calls = root, list[str]()

    def write(self, descriptor: int, block: memoryview, position: int) -> int:
        self.calls.append(f"write {len(block)} at {position}")
        return super().write(descriptor, block, position)

    def sync_file(self, descriptor: int) -> None:
        self.calls.append("sync file")
        super().sync_file(descriptor)

    def sync_directory(self, path: str) -> None:
        self.calls.append(f"sync {os.path.relpath(path, self.root)}")
        super().sync_directory(path)

    def take(self) -> list[str]:
        calls, self.calls = self.calls, []
        return calls


class HeldReads(Disk):
    """Holds every read but the first until it is let go, then sees whether its file is still open."""

    def __init__(self) -> None:
        self.reads, self.entered, self.release = 0, threading.Event(), threading.Event()
        self.failures = list[OSError]()

    def read(self, descriptor: int, count: int, position: int) -> bytes:
        self.reads += 1
        if self.reads > 1:
            self.entered.set()
            assert self.release.wait(10)
        try:
            return super().read(descriptor, count, position)
        except OSError as error:
            self.failures.append(error)
            raise


class FailingDisk(Disk):
    """Fails the named call with an error number from the `after`-th time on."""

    def __init__(self, call: str, number: int, after: int = 0) -> None:
        self.call, self.number, self.left = call, number, after

    def write(self, descriptor: int, block: memoryview, position: int) -> int:
        self._maybe_fail("write")
        return super().write(descriptor, block, position)

    def read(self, descriptor: int, count: int, position: int) -> bytes:
        self._maybe_fail("read")
        return super().read(descriptor, count, position)

    def copy_range(self, source: int, target: int, count: int, position: int) -> int:
        self._maybe_fail("copy_range")
        return super().copy_range(source, target, min(count, 10), position)

    def sync_file(self, descriptor: int) -> None:
        self._maybe_fail("sync_file")
        super().sync_file(descriptor)

    def sync_directory(self, path: str) -> None:
        self._maybe_fail("sync_directory")
        super().sync_directory(path)

    def _maybe_fail(self, call: str) -> None:
        if call == self.call:
            self.left -= 1
            if self.left < 0:
                raise OSError(self.number, os.strerror(self.number), "/secret/path")


class ShortDisk(Disk):
    """Reads two thirds and writes three bytes at a time, and copies none in the kernel."""

    def read(self, descriptor: int, count: int, position: int) -> bytes:
        return super().read(descriptor, (count * 2 + 2) // 3, position)

    def write(self, descriptor: int, block: memoryview, position: int) -> int:
        return super().write(descriptor, block[:3], position)

    def copy_range(self, source: int, target: int, count: int, position: int) -> int:
        return 0


class HeldDisk(Disk):
    """Holds every write and flush until it is let go."""

    def __init__(self) -> None:
        self.entered, self.release = threading.Event(), threading.Event()

    def write(self, descriptor: int, block: memoryview, position: int) -> int:
        self._hold()
        return super().write(descriptor, block, position)

    def sync_file(self, descriptor: int) -> None:
        self._hold()
        super().sync_file(descriptor)

    def _hold(self) -> None:
        self.entered.set()
        assert self.release.wait(10)


@contextmanager
def filesystem(root: Path, disk: Disk | None = None, threads: int = 4) -> Iterator[Filesystem]:
    """A driver that is closed at the end, and that leaves no file open."""
    before = open_files()
    driver = Filesystem(root, threads, disk)
    try:
        yield driver
    finally:
        asyncio.run(driver.close())
    assert open_files() == before


def files_of(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if not path.is_dir())


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 10)


def test_commit_when_the_object_is_new_then_file_and_directories_are_flushed_before_it_returns(
    tmp_path: Path,
) -> None:
    disk = RecordingDisk(tmp_path)
    with filesystem(tmp_path, disk) as driver:
        asyncio.run(put(driver, KEY, b"12345"))
        # The two directories were made and their parents flushed; then the bytes; then the name.
        assert disk.take() == ["sync .", "sync objects", "write 5 at 0", "sync file", "sync objects/ab"]
        asyncio.run(put(driver, NEIGHBOUR, b"1"))
        assert disk.take() == ["write 1 at 0", "sync file", "sync objects/ab"]
        asyncio.run(put(driver, KEY, b"678", offset=5))
        assert disk.take() == ["write 3 at 5", "sync file"]


def test_commit_when_another_process_made_the_directories_then_all_of_them_are_flushed(
    tmp_path: Path,
) -> None:
    (tmp_path / KEY).parent.mkdir(parents=True)
    disk = RecordingDisk(tmp_path)
    with filesystem(tmp_path, disk) as driver:
        asyncio.run(put(driver, KEY))
        assert disk.take() == ["sync file", "sync objects/ab", "sync objects", "sync ."]
        asyncio.run(put(driver, KEY))
        assert disk.take() == ["sync file", "sync objects/ab"]


def test_commit_when_another_process_made_the_upper_directory_then_it_is_flushed_too(tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    disk = RecordingDisk(tmp_path)
    with filesystem(tmp_path, disk) as driver:
        asyncio.run(put(driver, KEY))
        assert disk.take() == ["sync objects", "sync file", "sync objects/ab", "sync ."]


def test_commit_when_a_directory_could_not_be_flushed_then_the_next_commit_does_it(tmp_path: Path) -> None:
    class OnceFailing(RecordingDisk):
        failed = False

        def sync_directory(self, path: str) -> None:
            if path == str(tmp_path) and not self.failed:
                self.failed = True
                raise OSError(errno.EIO, "no")
            super().sync_directory(path)

    (tmp_path / KEY).parent.mkdir(parents=True)
    disk = OnceFailing(tmp_path)
    with filesystem(tmp_path, disk) as driver:
        with pytest.raises(StorageUnavailable):
            asyncio.run(put(driver, KEY))
        disk.take()
        asyncio.run(put(driver, KEY))
        assert disk.take() == ["sync file", "sync objects/ab", "sync ."]


def test_copy_when_it_ends_then_file_and_directory_are_flushed(tmp_path: Path) -> None:
    disk = RecordingDisk(tmp_path)
    with filesystem(tmp_path, disk) as driver:
        asyncio.run(put(driver, KEY, b"12345"))
        disk.take()
        asyncio.run(driver.copy(KEY, NEIGHBOUR, 5))
        assert disk.take() == ["sync file", "sync objects/ab"]


def test_delete_when_it_ends_then_each_directory_is_flushed_once_and_also_for_missing_files(
    tmp_path: Path,
) -> None:
    disk = RecordingDisk(tmp_path)
    with filesystem(tmp_path, disk) as driver:
        asyncio.run(put(driver, KEY, b"12345"))
        disk.take()
        assert asyncio.run(driver.delete([KEY, NEIGHBOUR, "objects/none/x"])) == []
        assert disk.take() == ["sync objects/ab", "sync objects/none"]
        assert asyncio.run(driver.delete([KEY])) == []
        assert disk.take() == ["sync objects/ab"]


def test_delete_when_a_directory_cannot_be_flushed_then_its_keys_have_failed(tmp_path: Path) -> None:
    with filesystem(tmp_path) as driver:
        asyncio.run(put(driver, KEY, b"x"))
    with filesystem(tmp_path, FailingDisk("sync_directory", errno.EIO)) as driver:
        failures = asyncio.run(driver.delete([KEY]))
    assert [(failure.key, type(failure.error)) for failure in failures] == [(KEY, StorageUnavailable)]


def test_files_when_they_are_made_then_only_the_owner_may_use_them(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "root"
    previous = os.umask(0)
    try:
        with filesystem(root) as driver:
            asyncio.run(put(driver, KEY, b"x"))
            asyncio.run(driver.copy(KEY, NEIGHBOUR, 1))
    finally:
        os.umask(previous)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files_of(root)} == {0o600}
    directories = [root.parent, root, root / "objects", root / "objects" / "ab"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in directories} == {0o700}


def test_write_when_it_goes_on_then_the_file_has_its_final_name_and_no_other_file_is_there(
    tmp_path: Path,
) -> None:
    async def scenario(driver: Filesystem) -> None:
        writer = driver.append(KEY, 0)
        await writer.write(b"one")
        assert files_of(tmp_path) == [tmp_path / KEY]
        await writer.commit()
        assert files_of(tmp_path) == [tmp_path / KEY]

    with filesystem(tmp_path) as driver:
        asyncio.run(scenario(driver))


def test_session_when_another_process_goes_on_then_the_bytes_follow(tmp_path: Path) -> None:
    with filesystem(tmp_path) as first:
        asyncio.run(put(first, KEY, b"one "))
    with filesystem(tmp_path) as second:
        asyncio.run(put(second, KEY, b"two", offset=4))
        assert asyncio.run(get(second, KEY)) == b"one two"


def test_write_when_the_system_writes_less_then_the_rest_follows(tmp_path: Path) -> None:
    with filesystem(tmp_path, ShortDisk()) as driver:
        asyncio.run(put(driver, KEY, b"0123456789", b"abcdef"))
        asyncio.run(driver.copy(KEY, NEIGHBOUR, 15))
        asyncio.run(driver.check())
        assert asyncio.run(get(driver, KEY)) == b"0123456789abcdef"
        assert asyncio.run(get(driver, NEIGHBOUR)) == b"0123456789abcde"


def test_write_when_nothing_at_all_is_written_then_it_fails_and_does_not_spin(tmp_path: Path) -> None:
    class DeafDisk(Disk):
        def write(self, descriptor: int, block: memoryview, position: int) -> int:
            return 0

    with filesystem(tmp_path, DeafDisk()) as driver, pytest.raises(StorageUnavailable):
        asyncio.run(put(driver, KEY, b"x"))


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EIO, StorageUnavailable),
        (errno.EROFS, StorageUnavailable),
        (errno.EACCES, StorageUnavailable),
    ],
)
@pytest.mark.parametrize("call", ["write", "sync_file", "sync_directory"])
def test_commit_when_the_disk_fails_then_the_error_says_so_without_a_path(
    tmp_path: Path, call: str, number: int, expected: type[StorageError]
) -> None:
    with filesystem(tmp_path, FailingDisk(call, number)) as driver, pytest.raises(StorageError) as refused:
        asyncio.run(put(driver, KEY, b"x"))
    assert type(refused.value) is expected
    assert "/" not in str(refused.value)
    assert isinstance(refused.value.__cause__, OSError)


def test_write_when_the_disk_fills_up_then_the_session_can_go_on_from_the_last_commit(tmp_path: Path) -> None:
    with filesystem(tmp_path, FailingDisk("write", errno.ENOSPC, after=2)) as driver:
        asyncio.run(put(driver, KEY, b"kept "))
        with pytest.raises(StorageFull):
            asyncio.run(put(driver, KEY, b"half", b"lost", offset=5))
    with filesystem(tmp_path) as driver:
        asyncio.run(put(driver, KEY, b"and more", offset=5))
        assert asyncio.run(get(driver, KEY)) == b"kept and more"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM])
@pytest.mark.parametrize("after", [0, 1])
def test_copy_when_the_kernel_cannot_then_the_bytes_are_copied_here(
    tmp_path: Path, number: int, after: int
) -> None:
    with filesystem(tmp_path, FailingDisk("copy_range", number, after)) as driver:
        asyncio.run(put(driver, KEY, b"x" * 15))
        asyncio.run(driver.copy(KEY, NEIGHBOUR, 15))
        assert asyncio.run(get(driver, NEIGHBOUR)) == b"x" * 15


@pytest.mark.parametrize("call", ["copy_range", "sync_file", "sync_directory"])
def test_copy_when_it_fails_then_no_target_is_left(tmp_path: Path, call: str) -> None:
    with filesystem(tmp_path) as driver:
        asyncio.run(put(driver, KEY, b"x" * 15))
    after = 1 if call == "copy_range" else 0
    failing = FailingDisk(call, errno.ENOSPC, after)
    with filesystem(tmp_path, failing) as driver, pytest.raises(StorageFull):
        asyncio.run(driver.copy(KEY, NEIGHBOUR, 15))
    assert files_of(tmp_path) == [tmp_path / KEY]


def test_copy_when_it_is_cancelled_on_the_way_then_it_stops_and_no_target_is_left(tmp_path: Path) -> None:
    class Copying(HeldDisk):
        def copy_range(self, source: int, target: int, count: int, position: int) -> int:
            self._hold()
            os.ftruncate(target, position + count)
            return count

    async def scenario(driver: Filesystem, disk: HeldDisk) -> None:
        copying = asyncio.create_task(driver.copy(KEY, NEIGHBOUR, 3 * COPY_STEP_BYTES))
        await until(disk.entered)
        copying.cancel()
        await asyncio.sleep(0.02)
        assert not copying.done()
        disk.release.set()
        with pytest.raises(asyncio.CancelledError):
            await copying

    (tmp_path / KEY).parent.mkdir(parents=True)
    (tmp_path / KEY).touch()
    os.truncate(tmp_path / KEY, 3 * COPY_STEP_BYTES)
    disk = Copying()
    with filesystem(tmp_path, disk) as driver:
        asyncio.run(scenario(driver, disk))
    assert files_of(tmp_path) == [tmp_path / KEY]


@pytest.mark.parametrize("held", ["write", "commit"])
def test_writer_when_the_task_is_cancelled_then_it_waits_for_the_thread_and_closes(
    tmp_path: Path, held: str
) -> None:
    async def scenario(driver: Filesystem, disk: HeldDisk) -> None:
        if held == "commit":
            disk.release.set()
        writer = driver.append(KEY, 0)
        if held == "commit":
            await writer.write(b"x")
            disk.entered.clear()
            disk.release.clear()
        task = asyncio.create_task(writer.write(b"y" * 9) if held == "write" else writer.commit())
        await until(disk.entered)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.01)
        assert not task.done()
        disk.release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(StorageError, match="closed"):
            await writer.write(b"more")
        await writer.abort()

    disk = HeldDisk()
    with filesystem(tmp_path, disk) as driver:
        asyncio.run(scenario(driver, disk))


def test_writer_when_the_task_is_cancelled_before_a_thread_is_free_then_it_ends_at_once(
    tmp_path: Path,
) -> None:
    async def scenario(driver: Filesystem, disk: HeldDisk) -> None:
        writing = asyncio.create_task(put(driver, KEY, b"x"))
        await until(disk.entered)
        waiting = asyncio.create_task(put(driver, NEIGHBOUR, b"x"))
        await asyncio.sleep(0.02)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(waiting, 5)
        disk.release.set()
        await writing
        assert [found.key for found in await listed(driver)] == [KEY]

    disk = HeldDisk()
    with filesystem(tmp_path, disk, threads=1) as driver:
        asyncio.run(scenario(driver, disk))


def test_event_loop_when_the_disk_hangs_then_it_goes_on(tmp_path: Path) -> None:
    async def scenario(driver: Filesystem, disk: HeldDisk) -> None:
        writing = asyncio.create_task(put(driver, KEY, b"x"))
        await until(disk.entered)
        assert not writing.done()
        with pytest.raises(ObjectMissing):
            await driver.size(NEIGHBOUR)
        disk.release.set()
        await writing

    disk = HeldDisk()
    with filesystem(tmp_path, disk) as driver:
        asyncio.run(scenario(driver, disk))


def test_read_when_the_consumer_breaks_off_without_closing_then_no_file_stays_open(tmp_path: Path) -> None:
    async def scenario(driver: Filesystem) -> None:
        async for _ in driver.read(KEY, 0, 5 * BLOCK_BYTES):
            break

    with filesystem(tmp_path) as driver:
        asyncio.run(put(driver, KEY, b"x" * (5 * BLOCK_BYTES)))
        asyncio.run(scenario(driver))


@pytest.mark.parametrize("how", ["cancelled", "closed"])
def test_read_when_the_consumer_stops_while_a_thread_reads_then_the_file_is_closed_after_it(
    tmp_path: Path, how: str
) -> None:
    async def stop_early(driver: Filesystem, disk: HeldReads) -> None:
        async with aclosing(driver.read(KEY, 0, 5 * BLOCK_BYTES)) as blocks:
            await anext(blocks)
            await until(disk.entered)
            if how == "cancelled":
                await anext(blocks)

    async def scenario(driver: Filesystem, disk: HeldReads) -> None:
        reading = asyncio.create_task(stop_early(driver, disk))
        await until(disk.entered)
        await asyncio.sleep(0.02)
        if how == "cancelled":
            reading.cancel()
            await asyncio.sleep(0.02)
        assert not reading.done()
        disk.release.set()
        await asyncio.wait([reading])
        assert reading.cancelled() == (how == "cancelled")

    disk = HeldReads()
    with filesystem(tmp_path, disk) as driver:
        asyncio.run(put(driver, KEY, b"x" * (5 * BLOCK_BYTES)))
        asyncio.run(scenario(driver, disk))
    assert disk.failures == []
    assert disk.reads == 2


@pytest.mark.parametrize("after", [0, 1])
def test_read_when_the_disk_fails_then_the_error_says_so_without_a_path(tmp_path: Path, after: int) -> None:
    with filesystem(tmp_path) as driver:
        asyncio.run(put(driver, KEY, b"x" * (2 * BLOCK_BYTES)))
    refused = pytest.raises(StorageUnavailable, match=r"^the object storage is not available$")
    with filesystem(tmp_path, FailingDisk("read", errno.EIO, after)) as driver, refused:
        asyncio.run(get(driver, KEY))


def test_read_when_the_system_reads_less_then_the_rest_follows(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    with filesystem(tmp_path) as driver:
        asyncio.run(put(driver, KEY, content))
    with filesystem(tmp_path, ShortDisk()) as driver:
        assert asyncio.run(get(driver, KEY)) == content


def test_read_when_the_file_shrinks_on_the_way_then_it_fails_rather_than_ends(tmp_path: Path) -> None:
    async def scenario(driver: Filesystem) -> None:
        async with aclosing(driver.read(KEY, 0, 5 * BLOCK_BYTES)) as blocks:
            await anext(blocks)
            os.truncate(tmp_path / KEY, 3 * BLOCK_BYTES + 1)
            with pytest.raises(ObjectTooShort):
                async for _ in blocks:
                    pass

    with filesystem(tmp_path) as driver:
        asyncio.run(put(driver, KEY, b"x" * (5 * BLOCK_BYTES)))
        asyncio.run(scenario(driver))


def test_links_and_directories_when_they_stand_where_an_object_would_then_they_are_none(
    tmp_path: Path,
) -> None:
    async def scenario(driver: Filesystem) -> None:
        for key in ("link", "directory", "file/below"):
            with pytest.raises(ObjectMissing):
                await get(driver, key, 0, 1)
            with pytest.raises(ObjectMissing):
                await driver.size(key)
            with pytest.raises(StorageUnavailable):
                await put(driver, key, b"overwritten")
        assert [found.key for found in await listed(driver)] == ["file"]

    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "directory").mkdir(parents=True)
    (root / "file").write_bytes(b"x")
    outside.write_bytes(b"secret")
    (root / "link").symlink_to(outside)
    with filesystem(root) as driver:
        asyncio.run(scenario(driver))
    assert outside.read_bytes() == b"secret"


def test_root_when_it_is_missing_then_nothing_is_taken_for_deleted(tmp_path: Path) -> None:
    async def scenario(driver: Filesystem) -> None:
        with pytest.raises(StorageUnavailable, match="root directory is not there"):
            await driver.size(KEY)
        with pytest.raises(StorageUnavailable, match="root directory is not there"):
            await get(driver, KEY, 0, 1)
        with pytest.raises(StorageUnavailable, match="root directory is not there"):
            await listed(driver)
        failures = await driver.delete([KEY])
        assert [type(failure.error) for failure in failures] == [StorageUnavailable]

    with filesystem(tmp_path / "unmounted") as driver:
        asyncio.run(scenario(driver))


def test_root_when_it_disappears_while_the_process_runs_then_it_is_not_made_again(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    with filesystem(root) as driver:
        asyncio.run(put(driver, KEY, b"x"))
        root.rename(elsewhere)
        with pytest.raises(StorageUnavailable):
            asyncio.run(driver.check())
        with pytest.raises(StorageUnavailable):
            asyncio.run(put(driver, NEIGHBOUR, b"x"))
        assert not root.exists()
        elsewhere.rename(root)
        asyncio.run(driver.check())


@pytest.mark.parametrize("call", ["write", "sync_file"])
def test_check_when_the_disk_fails_then_it_says_so_and_leaves_nothing(tmp_path: Path, call: str) -> None:
    with filesystem(tmp_path, FailingDisk(call, errno.EROFS)) as driver, pytest.raises(StorageUnavailable):
        asyncio.run(driver.check())
    assert files_of(tmp_path) == []


def test_check_when_the_disk_returns_other_bytes_then_it_says_so(tmp_path: Path) -> None:
    class LyingDisk(Disk):
        def write(self, descriptor: int, block: memoryview, position: int) -> int:
            return super().write(descriptor, memoryview(b"?" * len(block)), position)

    expected = pytest.raises(StorageUnavailable, match="did not return what was written")
    with filesystem(tmp_path, LyingDisk()) as driver, expected:
        asyncio.run(driver.check())
    assert files_of(tmp_path) == []


def test_close_when_calls_are_under_way_then_they_end_first_and_later_ones_are_refused(
    tmp_path: Path,
) -> None:
    async def scenario(driver: Filesystem, disk: HeldDisk) -> None:
        writer = driver.append(KEY, 0)
        writing = asyncio.create_task(writer.write(b"x"))
        await until(disk.entered)
        closing = asyncio.create_task(driver.close())
        await asyncio.sleep(0.02)
        assert not closing.done()
        disk.release.set()
        await closing
        await writing
        with pytest.raises(StorageUnavailable, match="driver is closed"):
            await driver.size(KEY)
        await writer.abort()

    disk, before = HeldDisk(), set(threading.enumerate())
    with filesystem(tmp_path, disk) as driver:
        asyncio.run(scenario(driver, disk))
    assert not [t for t in set(threading.enumerate()) - before if t.name.startswith("storage")]


def test_threads_when_many_calls_come_then_no_more_than_the_bound_run(tmp_path: Path) -> None:
    class CountingDisk(Disk):
        def __init__(self) -> None:
            self.lock, self.now, self.most = threading.Lock(), 0, 0

        def write(self, descriptor: int, block: memoryview, position: int) -> int:
            with self.lock:
                self.now += 1
                self.most = max(self.most, self.now)
            threading.Event().wait(0.005)
            with self.lock:
                self.now -= 1
            return super().write(descriptor, block, position)

    async def scenario(driver: Filesystem) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(put(driver, new_key(), b"x"))

    disk = CountingDisk()
    with filesystem(tmp_path, disk, threads=3) as driver:
        asyncio.run(scenario(driver))
    assert disk.most == 3


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rootdirectory": ""}, "rootdirectory must be a directory"),
        ({"rootdirectory": 5}, "rootdirectory must be a directory"),
        ({"maxthreads": 0}, "maxthreads must be a number of at least 1"),
        ({"maxthreads": True}, "maxthreads must be a number of at least 1"),
        ({"maxthreads": "many"}, "maxthreads must be a number of at least 1"),
    ],
)
def test_settings_when_one_is_wrong_then_it_is_named(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=rf"storage\.filesystem\.{message}"):
        Filesystem.from_parameters(parameters)
