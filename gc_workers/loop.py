"""A collector at work: batch after batch while there is something to do, and asleep until there is."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from app.blobs.driver import StorageError
from app.domain.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gc_workers.collectors import Batch, Collector
    from gc_workers.pace import Pace

_log = logging.getLogger("registry.gc")


class Ledger(Protocol):
    """Counts what collectors do."""

    def batch(self, collector: str, batch: Batch, seconds: float) -> None:
        """A batch was done."""
        ...

    def failure(self, collector: str, seconds: float) -> None:
        """A batch failed."""
        ...

    def sleep(self, collector: str, seconds: float) -> None:
        """The collector will rest for so long, or until it is woken."""
        ...


class Loop:
    """Runs one collector until it is stopped. `wake` ends its wait for work, and no other."""

    def __init__(self, collector: Collector, pace: Pace, ledger: Ledger) -> None:
        self._collector = collector
        self._pace = pace
        self._ledger = ledger
        self._waking = asyncio.Event()
        self._stopping = asyncio.Event()
        self._was_paused = False
        self._spell = _Spell()
        self._followers: Sequence[Loop] = ()

    def leads(self, followers: Sequence[Loop]) -> None:
        """Wake these when something was deleted: it may be work for them."""
        self._followers = followers

    def wake(self) -> None:
        """End the wait for work."""
        self._waking.set()

    def stop(self) -> None:
        """End after the batch that is under way."""
        self._stopping.set()
        self._waking.set()

    async def run(self) -> None:
        """Work until stopped. Whatever goes wrong is logged and tried again later."""
        while not self._stopping.is_set():
            self._waking.clear()
            wait, end = await self._turn()
            self._ledger.sleep(self._collector.name, wait)
            try:
                async with asyncio.timeout(wait):
                    await end.wait()
            except TimeoutError:
                continue

    async def _turn(self) -> tuple[float, asyncio.Event]:
        """One batch, and then how long to rest, and what ends the rest sooner."""
        began = monotonic()
        try:
            batch = await self._collector.collect(self._pace.limit)
            seconds = monotonic() - began
            self._ledger.batch(self._collector.name, batch, seconds)
            self._spell.add(batch)
            pause = self._pace.done(batch, seconds, monotonic())
            if pause is not None:
                return pause, self._stopping
            self._tell(batch)
            due = None if batch.is_paused else await self._collector.seconds_until_due()
            return self._pace.idle(due), self._waking
        except Exception as error:  # noqa: BLE001  (a collector that ends is one that nobody restarts)
            self._ledger.failure(self._collector.name, monotonic() - began)
            return await self._give_way(error), self._waking

    async def _give_way(self, error: Exception) -> float:
        known = isinstance(error, RegistryError | StorageError | TimeoutError)
        _log.warning(
            "%s: a batch of %d failed: %s",
            self._collector.name,
            self._pace.limit,
            str(error) or type(error).__name__,
            exc_info=None if known else error,
        )
        if self._pace.limit == 1:
            try:
                await self._collector.put_off_first()
            except Exception as second:  # noqa: BLE001
                _log.warning("%s: nor could it be put off: %s", self._collector.name, second)
        return self._pace.failed(monotonic())

    def _tell(self, batch: Batch) -> None:
        """What was done since the last rest, and that nothing is while deletions are paused."""
        if batch.is_paused and not self._was_paused:
            _log.info("%s: deletions are paused", self._collector.name)
        self._was_paused = batch.is_paused
        if self._spell.taken:
            _log.info("%s: %s", self._collector.name, self._spell)
        if self._spell.deleted:
            for follower in self._followers:
                follower.wake()
        self._spell = _Spell()


class _Spell:
    """What was done between two rests."""

    def __init__(self) -> None:
        self.taken = self.deleted = self._put_off = self._bytes = 0

    def add(self, batch: Batch) -> None:
        self.taken += batch.taken
        self.deleted += batch.deleted
        self._put_off += batch.put_off
        self._bytes += batch.bytes

    def __str__(self) -> str:
        put_off = f", {self._put_off} put off" if self._put_off else ""
        return f"{self.taken} looked at, {self.deleted} deleted ({self._bytes} bytes){put_off}"
