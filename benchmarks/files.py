"""Large files to push. Each has a tail that can be changed at no cost, so that every push brings a new digest."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.images import MIB, noise

if TYPE_CHECKING:
    from collections.abc import Iterator

_TAIL_BYTES: Final = 32
_LARGE_BYTES: Final = 32 * MIB


@dataclass
class Renewable:
    """A file, and the running hash of all that stays as it is."""

    path: Path
    size: int
    _hash: Any

    def renew(self) -> str:
        """Give the file a content that it never had. Returns its digest."""
        tail = os.urandom(_TAIL_BYTES)
        with self.path.open("r+b") as file:
            file.seek(self.size - _TAIL_BYTES)
            file.write(tail)
        whole = self._hash.copy()
        whole.update(tail)
        return f"sha256:{whole.hexdigest()}"


def make(directory: Path, count: int, size: int, *, empty: bool = False) -> list[Renewable]:
    """Files of noise, or with `empty` such as take no room on the disk; they are on the disk once we return."""
    block = bytes(MIB) if empty else noise("file", MIB)
    content = hashlib.sha256()
    for length in _lengths(size):
        content.update(block[:length])
    files = [Renewable(directory / f"file-{number}", size, content) for number in range(count)]
    for made in files:
        with made.path.open("wb") as file:
            if not empty:
                for length in _lengths(size):
                    file.write(block[:length])
            file.truncate(size)
            file.flush()
            os.fsync(file.fileno())
    return files


def _lengths(size: int) -> Iterator[int]:
    """Of the blocks that make up a file, up to its tail."""
    stable = size - _TAIL_BYTES
    return (min(MIB, stable - at) for at in range(0, stable, MIB))


def lines_of_blobs(directory: Path, files: int, lines: int, size: int) -> None:
    """Files 0, 1, … with a line "BYTES DIGEST" for each new blob, as push.lua wants them."""
    nonce = os.urandom(8).hex()
    for number in range(files):
        heads = [f"{nonce}-{number}-{line}" for line in range(lines)]
        with (directory / str(number)).open("w") as file:
            for head in heads:
                digest = hashlib.sha256(head.encode().ljust(size, b".")).hexdigest()
                file.write(f"{head} sha256:{digest}\n")


def large_files(directory: Path) -> set[Path]:
    """Files below the directory that are worth removing: a disk is full soon at this rate."""
    found: set[Path] = set()
    for parent, _, names in os.walk(directory):
        for name in names:
            path = Path(parent, name)
            with suppress(FileNotFoundError):  # an upload that was cut off is being cleared away
                if path.stat().st_size >= _LARGE_BYTES:
                    found.add(path)
    return found
