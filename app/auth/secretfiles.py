"""Files that hold a secret: readable by their owner, whole from the first moment on, and still there after a crash.

Whoever looks sees no file, the old one or the new one, never a part of one. Of several processes that make the same
file exactly one does; the others find it made.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from secrets import token_hex
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700
# What a successor keeps of the permissions of the file before it: a service may read its key as one of a group.
_KEPT_MODE: Final = 0o640


def create(path: Path, content: bytes) -> bool:
    """Make the file, and the directories that lead to it. False: it is there already. Raises OSError."""
    _make_directory(path.parent)
    with _written_beside(path, content) as new:
        try:
            # A link, unlike a renaming, refuses to take the place of another file.
            os.link(new, path)
        except FileExistsError:
            return False
    _sync_directory(path.parent)
    return True


def replace(path: Path, content: bytes) -> None:
    """Put a new file in the place of the old one, whose owner and group it keeps. Raises OSError."""
    path = path.resolve(strict=True)
    with _written_beside(path, content, like=path.stat()) as new:
        new.rename(path)
    _sync_directory(path.parent)


@contextmanager
def _written_beside(path: Path, content: bytes, like: os.stat_result | None = None) -> Generator[Path]:
    """A new file in the same directory, durable; it is gone at the end unless it was renamed."""
    new = path.with_name(f".{path.name}.{token_hex(8)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
            if like is not None:
                _take_after(descriptor, like)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        yield new
    finally:
        new.unlink(missing_ok=True)


def reason(error: OSError) -> str:
    """What is in the way, and where."""
    words = error.strerror or type(error).__name__
    return f"{error.filename}: {words}" if error.filename else words


def _take_after(descriptor: int, like: os.stat_result) -> None:
    own = os.fstat(descriptor)
    if (own.st_uid, own.st_gid) != (like.st_uid, like.st_gid):
        os.fchown(descriptor, like.st_uid, like.st_gid)
    os.fchmod(descriptor, like.st_mode & _KEPT_MODE | _MODE)


def _make_directory(path: Path) -> None:
    if not path.is_dir():
        _make_directory(path.parent)
        path.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
