"""What the collectors count. One page with what the workers count (app/runtime/metrics.py tells how)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_BATCH_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SLEEP_SECONDS: Final = (0.1, 0.5, 1, 5, 15, 30, 60, 300)


class GcMetrics:
    """The counters of the collectors in one process. Not made twice for the same registry."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._runs = Counter(
            "registry_gc_runs",
            "Batches that a collector took up; noop: nothing was due, error: it failed.",
            ("worker", "noop", "error"),
            registry=registry,
        )
        self._durations = Histogram(
            "registry_gc_run_duration_seconds",
            "Time that a batch took.",
            ("worker",),
            registry=registry,
            buckets=_BATCH_SECONDS,
        )
        self._reviews = Counter(
            "registry_gc_reviews", "Reviews, objects or sessions taken up.", ("worker",), registry=registry
        )
        self._deletes = Counter(
            "registry_gc_deletes", "What was deleted, and where.", ("backend", "artifact"), registry=registry
        )
        self._bytes = Counter(
            "registry_gc_storage_deleted_bytes", "Bytes of objects that were deleted.", registry=registry
        )
        self._postpones = Counter(
            "registry_gc_postpones", "Reviews and objects put off.", ("worker",), registry=registry
        )
        self._sleeps = Histogram(
            "registry_gc_sleep_duration_seconds",
            "Time that a collector meant to rest.",
            ("worker",),
            registry=registry,
            buckets=_SLEEP_SECONDS,
        )
        self._due = Gauge(
            "registry_gc_due",
            "What is due in a queue; 100000 is that or more.",
            ("queue",),
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._oldest = Gauge(
            "registry_gc_oldest_due_seconds",
            "For how long the oldest has been due in a queue; 0 if nothing is.",
            ("queue",),
            registry=registry,
            multiprocess_mode="livemostrecent",
        )

    def batch(self, worker: str, seconds: float, *, taken: int, put_off: int) -> None:
        """A batch was done."""
        self._runs.labels(worker, "true" if taken == 0 else "false", "false").inc()
        self._durations.labels(worker).observe(seconds)
        if taken:
            self._reviews.labels(worker).inc(taken)
        if put_off:
            self._postpones.labels(worker).inc(put_off)

    def failure(self, worker: str, seconds: float) -> None:
        """A batch failed."""
        self._runs.labels(worker, "false", "true").inc()
        self._durations.labels(worker).observe(seconds)

    def deleted(self, backend: str, artifact: str, count: int, freed: int) -> None:
        """Rows or objects are gone, `freed` bytes of storage with them."""
        self._deletes.labels(backend, artifact).inc(count)
        if freed:
            self._bytes.inc(freed)

    def sleep(self, worker: str, seconds: float) -> None:
        """A collector rests."""
        self._sleeps.labels(worker).observe(seconds)

    def queue(self, name: str, due: int, oldest_due_seconds: float) -> None:
        """How a queue stands."""
        self._due.labels(name).set(due)
        self._oldest.labels(name).set(oldest_due_seconds)
