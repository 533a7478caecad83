"""One registry per data directory: the lock that everything else in the directory relies on.

The lock is the kernel's (`flock`), so it goes with the process that holds it, whichever way that process
ends, and the file that stays behind means nothing by itself.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Self

from app.runtime.embedded.errors import EmbeddedError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class InstanceLock:
    """Holds `<root>/lock` from `take` to `release`, or for a `with` block. Makes the directory if need be."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._descriptor: int | None = None

    def take(self) -> None:
        """Take the lock or raise EmbeddedError, which names the directory and the process that holds it."""
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EmbeddedError(
                f"the data directory {self._root} cannot be used: {error.strerror}"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise EmbeddedError(
                f"another registry (process {holder or 'unknown'}) is using {self._root}: "
                "stop it first, or choose another data directory"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Let the next one in. The file stays: without it, two processes could lock two files of one name."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
