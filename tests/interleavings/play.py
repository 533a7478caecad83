"""One example: prepare, let the actors play, look whether all is right, clear away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.interleavings.world import ENDS, NEVER_WAIT, World

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Sequence

    from tests.interleavings.theatre import Cut, Schedule, Theatre

# Replica: neither triggers nor foreign keys, as everything goes.
_CLEAR: Final = """
    SET session_replication_role = replica;
    DELETE FROM repositories; DELETE FROM blobs; DELETE FROM repository_blobs; DELETE FROM manifests;
    DELETE FROM layers; DELETE FROM manifest_references; DELETE FROM tags; DELETE FROM blob_uploads;
    DELETE FROM gc_blob_review_queue; DELETE FROM gc_manifest_review_queue; DELETE FROM gc_storage_deletions;
    DELETE FROM gc_receipts; UPDATE gc_control SET is_paused = false WHERE is_paused;
    SET session_replication_role = origin
"""


@dataclass(frozen=True)
class Playhouse:
    """A theatre, and the event loop in which everything happens."""

    runner: asyncio.Runner
    theatre: Theatre

    def run(self, scene: Callable[[World], Awaitable[None]], *cuts: Cut) -> None:
        """Play the scene on an empty database, with the functions as they are but for the cuts."""

        async def play() -> None:
            async with self.theatre.without(*cuts):
                try:
                    await scene(World(self.theatre))
                finally:
                    await self.theatre.crew.raw.execute(_CLEAR)

        self.runner.run(play())

    def play(
        self, actors: Sequence[str], schedule: Schedule, *cuts: Cut, state: str, grace: bool = True
    ) -> None:
        """Play these actors, and assert that all is right."""

        async def scene(world: World) -> None:
            world.grace = grace
            world.ended = {what for name in actors for what in ENDS.get(name, ())}
            await world.prepare(state)
            outcome = await world.theatre.perform([getattr(world, name) for name in actors], schedule)
            await world.assert_right(outcome)
            for one, other in outcome.waited:
                assert actors[one] not in NEVER_WAIT, f"{actors[one]} waited for {actors[other]}"

        self.run(scene, *cuts)
