"""Objects as files under a root directory: `<root>/<key>`, files 0600, directories 0700.

What it guarantees beyond app/blobs/driver.py:

- Nothing that can block runs on the event loop: it all happens in the driver's own bounded threads.
- Durable means that the file is flushed, and after it every directory on the way from the root whose entry
  this process has not yet flushed itself. After a delete the directory is flushed before the delete is
  reported.
- A file is written in its place: there are no temporary files to clean up. (Its key is in no blob's row
  until the upload is finished, so nobody can read half of it.)
- A root directory that is not there is an error, not an empty storage. It is created by the first write of
  this process, and not again if it disappears while the process runs. An empty directory in the place of the
  one that was there, as an unmounted volume leaves it, is none either.

The classes `_Tree`, `_AppendFile`, `_ReadFile` and `_CopyFiles` block and run in threads; `Filesystem` and
`_Appender` are what the loop sees.
"""

# Paths are strings here: to build a pathlib.Path for every call takes longer than many of the calls.
# ruff: noqa: PTH100, PTH102, PTH108, PTH112, PTH116, PTH120, PTH208

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from app.blobs.driver import (
    DELETE_KEYS_MAX,
    DeleteFailure,
    KeyInvalid,
    ObjectExists,
    ObjectMissing,
    ObjectTooShort,
    StorageError,
    StorageFull,
    StorageUnavailable,
    StoredObject,
)
from app.blobs.keys import NOT_OBJECTS, check_key, new_health_key
from app.domain.limits import BLOCK_BYTES
from app.runtime.threads import Threads, ThreadsBusy, ThreadsClosed, result_of, settle

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence

P = ParamSpec("P")
T = TypeVar("T")

ROOT_DIRECTORY_DEFAULT: Final = "/var/lib/registry"
THREADS_DEFAULT: Final = 100

# What a copy moves between two looks at whether it was cancelled.
COPY_STEP_BYTES: Final = 64 * 1024 * 1024
# Bytes of an upload after which the disk is set to work, so that little is left to wait for at its end.
SYNC_STEP_BYTES: Final = 8 * 1024 * 1024
# Objects that a listing fetches in one hand-over to a thread.
LIST_STEP_OBJECTS: Final = 1000
# Directories remembered as durable: the 256 of our own keys many times over.
DURABLE_DIRECTORIES_MAX: Final = 16_384

# A link in the tree is nothing that we made, so it is not followed.
_OPEN_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW
_CREATE_FLAGS: Final = os.O_RDWR | os.O_CREAT | _OPEN_FLAGS
_MISSING: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_ROOT: Final = "the storage's root directory is not there"
_SYNC_FILE_RANGE_WRITE: Final = 2
# What copy_file_range answers where this kernel, or this pair of files, cannot do it.
_NO_COPY_RANGE: Final = frozenset({errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM})


@cache
def _sync_file_range() -> Callable[..., int] | None:
    """Linux's call of that name, which Python does not have."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return function


class Disk:
    """The system calls whose order, failures and short counts matter; tests pass in their own."""

    def read(self, descriptor: int, count: int, position: int) -> bytes:
        return os.pread(descriptor, count, position)

    def write(self, descriptor: int, block: memoryview, position: int) -> int:
        return os.pwrite(descriptor, block, position)

    def copy_range(self, source: int, target: int, count: int, position: int) -> int:
        """Copy inside the kernel; raises OSError with a number of _NO_COPY_RANGE where it cannot."""
        if sys.platform != "linux":
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        return os.copy_file_range(source, target, count, position, position)

    def begin_sync(self, descriptor: int, position: int, count: int) -> None:
        """Have the kernel begin to write these bytes to the disk, and go on. A hint: nothing is promised, or raised."""
        if (function := _sync_file_range()) is not None:
            function(descriptor, position, count, _SYNC_FILE_RANGE_WRITE)

    def sync_file(self, descriptor: int) -> None:
        if sys.platform == "darwin":
            import fcntl  # noqa: PLC0415 - not there on every system

            # fsync on macOS leaves the bytes in the drive's own cache.
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(descriptor)

    def sync_directory(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Filesystem:
    """The driver: `root` is where the objects are, `threads` how many calls may block at a time."""

    def __init__(self, root: Path, threads: int = THREADS_DEFAULT, disk: Disk | None = None) -> None:
        self._tree = _Tree(os.path.abspath(root), disk or Disk())
        self._threads = Threads("storage", threads)

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, object]) -> Filesystem:
        unknown = parameters.keys() - {"rootdirectory", "maxthreads"}
        if unknown:
            raise ValueError(f"storage.filesystem has no setting {', '.join(sorted(unknown))}")
        root = parameters.get("rootdirectory", ROOT_DIRECTORY_DEFAULT)
        if not isinstance(root, str | Path) or not str(root):
            raise ValueError(f"storage.filesystem.rootdirectory must be a directory, not {root!r}")
        threads = parameters.get("maxthreads", THREADS_DEFAULT)
        if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
            raise ValueError(f"storage.filesystem.maxthreads must be a number of at least 1, not {threads!r}")
        return cls(Path(root), threads)

    def append(self, key: str, offset: int) -> _Appender:
        if offset < 0:
            raise ValueError("an offset is not negative")
        return _Appender(self, _AppendFile(self._tree, self._tree.path(key), offset))

    async def read(self, key: str, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        if not 0 <= start <= stop:
            raise ValueError("a range starts at 0 or later and does not end before its start")
        file = _ReadFile(self._tree, self._tree.path(key), start, stop)
        ahead: asyncio.Future[bytes] | None = None
        await self.admit()
        try:
            block = await self.run(file.next_block)
            while block:
                # While the consumer has this block, a thread reads the next one, if there is one.
                ahead = self._start(file.next_block) if file.is_open else None
                yield block
                block = await result_of(ahead) if ahead is not None else b""
        finally:
            try:
                if ahead is not None:
                    await settle(ahead)
            finally:
                if file.is_open:
                    await self.run_surely(file.close)

    async def size(self, key: str) -> int:
        await self.admit()
        return await self.run(self._tree.size, self._tree.path(key))

    async def copy(self, source: str, target: str, length: int) -> None:
        if length < 0:
            raise ValueError("a length is not negative")
        await self.admit()
        files = _CopyFiles(self._tree, self._tree.path(source), self._tree.path(target), length)
        try:
            while await self.run(files.step):
                pass
        finally:
            if files.is_open:
                await self.run_surely(files.discard)

    async def delete(self, keys: Sequence[str]) -> Sequence[DeleteFailure]:
        if len(keys) > DELETE_KEYS_MAX:
            raise ValueError(f"at most {DELETE_KEYS_MAX} keys are deleted at a time")
        return await self.run(self._tree.delete, keys)

    async def list(self) -> AsyncGenerator[StoredObject, None]:
        walk = self._tree.walk()
        while page := await self.run(_take, walk, LIST_STEP_OBJECTS):
            for found in page:
                yield found

    async def check(self) -> None:
        await self.run(self._tree.probe)

    async def close(self) -> None:
        await self._threads.close()

    async def admit(self) -> None:
        """Before anything is begun: wait for a thread, but not with too many others; see Threads.admit."""
        try:
            await self._threads.admit()
        except ThreadsBusy as error:
            raise StorageUnavailable("too many requests wait for the object storage") from error

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`call` in a thread; see Threads.run."""
        try:
            return await self._threads.run(call, *args, **kwargs)
        except ThreadsClosed as error:
            raise StorageUnavailable("the storage driver is closed") from error

    async def run_surely(self, call: Callable[[], None]) -> None:
        """`call` in a thread, whatever happens; see Threads.run_surely."""
        await self._threads.run_surely(call)

    def _start(self, call: Callable[[], T]) -> asyncio.Future[T]:
        try:
            return self._threads.start(call)
        except ThreadsClosed as error:
            raise StorageUnavailable("the storage driver is closed") from error


class _Appender:
    """The Writer: one hand-over to a thread per call."""

    def __init__(self, driver: Filesystem, file: _AppendFile) -> None:
        self._driver, self._file = driver, file
        self._ended = False

    async def write(self, block: bytes) -> None:
        if self._ended:
            raise StorageError("the writer is closed")
        try:
            if not self._file.is_open:
                await self._driver.admit()
            await self._driver.run(self._file.write, block)
        except BaseException:
            # Also after a cancellation: how much of the block was written, nobody knows.
            self._ended = True
            raise

    async def commit(self) -> None:
        if self._ended:
            raise StorageError("the writer is closed")
        self._ended = True
        await self._driver.run(self._file.commit)

    async def abort(self) -> None:
        self._ended = True
        if self._file.is_open:
            await self._driver.run_surely(self._file.close)


class _Tree:
    """The root and everything under it."""

    def __init__(self, root: str, disk: Disk) -> None:
        self.disk = disk
        self._root = root
        self._root_seen = False
        self._identity: tuple[int, int] | None = None
        self._durable: set[str] = set()
        self._is_there()

    def path(self, key: str) -> str:
        check_key(key)
        return f"{self._root}/{key}"

    @contextmanager
    def errors(self) -> Generator[None, None, None]:
        """Give the operating system's errors in the driver's words."""
        try:
            yield
        except OSError as error:
            raise self._storage_error(error) from error

    def open(self, path: str, flags: int) -> tuple[int, int]:
        """The descriptor of an existing object, and its size. Raises OSError; what is no file is missing."""
        descriptor = os.open(path, flags | _OPEN_FLAGS)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise FileNotFoundError(errno.ENOENT, "not a file", path)
        except OSError:
            os.close(descriptor)
            raise
        self._root_seen = True
        return descriptor, found.st_size

    def create(self, path: str, flags: int = 0) -> int:
        """The descriptor of an object that is made if it is not there, with its directories."""
        if self._root_seen and not self._is_there():
            raise StorageUnavailable(_NO_ROOT)
        try:
            try:
                descriptor = os.open(path, _CREATE_FLAGS | flags, 0o600)
            except FileNotFoundError:
                self._make_directories(path)
                descriptor = os.open(path, _CREATE_FLAGS | flags, 0o600)
        except OSError as error:
            if error.errno in _MISSING:
                # The root went away, or what is no directory stands in the way: no object is missing.
                raise StorageUnavailable from error
            raise
        self._root_seen = True
        return descriptor

    def sync_directories(self, path: str) -> None:
        """Make the name of the new file `path` durable, up to the root."""
        directory: str = os.path.dirname(path)
        self.disk.sync_directory(directory)
        while directory != self._root:
            parent: str = os.path.dirname(directory)
            # Each by itself: that a directory's entry is durable says nothing of the one above it.
            if directory not in self._durable:
                self.disk.sync_directory(parent)
                self._remember_durable(directory)
            directory = parent

    def size(self, path: str) -> int:
        with self.errors():
            found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode):
            raise ObjectMissing
        return found.st_size

    def delete(self, keys: Sequence[str]) -> list[DeleteFailure]:
        failures: list[DeleteFailure] = []
        removed: dict[str, list[str]] = {}
        for key in keys:
            try:
                path = self.path(key)
                self._unlink(path)
            except StorageError as error:
                failures.append(DeleteFailure(key, error))
            else:
                removed.setdefault(os.path.dirname(path), []).append(key)
        for directory, names in removed.items():
            try:
                self._sync_after_delete(directory)
            except StorageError as error:
                failures.extend(DeleteFailure(key, error) for key in names)
        return failures

    def walk(self) -> Iterator[StoredObject]:
        with self.errors():
            yield from self._walk("")

    def probe(self) -> None:
        """Write, read and delete an object of a few bytes."""
        key = new_health_key()
        path, expected = self.path(key), key.encode()
        with self.errors():
            descriptor = self.create(path, os.O_EXCL)
            try:
                _write(self.disk, descriptor, expected, 0)
                self.disk.sync_file(descriptor)
                content = _read(self.disk, descriptor, len(expected) + 1, 0)
            finally:
                os.close(descriptor)
                os.unlink(path)
        if content != expected:
            raise StorageUnavailable("the storage did not return what was written to it")

    def _walk(self, directory: str) -> Iterator[StoredObject]:
        for name, is_directory in self._entries(directory):
            key = directory + name
            if is_directory:
                yield from self._walk(key)
                continue
            stored = self._stored(key)
            if stored is not None:
                yield stored

    def _stored(self, key: str) -> StoredObject | None:
        """None: deleted meanwhile, or a file whose name is no key and which is therefore not ours."""
        try:
            found = os.lstat(self.path(key))
        except (FileNotFoundError, KeyInvalid):
            return None
        return StoredObject(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def _entries(self, directory: str) -> list[tuple[str, bool]]:
        """The files and the directories, these with a slash behind, in the order of the keys' bytes."""
        entries: list[tuple[str, bool]] = []
        try:
            with os.scandir(f"{self._root}/{directory}") as found:
                for entry in found:
                    if entry.is_dir(follow_symlinks=False):
                        entries.append((f"{entry.name}/", True))
                    elif entry.is_file(follow_symlinks=False):
                        entries.append((entry.name, False))
        except FileNotFoundError:
            if not directory:
                raise
        if not directory:
            entries = [entry for entry in entries if entry[0] not in NOT_OBJECTS]
        return sorted(entries, key=lambda entry: os.fsencode(entry[0]))

    def _unlink(self, path: str) -> None:
        try:
            with self.errors():
                os.unlink(path)
        except ObjectMissing:
            pass

    def _sync_after_delete(self, directory: str) -> None:
        # Also where nothing was found: the attempt that removed it may have died before it got here.
        try:
            with self.errors():
                self.disk.sync_directory(directory)
        except ObjectMissing:
            pass

    def _make_directories(self, path: str) -> None:
        self._make_root()
        directory = self._root
        for part in os.path.relpath(path, self._root).split("/")[:-1]:
            parent, directory = directory, f"{directory}/{part}"
            self._make_directory(directory, parent)

    def _make_root(self) -> None:
        if self._root_seen:
            return
        missing: list[str] = []
        directory = self._root
        while not os.path.isdir(directory):
            missing.append(directory)
            directory = os.path.dirname(directory)
        for directory in reversed(missing):
            self._make_directory(directory, os.path.dirname(directory))
        self._root_seen = True

    def _make_directory(self, directory: str, parent: str) -> None:
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            return
        self.disk.sync_directory(parent)
        self._remember_durable(directory)

    def _remember_durable(self, directory: str) -> None:
        if len(self._durable) >= DURABLE_DIRECTORIES_MAX:
            self._durable.clear()
        self._durable.add(directory)

    def _is_there(self) -> bool:
        """Whether the root is the directory that it was, or one that was mounted there since, which is not empty."""
        try:
            found = os.stat(self._root)
            identity = found.st_dev, found.st_ino
            if identity == self._identity:
                return True
            if self._identity is not None and not os.listdir(self._root):
                return False
        except OSError:
            return False
        self._identity = identity
        self._root_seen = True
        self._durable.clear()
        return True

    def _storage_error(self, error: OSError) -> StorageError:
        if error.errno in _FULL:
            return StorageFull()
        if error.errno == errno.EEXIST:
            return ObjectExists()
        if error.errno not in _MISSING:
            return StorageUnavailable()
        if not self._is_there():
            return StorageUnavailable(_NO_ROOT)
        return ObjectMissing()


class _AppendFile:
    """The file behind a Writer. A failure closes it at once."""

    def __init__(self, tree: _Tree, path: str, offset: int) -> None:
        self._tree, self._path, self._offset = tree, path, offset
        self._position = self._begun = offset
        self._descriptor: int | None = None

    @property
    def is_open(self) -> bool:
        return self._descriptor is not None

    def write(self, block: bytes) -> None:
        with self._closing_on_error():
            descriptor = self._open()
            self._position += _write(self._tree.disk, descriptor, block, self._position)
            if self._position - self._begun >= SYNC_STEP_BYTES:
                self._tree.disk.begin_sync(descriptor, self._begun, self._position - self._begun)
                self._begun = self._position

    def commit(self) -> None:
        with self._closing_on_error():
            self._tree.disk.sync_file(self._open())
            self.close()
            # Not only when this call made the file: who did may have died before flushing the directory.
            if self._offset == 0:
                self._tree.sync_directories(self._path)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _open(self) -> int:
        if self._descriptor is None:
            if self._offset == 0:
                self._descriptor = self._tree.create(self._path)
                size = os.fstat(self._descriptor).st_size
            else:
                self._descriptor, size = self._tree.open(self._path, os.O_WRONLY)
            if size < self._offset:
                raise ObjectTooShort(size, self._offset)
            if size > self._offset:
                os.ftruncate(self._descriptor, self._offset)
        return self._descriptor

    @contextmanager
    def _closing_on_error(self) -> Generator[None, None, None]:
        try:
            with self._tree.errors():
                yield
        except BaseException:
            with suppress(OSError):
                self.close()
            raise


class _ReadFile:
    """A range of a file, block by block. It closes itself at the last block and at an error."""

    def __init__(self, tree: _Tree, path: str, start: int, stop: int) -> None:
        self._tree, self._path = tree, path
        self._position, self._stop = start, stop
        self._descriptor: int | None = None
        self._opened = False

    @property
    def is_open(self) -> bool:
        return self._descriptor is not None

    def next_block(self) -> bytes:
        """The next block; empty at the end."""
        done = False
        try:
            with self._tree.errors():
                block = self._read()
            done = self._position == self._stop
            return block
        except BaseException:
            done = True
            raise
        finally:
            if done:
                self.close()

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _read(self) -> bytes:
        if not self._opened:
            self._opened = True
            self._descriptor, size = self._tree.open(self._path, os.O_RDONLY)
            if size < self._stop:
                raise ObjectTooShort(size, self._stop)
        if self._descriptor is None:
            return b""
        count = min(BLOCK_BYTES, self._stop - self._position)
        block = _read(self._tree.disk, self._descriptor, count, self._position)
        self._position += len(block)
        if len(block) < count:
            raise ObjectTooShort(self._position, self._stop)
        return block


@dataclass
class _CopyFiles:
    """A copy under way. Until its last step is through, the target is one of `discard`'s."""

    tree: _Tree
    source_path: str
    target_path: str
    length: int
    position: int = 0
    source: int | None = None
    target: int | None = None
    in_kernel: bool = True

    @property
    def is_open(self) -> bool:
        return self.source is not None or self.target is not None

    def step(self) -> bool:
        """Copy up to COPY_STEP_BYTES; at the end make the target durable. Whether there is more to do."""
        with self.tree.errors():
            source, target = self._open()
            stop = min(self.position + COPY_STEP_BYTES, self.length)
            while self.position < stop:
                self.position += self._copy(source, target, stop - self.position)
            if self.position < self.length:
                return True
            self.tree.disk.sync_file(target)
            self.tree.sync_directories(self.target_path)
            self._close()
            return False

    def discard(self) -> None:
        """Close, and take the unfinished target away."""
        unfinished = self.target is not None
        self._close()
        if unfinished:
            with suppress(OSError):
                os.unlink(self.target_path)

    def _open(self) -> tuple[int, int]:
        if self.source is None:
            self.source, size = self.tree.open(self.source_path, os.O_RDONLY)
            if size < self.length:
                raise ObjectTooShort(size, self.length)
        if self.target is None:
            self.target = self.tree.create(self.target_path, os.O_EXCL)
        return self.source, self.target

    def _copy(self, source: int, target: int, count: int) -> int:
        if self.in_kernel:
            try:
                copied = self.tree.disk.copy_range(source, target, count, self.position)
            except OSError as error:
                if error.errno not in _NO_COPY_RANGE:
                    raise
                copied = 0
            if copied:
                return copied
            # 0 is also what some file systems answer in the middle of a file.
            self.in_kernel = False
        block = self.tree.disk.read(source, min(count, BLOCK_BYTES), self.position)
        if not block:
            raise ObjectTooShort(self.position, self.length)
        return _write(self.tree.disk, target, block, self.position)

    def _close(self) -> None:
        descriptors = (self.source, self.target)
        self.source = self.target = None
        for descriptor in descriptors:
            if descriptor is not None:
                os.close(descriptor)


def _write(disk: Disk, descriptor: int, block: bytes, position: int) -> int:
    """Write all of `block`; a write that the system cuts short is taken up again. Its length."""
    left = memoryview(block)
    while left:
        written = disk.write(descriptor, left, position)
        if written == 0:
            raise OSError(errno.EIO, "nothing was written")
        position += written
        left = left[written:]
    return len(block)


def _read(disk: Disk, descriptor: int, count: int, position: int) -> bytes:
    """`count` bytes; fewer only at the end of the file."""
    block = disk.read(descriptor, count, position)
    while len(block) < count:
        more = disk.read(descriptor, count - len(block), position + len(block))
        if not more:
            break
        block += more
    return block


def _take(walk: Iterator[StoredObject], count: int) -> list[StoredObject]:
    return list(islice(walk, count))
