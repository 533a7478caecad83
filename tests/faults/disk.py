"""A disk that does as it is told, in every process of a registry: the driver that `tests.faults.launch` puts in place.

What it is told are files in the directory that FAULTS names. `read.5.2` makes the next two reads of all processes
together fail with errno 5; without the last number it is every one, until the file is gone. `write.slow.300` makes
every write take 300 ms longer; `sync` is the flush of a file, `directory` that of a directory.
While `read.hang` is there, no read ends.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from app.blobs.drivers.filesystem import Disk, Filesystem

if TYPE_CHECKING:
    from collections.abc import Mapping


class FaultyDisk(Disk):
    """The calls of a disk, each of which may be told to fail or to take its time."""

    def __init__(self, orders: Path) -> None:
        self._orders = orders

    def read(self, descriptor: int, count: int, position: int) -> bytes:
        self._obey("read")
        return super().read(descriptor, count, position)

    def write(self, descriptor: int, block: memoryview, position: int) -> int:
        self._obey("write")
        return super().write(descriptor, block, position)

    def sync_file(self, descriptor: int) -> None:
        self._obey("sync")
        super().sync_file(descriptor)

    def sync_directory(self, path: str) -> None:
        self._obey("directory")
        super().sync_directory(path)

    def _obey(self, call: str) -> None:
        for order in os.listdir(self._orders):  # noqa: PTH208
            name, what, *number = order.split(".")
            if name != call:
                continue
            if what == "slow":
                time.sleep(int(number[0]) / 1000)
            elif what == "hang":
                while (self._orders / order).exists():
                    time.sleep(0.02)
            elif not number or self._is_our_turn(order):
                raise OSError(int(what), os.strerror(int(what)))

    def _is_our_turn(self, order: str) -> bool:
        """Take one of the failures that are left. Renaming settles which of several callers gets it."""
        head, _, left = order.rpartition(".")
        path = self._orders / order
        try:
            if left == "1":
                path.unlink()
            else:
                path.rename(self._orders / f"{head}.{int(left) - 1}")
        except FileNotFoundError:
            return False
        return True


class FaultyFilesystem(Filesystem):
    """The file system on that disk."""

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, object]) -> Filesystem:
        root, threads = parameters["rootdirectory"], parameters["maxthreads"]
        assert isinstance(root, str | Path)
        assert isinstance(threads, int)
        return cls(Path(root), threads, FaultyDisk(Path(os.environ["FAULTS"])))
