"""The collectors, built from the settings: those that work beside the API, and those of one pass at a terminal."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from app.blobs.driver import DELETE_KEYS_MAX
from app.blobs.drivers import open_driver
from app.store.engine import Database
from app.wiring.checks import refuse_empty_storage
from app.wiring.parts import target_of
from gc_workers.collectors import BlobReview, ManifestReview, ObjectRemoval, ReceiptPruning, UploadExpiry
from gc_workers.crew import Crew
from gc_workers.loop import Loop
from gc_workers.pace import BATCH_SECONDS_MAX, Pace, Tempo

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from app.blobs.driver import Driver
    from app.config import Duration, Settings
    from app.runtime.gc_metrics import GcMetrics
    from app.store.engine import Timings
    from app.store.queues import QueueState
    from gc_workers.collectors import Batch, Collector

# One for each collector, and one for who looks at the queues.
CONNECTIONS: Final = 6
# Beyond what the server itself allows a batch: until its word that it gave up has come.
_ANSWER_SPARE_SECONDS: Final = 5.0


class OpenCrew:
    """The collectors with what they were built of."""

    def __init__(self, crew: Crew, closing: AsyncExitStack) -> None:
        self._crew = crew
        self._closing = closing

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until told to stop."""
        await self._crew.run(stopping)

    async def close(self) -> None:
        """Close in the reverse order of opening."""
        await self._closing.aclose()


async def open_crew(settings: Settings, metrics: GcMetrics) -> OpenCrew:
    """Build all that collects. Raises Unavailable if the database cannot be reached, or the storage is not there."""
    # What is not mounted looks as if every object were deleted already.
    await refuse_empty_storage(settings)
    async with AsyncExitStack() as stack:
        database = await open_gc_database(settings, None)
        stack.push_async_callback(database.close)
        driver = open_driver(settings.storage.driver, settings.storage.parameters)
        stack.push_async_callback(driver.close)
        count = _Count(metrics)
        loops = [
            Loop(collector, Pace(tempo(settings, collector)), count)
            for collector in collectors(settings, database, driver)
        ]
        delay = settings.gc.review_delay_seconds
        crew = Crew(
            database,
            loops,
            review_delay=None if delay is None else timedelta(seconds=delay),
            bell=target_of(settings),
            watched=count.queues,
        )
        return OpenCrew(crew, stack.pop_all())
    raise AssertionError


async def open_gc_database(settings: Settings, timings: Timings | None) -> Database:
    """The database as collectors use it: a batch that takes longer than `gc.transactiontimeout` is given up."""
    seconds = max(settings.gc.transactiontimeout.seconds, 0.1)
    return await Database.open(
        target_of(settings),
        connections_max=CONNECTIONS,
        prepared_statements=settings.database.preparedstatements,
        queue_seconds=settings.database.pool.queuetimeout.seconds,
        answer_seconds=seconds + _ANSWER_SPARE_SECONDS,
        session={"application_name": "registry gc", "statement_timeout": f"{seconds * 1000:.0f}ms"},
        timings=timings,
    )


def collectors(settings: Settings, database: Database, driver: Driver) -> list[Collector]:
    """What the settings have collected, in the order of a pass: what one deletes gives work to those after it."""
    gc, purging = settings.gc, settings.storage.maintenance.uploadpurging
    found: list[Collector] = []
    if purging.enabled and not purging.dryrun:
        found.append(UploadExpiry(database, age=_span(purging.age)))
    if not gc.manifests.disabled:
        found.append(ManifestReview(database, keep_untagged=gc.manifests.keepuntagged))
    if not gc.blobs.disabled:
        found.extend(
            (
                BlobReview(database, storage_delay=_span(gc.blobs.storagedelay)),
                ObjectRemoval(database, driver, timeout_seconds=gc.blobs.storagetimeout.seconds),
            )
        )
    found.append(ReceiptPruning(database, age=_span(gc.receipts.age)))
    return found


def tempo(settings: Settings, collector: Collector) -> Tempo:
    """How fast the settings have a collector work."""
    gc = settings.gc
    interval = gc.manifests.interval if collector.name == ManifestReview.name else gc.blobs.interval
    # Objects are deleted without any lock, and the more at once, the fewer flushes of directories and calls of a store.
    is_bulk = collector.name == ObjectRemoval.name
    return Tempo(
        batch=DELETE_KEYS_MAX if is_bulk else gc.batchsize,
        batch_seconds=gc.blobs.storagetimeout.seconds / 2 if is_bulk else BATCH_SECONDS_MAX,
        load=gc.load,
        rate=gc.ratelimit,
        interval_seconds=interval.seconds,
        longest_seconds=gc.maxbackoff.seconds,
        is_steady=gc.noidlebackoff,
        cooldown_seconds=gc.errorcooldownperiod.seconds,
    )


def _span(duration: Duration) -> timedelta:
    return timedelta(seconds=max(duration.seconds, 0.0))


class _Count:
    """What collectors do, in the names of the metrics."""

    def __init__(self, metrics: GcMetrics) -> None:
        self._metrics = metrics

    def batch(self, collector: str, batch: Batch, seconds: float) -> None:
        self._metrics.batch(collector, seconds, taken=batch.taken, put_off=batch.put_off)
        if not batch.deleted:
            return
        match collector:
            case ManifestReview.name:
                self._metrics.deleted("database", "manifest", batch.deleted, 0)
            case BlobReview.name:
                self._metrics.deleted("database", "blob", batch.deleted, 0)
            case ObjectRemoval.name:
                self._metrics.deleted("storage", "blob", batch.deleted, batch.bytes)
            case _:
                pass

    def failure(self, collector: str, seconds: float) -> None:
        self._metrics.failure(collector, seconds)

    def sleep(self, collector: str, seconds: float) -> None:
        self._metrics.sleep(collector, seconds)

    def queues(self, states: Sequence[QueueState]) -> None:
        for state in states:
            self._metrics.queue(state.queue, state.due, state.oldest_due_seconds)
