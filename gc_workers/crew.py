"""The collectors of one process, side by side: started, woken and stopped together.

Any number of crews work on one database, and none knows of another: what one has locked the others pass over.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from app.store import collecting, queues
from app.store.bell import listen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from app.store.engine import Database, Target
    from app.store.queues import QueueState
    from gc_workers.loop import Loop

WATCH_SECONDS: Final = 15.0
_RETRY_SECONDS: Final = 5.0

_log = logging.getLogger("registry.gc")


class Crew:
    """Runs `loops`, of which each gives work to those after it.

    `review_delay` is written to the database first, if one is given. `bell` is where to listen for a wake-up. `watched`
    is told now and then how the queues stand, None if nobody wants to know.
    """

    def __init__(
        self,
        database: Database,
        loops: Sequence[Loop],
        *,
        review_delay: timedelta | None = None,
        bell: Target | None = None,
        watched: Callable[[Sequence[QueueState]], None] | None = None,
    ) -> None:
        self._database = database
        self._loops = loops
        for place, loop in enumerate(loops):
            loop.leads(loops[place + 1 :])
        self._review_delay = review_delay
        self._bell = bell
        self._watched = watched

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping` is set; the batches under way are finished."""
        async with asyncio.TaskGroup() as group:
            helpers = [group.create_task(self._set_review_delay()), group.create_task(self._watch())]
            if self._bell is not None:
                helpers.append(group.create_task(listen(self._bell, collecting.CHANNEL, self._wake)))
            loops = [group.create_task(loop.run()) for loop in self._loops]
            await stopping.wait()
            for loop in self._loops:
                loop.stop()
            await asyncio.wait(loops)
            for task in helpers:
                task.cancel()

    def _wake(self) -> None:
        for loop in self._loops:
            loop.wake()

    async def _set_review_delay(self) -> None:
        delay = self._review_delay
        while delay is not None:
            try:
                changed = await self._database.write(lambda c: collecting.set_review_after(c, delay))
            except Exception as error:  # noqa: BLE001  (collecting goes on without it)
                _log.warning("the review delay could not be set: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                if changed:
                    _log.info("reviews fall due after %s from now on", delay)
                return

    async def _watch(self) -> None:
        while self._watched is not None:
            try:
                self._watched(await self._database.read(queues.states))
            except Exception as error:  # noqa: BLE001  (collecting goes on without it)
                _log.debug("nobody knows how the queues stand: %s", error)
            await asyncio.sleep(WATCH_SECONDS)
