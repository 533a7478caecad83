"""Who is measured. Each serves the same content, which it got in its own way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.running import Running


class Contender(Protocol):
    """A registry that runs. `objects` is the directory with its bytes."""

    name: str
    running: Running
    objects: Path

    async def copy_tags(self, repository: str, tag: str, names: Sequence[str]) -> None:
        """Tag what `tag` names with each of the names, past the API."""
        ...

    async def copy_repository(self, source: str, names: Sequence[str]) -> None:
        """Make repositories with the content of `source`, past the API."""
        ...
