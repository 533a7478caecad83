"""A volume for objects that fills up, becomes read-only and goes away.

Where we may mount, it is a file system of its own, and the kernel does all that. Elsewhere it is a directory, and the
registry's disk (`tests.faults.disk`) says what a kernel would.
"""

from __future__ import annotations

import errno
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.place import Registry

SIZE_BYTES: Final = 128 * 1024 * 1024
FREE_BYTES: Final = 1024 * 1024


class Volume:
    """`path` is where it is mounted, if it is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.is_mounted = _mount("-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(path))

    @contextmanager
    def full(self, registry: Registry) -> Iterator[None]:
        """A megabyte is left."""
        if not self.is_mounted:
            with registry.disk(f"write.{errno.ENOSPC}"):
                yield
            return
        ballast = self.path / "ballast"
        with ballast.open("wb") as file:
            file.write(bytes(shutil.disk_usage(self.path).free - FREE_BYTES))
        try:
            yield
        finally:
            ballast.unlink()

    @contextmanager
    def read_only(self, registry: Registry) -> Iterator[None]:
        """Nothing can be changed."""
        if not self.is_mounted:
            with registry.disk(f"write.{errno.EROFS}", f"sync.{errno.EROFS}"):
                yield
            return
        with self.mounted_read_only():
            yield

    @contextmanager
    def mounted_read_only(self) -> Iterator[None]:
        """The same of one that is mounted."""
        assert _mount("-o", "remount,ro", str(self.path))
        try:
            yield
        finally:
            assert _mount("-o", "remount,rw", str(self.path))

    def close(self) -> None:
        if self.is_mounted:
            subprocess.run(["umount", "--lazy", str(self.path)], check=True)


def _mount(*arguments: str) -> bool:
    try:
        return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
