"""What the registry counts, and how the counts of several processes become one page.

Each worker process counts in files of its own (`share`), named after its place and not after its process, so
that the one that replaces a dead worker counts on where that one stopped. `Scrape` adds the files up. Without
`share` everything is kept in the process, which is what tests do.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess, values
from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from pathlib import Path

_REQUEST_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_QUERY_SECONDS: Final = (
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
)
# A method is the client's to invent; a label for each would be a way to fill our memory.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """The counters of one process. Not made twice for the same registry."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._requests = Counter(
            "registry_http_requests", "Requests answered.", ("route", "method", "code"), registry=registry
        )
        self._durations = Histogram(
            "registry_http_request_duration_seconds",
            "Time from a request's headers to the end of its answer.",
            ("route", "method"),
            registry=registry,
            buckets=_REQUEST_SECONDS,
        )
        self._received = Counter(
            "registry_http_request_bytes", "Bytes of request bodies.", ("route",), registry=registry
        )
        self._sent = Counter(
            "registry_http_response_bytes", "Bytes of answers' bodies.", ("route",), registry=registry
        )
        self._queries = Histogram(
            "registry_database_query_duration_seconds",
            "Time of a database statement, by its name.",
            ("query",),
            registry=registry,
            buckets=_QUERY_SECONDS,
        )
        pool = Gauge(
            "registry_database_pool_connections",
            "Open database connections, by what they do.",
            ("state",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._in_use, self._idle = pool.labels("in_use"), pool.labels("idle")
        # What `labels` returns is kept: looking it up there takes as long as all the counting.
        self._of_request: dict[tuple[str, str, int], tuple[Counter, Histogram, Counter, Counter]] = {}
        self._of_query: dict[str, Histogram] = {}

    def request(  # noqa: PLR0917  (the order of the words of its name)
        self, route: str, method: str, status: int, seconds: float, received: int, sent: int
    ) -> None:
        """A request was answered. Takes 6 µs: five numbers, each in a mapped file."""
        key = (route, method, status)
        children = self._of_request.get(key) or self._first_request(route, method, status)
        children[0].inc()
        children[1].observe(seconds)
        if received:
            children[2].inc(received)
        if sent:
            children[3].inc(sent)

    def statement(self, name: str, seconds: float) -> None:
        """A database statement was run. Takes 2.5 µs."""
        child = self._of_query.get(name)
        if child is None:
            child = self._of_query[name] = self._queries.labels(name)
        child.observe(seconds)

    def pool(self, in_use: int, opened: int) -> None:
        """The pool has `opened` connections, of which `in_use` are with someone."""
        self._in_use.set(in_use)
        self._idle.set(opened - in_use)

    def _first_request(
        self, route: str, method: str, status: int
    ) -> tuple[Counter, Histogram, Counter, Counter]:
        name = method if method in _METHODS else "OTHER"
        children = (
            self._requests.labels(route, name, str(status)),
            self._durations.labels(route, name),
            self._received.labels(route),
            self._sent.labels(route),
        )
        if name == method:
            self._of_request[route, method, status] = children
        return children


def share(directory: Path, place: int) -> None:
    """Let this process count in `directory`, as number `place`. Comes before the first `Metrics` is made."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    values.ValueClass = values.MultiProcessValue(lambda: place)  # pyright: ignore[reportUnknownMemberType]


def forget(directory: Path, place: int) -> None:
    """Drop what only a living process can say, such as its open connections. What was counted stays."""
    multiprocess.mark_process_dead(place, str(directory))  # pyright: ignore[reportUnknownMemberType]


class Scrape:
    """The page of metrics: of every process that counts in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(self._registry, str(directory))

    def __call__(self, accept: str) -> tuple[bytes, str]:
        """The page in the form that `accept` asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type
