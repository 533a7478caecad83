"""Disks on which every call is a step, and what would be left of one after a power cut.

SIGKILL leaves everything that was written in the page cache, so it cannot show that a flush is missing. `Record` notes
beside the storage what each flush makes durable: the content of a file at its fdatasync, the entries of a directory at
its fsync. `cut_power` then puts into the storage's place what the record vouches for and nothing else: a directory has
the entries of its last fsync; a file has the content of its last fdatasync, and behind it zeros up to the length that
it had, as file systems leave it that write the length first.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from app.blobs.drivers.filesystem import THREADS_DEFAULT, Disk, Filesystem

if TYPE_CHECKING:
    from collections.abc import Collection, Generator

    from tests.crashes.steps import Steps

# Inode number, and whether it is a directory.
_Entry = tuple[int, bool]


class Record:
    """What is durable of a storage, by inode. Each note takes the place of the last one at once or not at all."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(exist_ok=True)

    def keep_file(self, inode: int, content: bytes) -> None:
        self._keep(f"{inode}.file", content)

    def keep_directory(self, inode: int, entries: dict[str, _Entry]) -> None:
        self._keep(f"{inode}.directory", json.dumps(entries).encode())

    def content(self, inode: int) -> bytes:
        """Of a file; empty if it was never flushed."""
        return self._kept(f"{inode}.file")

    def entries(self, inode: int) -> dict[str, _Entry]:
        """Of a directory; none if it was never flushed."""
        return json.loads(self._kept(f"{inode}.directory") or b"{}")

    @contextmanager
    def alone(self) -> Generator[None]:
        """Nobody else, of any process, looks at a directory and keeps what it saw at the same time."""
        with (self._directory / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def keep_all(self, directory: Path) -> None:
        """Everything that is there now is durable."""
        self.keep_directory(directory.stat().st_ino, entries_of(directory))
        for path in directory.iterdir():
            if path.is_dir():
                self.keep_all(path)
            else:
                self.keep_file(path.stat().st_ino, path.read_bytes())

    def _keep(self, name: str, content: bytes) -> None:
        # The process may die at another thread's step while this is being written.
        unfinished = self._directory / f"{name}.new"
        unfinished.write_bytes(content)
        unfinished.rename(self._directory / name)

    def _kept(self, name: str) -> bytes:
        try:
            return (self._directory / name).read_bytes()
        except FileNotFoundError:
            return b""


def entries_of(directory: Path) -> dict[str, _Entry]:
    with os.scandir(directory) as found:
        return {entry.name: (entry.inode(), entry.is_dir(follow_symlinks=False)) for entry in found}


def cut_power(root: Path, record: Record) -> None:
    """Leave in `root` what the record vouches for. The root itself was there before."""
    lost = root.with_name(f"{root.name}.lost")
    root.rename(lost)
    lengths = {(found := path.stat()).st_ino: found.st_size for path in lost.rglob("*") if path.is_file()}
    _rebuild(root, lost.stat().st_ino, record, lengths)
    shutil.rmtree(lost)


def _rebuild(directory: Path, inode: int, record: Record, lengths: dict[int, int]) -> None:
    directory.mkdir(mode=0o700)
    for name, (child, is_directory) in record.entries(inode).items():
        if is_directory:
            _rebuild(directory / name, child, record, lengths)
        else:
            content = record.content(child)
            (directory / name).write_bytes(content.ljust(lengths.get(child, 0), b"\0"))


class CountedDisk(Disk):
    """Counts its steps and keeps the record. The calls named in `skipped` are not carried out, which is a fault."""

    def __init__(self, steps: Steps, record: Record, skipped: Collection[str] = ()) -> None:
        self._steps = steps
        self._record = record
        self._skipped = skipped

    def write(self, descriptor: int, block: memoryview, position: int) -> int:
        self._steps.point("before write")
        if self._steps.is_chosen("amid write"):
            super().write(descriptor, block[: len(block) // 2], position)
            self._steps.strike()
        written = super().write(descriptor, block, position)
        self._steps.point("after write")
        return written

    def copy_range(self, source: int, target: int, count: int, position: int) -> int:
        self._steps.point("before copy")
        if self._steps.is_chosen("amid copy"):
            super().copy_range(source, target, count // 2, position)
            self._steps.strike()
        copied = super().copy_range(source, target, count, position)
        self._steps.point("after copy")
        return copied

    def sync_file(self, descriptor: int) -> None:
        self._steps.point("before fdatasync")
        if "sync_file" not in self._skipped:
            # What is there before the flush is durable after it; what comes meanwhile may not be.
            content = Path(f"/proc/self/fd/{descriptor}").read_bytes()
            super().sync_file(descriptor)
            self._record.keep_file(os.fstat(descriptor).st_ino, content)
        self._steps.point("after fdatasync")

    def sync_directory(self, path: str) -> None:
        self._steps.point("before directory fsync")
        if "sync_directory" not in self._skipped:
            with self._record.alone():
                entries = entries_of(Path(path))
                super().sync_directory(path)
                self._record.keep_directory(os.stat(path).st_ino, entries)  # noqa: PTH116  (a string, as given)
        self._steps.point("after directory fsync")


class CountedFilesystem(Filesystem):
    """The driver of the settings' name `filesystem` in a process that is to die."""

    disk: ClassVar[Disk]

    def __init__(self, root: Path, threads: int = THREADS_DEFAULT, disk: Disk | None = None) -> None:
        super().__init__(root, threads, disk or self.disk)


def object_files(root: Path) -> dict[str, Path]:
    """Every file below the root by its storage key."""
    return {
        str(path.relative_to(root)): path for path in root.rglob("*") if stat.S_ISREG(path.lstat().st_mode)
    }
