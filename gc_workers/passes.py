"""One pass now, for whoever waits for it: every collector in turn, until nothing more is due.

There are no pauses. A pass may run beside crews and other passes; it ends when what it finds due is done, even while
new work comes. Interrupted, it leaves what was done done, and the rest to the next.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from app.domain.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gc_workers.collectors import Batch, Collector

# Batches in a row that fail even alone before a pass gives a collector up.
FAILURES_MAX: Final = 5

_log = logging.getLogger("registry.gc")


class Paused(Exception):
    """Deletions are paused."""


@dataclass
class Tally:
    """What a collector did in a pass."""

    name: str
    taken: int = 0
    deleted: int = 0
    put_off: int = 0
    bytes: int = 0
    failures: int = 0

    def add(self, batch: Batch) -> None:
        """Count a batch in."""
        self.taken += batch.taken
        self.deleted += batch.deleted
        self.put_off += batch.put_off
        self.bytes += batch.bytes


async def full_pass(
    collectors: Sequence[Collector], limit: int, *, told: Callable[[Tally], None] = lambda _: None
) -> list[Tally]:
    """Run a pass with batches of `limit`; `told` hears of each. Raises Unavailable, and Paused while deletions are."""
    tallies: list[Tally] = []
    for collector in collectors:
        tallies.append(Tally(collector.name))
        await _run(collector, limit, tallies[-1], told)
    return tallies


async def _run(collector: Collector, limit: int, tally: Tally, told: Callable[[Tally], None]) -> None:
    size, in_a_row = limit, 0
    while True:
        try:
            batch = await collector.collect(size)
        except Exception as error:
            _log.warning(
                "%s: a batch of %d failed: %s", collector.name, size, str(error) or type(error).__name__
            )
            tally.failures += 1
            in_a_row = in_a_row + 1 if size == 1 else 0
            if in_a_row >= FAILURES_MAX:
                raise Unavailable(f"{collector.name}: {in_a_row} batches in a row failed: {error}") from error
            if size == 1:
                await collector.put_off_first()
            size = max(size // 2, 1)
            continue
        if batch.is_paused:
            raise Paused("garbage collection is paused")
        tally.add(batch)
        told(tally)
        if batch.taken < size:
            return
        in_a_row, size = 0, min(size * 2, limit)
