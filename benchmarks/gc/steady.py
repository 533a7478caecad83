"""A steady, moderate load of three kinds, for latencies: `python -m benchmarks.gc.steady` reads a job as JSON.

Operations come at random moments that do not depend on how the server fares (the same moments in every run), and each
is timed from the moment when it should have begun: a server that stands still for a second is charged for all that was
to happen in it. A push is three requests: POST, PUT of the blob, PUT of the manifest under a tag that moves.
"""

from __future__ import annotations

import heapq
import json
import os
import random
import re
import select
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from benchmarks.asking import path_of, with_digest
from benchmarks.generator import Request, Script, WrongAnswerError
from benchmarks.images import ACCEPT, KIB, MANIFEST_TYPE, digest_of, manifest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONFIG: Final = b"{}"
_BLOB_BYTES: Final = KIB
_TAGS: Final = 10
_READ_BYTES: Final = 64 * KIB
_PATIENCE_SECONDS: Final = 60.0
# Connections for each kind: more than are busy at once unless the server stands still.
_LANES: Final = 8
_END_OF_HEAD: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LOCATION: Final = re.compile(rb"\r\nlocation: *([^\r]+)", re.IGNORECASE)
# The client is meant to be elsewhere, with processors of its own.
_NICENESS: Final = -10


@dataclass(frozen=True)
class Job:
    """What to do. `rates` are operations a second by kind, `manifests` and `blobs` paths of what is there."""

    host: str
    port: int
    seconds: float
    rates: dict[str, float]
    manifests: tuple[str, ...]
    blobs: tuple[str, ...]
    repository: str


@dataclass
class Counts:
    """What happened: by kind how long each operation took, in milliseconds; in `words` why the run ended early."""

    words: str = ""
    cpu_seconds: float = 0.0
    latencies_ms: dict[str, list[float]] = field(default_factory=dict[str, list[float]])


class Lane:
    """A connection, with an operation on it or none."""

    def __init__(self, job: Job) -> None:
        self._socket = socket.create_connection((job.host, job.port), timeout=_PATIENCE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = b""
        self._script: Script | None = None
        self._request = Request(b"", b"")
        self._due = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether it may begin something."""
        return self._script is None

    def fileno(self) -> int:
        """For the poll."""
        return self._socket.fileno()

    def begin(self, script: Script, due: float) -> None:
        """Begin an operation, which was due then."""
        self._script, self._due = script, due
        self._send(next(script))

    def readable(self) -> float | None:
        """Take what came. At the end of an operation: the seconds that it took. Raises WrongAnswerError or OSError."""
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        self._data += data
        end = self._data.find(_END_OF_HEAD)
        if end < 0 or not self._is_whole(end):
            return None
        head, self._data = self._data[: end + 2], b""
        if head[9:12] != self._request.expect:
            asked = self._request.content.partition(b"\r\n")[0].decode()
            raise WrongAnswerError(
                f"{asked}: {head[9:12].decode()} instead of {self._request.expect.decode()}"
            )
        assert self._script is not None
        try:
            self._send(self._script.send(head))
        except StopIteration:
            self._script = None
            return time.perf_counter() - self._due
        return None

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def _send(self, request: Request) -> None:
        self._request = request
        self._socket.sendall(request.content)

    def _is_whole(self, end: int) -> bool:
        if not self._request.has_body:
            return True
        length = _LENGTH.search(self._data[: end + 2])
        return len(self._data) >= end + len(_END_OF_HEAD) + (int(length[1]) if length else 0)


class Load:
    """The operations to come, those that wait for a connection, and the connections. Every list is by kind."""

    def __init__(self, job: Job, counts: Counts) -> None:
        self._counts = counts
        self._lanes = {kind: [Lane(job) for _ in range(_LANES)] for kind in job.rates}
        self._kinds = {lane.fileno(): (kind, lane) for kind, lanes in self._lanes.items() for lane in lanes}
        self._scripts = {kind: _SCRIPTS[kind](job) for kind in job.rates}
        self._backlog: dict[str, deque[float]] = {kind: deque() for kind in job.rates}
        counts.latencies_ms = {kind: [] for kind in job.rates}

    def run(self, began: float, seconds: float, moments: list[tuple[float, str]]) -> None:
        """Go through the moments, seconds after `began`, and end when all is answered, or some seconds later."""
        until = began + seconds
        coming = deque(moments)
        while (now := time.perf_counter()) < until + _PATIENCE_SECONDS:
            while coming and began + coming[0][0] <= now:
                after, kind = coming.popleft()
                self._backlog[kind].append(began + after)
            self._begin()
            if not coming and now >= until and self._is_quiet():
                return
            wait = began + coming[0][0] - now if coming else 0.05
            # Its time-out is exact, which that of poll is not: that one is in milliseconds.
            for descriptor in select.select(list(self._kinds), (), (), max(wait, 0.0))[0]:
                kind, lane = self._kinds[descriptor]
                if (took := lane.readable()) is not None:
                    self._counts.latencies_ms[kind].append(1000 * took)
        raise TimeoutError(f"requests had no answer for {_PATIENCE_SECONDS:g} seconds")

    def close(self) -> None:
        """Close every connection."""
        for _, lane in self._kinds.values():
            lane.close()

    def _begin(self) -> None:
        for kind, waiting in self._backlog.items():
            idle = (lane for lane in self._lanes[kind] if lane.is_idle)
            for lane in idle:
                if not waiting:
                    break
                lane.begin(next(self._scripts[kind]), waiting.popleft())

    def _is_quiet(self) -> bool:
        return all(lane.is_idle for _, lane in self._kinds.values()) and not any(self._backlog.values())


def moments(job: Job) -> list[tuple[float, str]]:
    """When each operation begins, in seconds: at random, as from many clients who do not know each other."""
    chance = random.Random(0)  # noqa: S311  (nothing secret)
    found: list[tuple[float, str]] = []
    for kind, rate in job.rates.items():
        at = chance.expovariate(rate)
        while at < job.seconds:
            heapq.heappush(found, (at, kind))
            at += chance.expovariate(rate)
    return sorted(found)


def run(job: Job) -> Counts:
    """Do the job. The first fault ends it."""
    counts = Counts()
    load = Load(job, counts)
    used = time.process_time()
    try:
        load.run(time.perf_counter(), job.seconds, moments(job))
    except (WrongAnswerError, OSError) as error:
        counts.words = str(error) or type(error).__name__
    counts.cpu_seconds = time.process_time() - used
    load.close()
    return counts


def _pulls(job: Job) -> Iterator[Script]:
    while True:
        for path in job.manifests:
            yield _single(_head("GET", path, job, f"Accept: {ACCEPT}\r\n"), has_body=True)


def _heads(job: Job) -> Iterator[Script]:
    while True:
        for path in job.blobs:
            yield _single(_head("HEAD", path, job), has_body=False)


def _pushes(job: Job) -> Iterator[Script]:
    nonce = os.urandom(8).hex()
    number = 0
    while True:
        yield _push(job, f"{nonce} {number}\n".encode().ljust(_BLOB_BYTES, b"."), f"t{number % _TAGS}")
        number += 1


_SCRIPTS: Final[dict[str, Callable[[Job], Iterator[Script]]]] = {
    "pull": _pulls,
    "head": _heads,
    "push": _pushes,
}


def _single(content: bytes, *, has_body: bool) -> Script:
    yield Request(content, b"200", has_body)


def _push(job: Job, blob: bytes, tag: str) -> Script:
    base = f"/v2/{job.repository}"
    head = yield Request(_head("POST", f"{base}/blobs/uploads/", job, "Content-Length: 0\r\n"), b"202")
    found = _LOCATION.search(head)
    if found is None:
        raise WrongAnswerError("an answer had no Location")
    location = with_digest(path_of(found[1].decode()), digest_of(blob))
    more = f"Content-Type: application/octet-stream\r\nContent-Length: {len(blob)}\r\n"
    yield Request(_head("PUT", location, job, more) + blob, b"201")
    manifest = manifest_of(CONFIG, [blob])
    more = f"Content-Type: {MANIFEST_TYPE}\r\nContent-Length: {len(manifest)}\r\n"
    yield Request(_head("PUT", f"{base}/manifests/{tag}", job, more) + manifest, b"201")


def _head(method: str, path: str, job: Job, more: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {job.host}:{job.port}\r\n{more}\r\n".encode()


def main() -> None:
    """Read a job, do it, and print what was counted."""
    job: dict[str, Any] = json.load(sys.stdin)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
    counts = run(Job(**job))
    sys.stdout.write(json.dumps(vars(counts)))


if __name__ == "__main__":
    main()
