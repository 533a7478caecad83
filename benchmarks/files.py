"""Large files to push. Each has a tail that can be changed at no cost, so that every push brings a new digest."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.images import MIB, noise

_TAIL_BYTES: Final = 32


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


def make(path: Path, size: int, *, empty: bool = False) -> Renewable:
    """Write a file of noise, or with `empty` one that takes no room on the disk; it is on the disk once we return."""
    block = bytes(MIB) if empty else noise("file", MIB)
    content = hashlib.sha256()
    with path.open("wb") as file:
        for at in range(0, size - _TAIL_BYTES, MIB):
            part = block[: size - _TAIL_BYTES - at]
            content.update(part)
            if not empty:
                file.write(part)
        file.truncate(size)
        file.flush()
        os.fsync(file.fileno())
    return Renewable(path, size, content)


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
            if path.stat().st_size >= 32 * MIB:
                found.add(path)
    return found
