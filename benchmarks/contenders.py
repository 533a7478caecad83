"""Who is measured. Each serves the same content, which it got in its own way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.running import Running
    from benchmarks.trees import Use

OURS: Final = "ours"
PEER: Final = "peer"
BOTH: Final = (OURS, PEER)
# With the same token service outside, whose tokens they want.
OURS_GUARDED: Final = "ours-token"
PEER_GUARDED: Final = "peer-token"
# With accounts of its own, issuing tokens.
ISSUER: Final = "issuer"


class Contender(Protocol):
    """A registry. `blobs` is the directory below which its blobs lie; a guest runs in its turns only.

    `headers` are what it wants of every request: its token, if it asks for one.
    """

    name: str
    is_guest: bool
    headers: Mapping[str, str]
    running: Running
    blobs: Path

    def cpu_seconds(self) -> Use:
        """Processor time so far, of everything that serves its requests."""
        ...

    def memory_bytes(self) -> Use:
        """Resident memory, of everything that serves its requests."""
        ...


class Seedable(Contender, Protocol):
    """A contender whose storage can be filled faster than by requests."""

    async def copy_tags(self, repository: str, tag: str, names: Sequence[str]) -> None:
        """Tag what `tag` names with each of the names."""
        ...

    async def copy_repository(self, source: str, names: Sequence[str]) -> None:
        """Make repositories with the content of `source`."""
        ...

    async def add_accounts(self) -> None:
        """Add those of `accounts`. Raises BenchError if it knows no accounts."""
        ...
