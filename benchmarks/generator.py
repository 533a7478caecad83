"""The load that no packaged generator makes: HEAD (wrk and h2load wait for a body that never comes), and whole pushes.

A process of its own: `python -m benchmarks.generator` reads a job as JSON and prints what it counted. One thread,
some connections, one request at a time on each; requests are made as bytes and answers read no further than needed.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from benchmarks.asking import path_of, with_digest
from benchmarks.images import KIB, MANIFEST_TYPE, digest_of, manifest_of

LAYERS: Final = 10
LAYER_BYTES: Final = 10 * KIB
# HEAD, POST, PATCH, PUT for each layer and the config, and PUT of the manifest.
REQUESTS_PER_IMAGE: Final = 4 * (LAYERS + 1) + 1

_END_OF_HEAD: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_LOCATION: Final = re.compile(rb"\r\nlocation: *([^\r]+)", re.IGNORECASE)
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"
_READ_BYTES: Final = 256 * KIB
_PATIENCE_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Job:
    """What to do. `kind` names a script; `paths` are for those that read."""

    kind: str
    host: str
    port: int
    connections: int
    seconds: float
    paths: tuple[str, ...] = ()
    accept: str = ""
    repository: str = ""


@dataclass
class Counts:
    """What happened. The names are those that `loads.check` knows."""

    requests: int = 0
    wrong: int = 0
    read: int = 0
    timeout: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    words: str = ""
    latencies_ms: dict[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True)
class Request:
    """Bytes to send, the status that must come back, and whether the answer has a body."""

    content: bytes
    expect: bytes
    has_body: bool = True


# Sends requests, gets the head of each answer.
Script = Generator[Request, bytes, None]


class WrongAnswerError(Exception):
    """An answer was not the expected one."""


def heads(job: Job, number: int) -> Script:
    """HEAD of one path after the other."""
    requests = [
        Request(_head("HEAD", path, job, f"Accept: {job.accept}\r\n"), b"200", has_body=False)
        for path in job.paths
    ]
    at = number * len(requests) // job.connections
    while True:
        yield requests[at % len(requests)]
        at += 1


def pushes(job: Job, number: int) -> Script:
    """Images, one after the other, each with layers that were never seen before."""
    filling = os.urandom(LAYER_BYTES)
    image = 0
    while True:
        seed = f"{number} {image} {time.time_ns()} ".encode()
        layers = [b"%d %s" % (layer, seed) for layer in range(LAYERS)]
        layers = [head + filling[len(head) :] for head in layers]
        config = json.dumps({"architecture": "amd64", "os": "linux", "seed": seed.decode()}).encode()
        for blob in (*layers, config):
            yield from _push_blob(job, blob)
        path = f"/v2/{job.repository}/manifests/{number}-{image}"
        manifest = manifest_of(config, layers)
        more = f"Content-Type: {MANIFEST_TYPE}\r\nContent-Length: {len(manifest)}\r\n"
        yield Request(_head("PUT", path, job, more) + manifest, b"201")
        image += 1


def _push_blob(job: Job, blob: bytes) -> Script:
    digest = digest_of(blob)
    blobs = f"/v2/{job.repository}/blobs/"
    yield Request(_head("HEAD", blobs + digest, job), b"404", has_body=False)
    head = yield Request(_head("POST", f"{blobs}uploads/", job, "Content-Length: 0\r\n"), b"202")
    more = "Transfer-Encoding: chunked\r\nContent-Type: application/octet-stream\r\n"
    patch = _head("PATCH", _location(head), job, more)
    head = yield Request(patch + b"%x\r\n%s\r\n0\r\n\r\n" % (len(blob), blob), b"202")
    yield Request(_head("PUT", with_digest(_location(head), digest), job, "Content-Length: 0\r\n"), b"201")


_SCRIPTS: Final[dict[str, Callable[[Job, int], Script]]] = {"heads": heads, "pushes": pushes}


class Connection:
    """One connection with its script. Raises WrongAnswerError, or OSError if it breaks."""

    def __init__(self, job: Job, number: int, counts: Counts, latencies: list[float]) -> None:
        self._script = _SCRIPTS[job.kind](job, number)
        self._counts = counts
        self._latencies = latencies
        self._data = b""
        self._socket = socket.create_connection((job.host, job.port), timeout=_PATIENCE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = next(self._script)
        self._sent = 0.0

    def fileno(self) -> int:
        """For the poll."""
        return self._socket.fileno()

    def send(self) -> None:
        """Send the request that is next."""
        self._sent = time.perf_counter()
        self._socket.sendall(self._request.content)

    def readable(self) -> None:
        """Take what came; if it completes the answer, go on to the next request."""
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        self._data += data
        end = self._data.find(_END_OF_HEAD)
        if end < 0 or not (self._request.has_body is False or self._is_whole(end)):
            return
        head, self._data = self._data[: end + 2], b""
        self._counts.requests += 1
        self._latencies.append(time.perf_counter() - self._sent)
        if head[9:12] != self._request.expect:
            asked = self._request.content.partition(b"\r\n")[0].decode()
            raise WrongAnswerError(
                f"{asked}: {head[9:12].decode()} instead of {self._request.expect.decode()}"
            )
        self._request = self._script.send(head)
        self.send()

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def _is_whole(self, end: int) -> bool:
        head = self._data[: end + 2]
        if (length := _LENGTH.search(head)) is not None:
            return len(self._data) >= end + len(_END_OF_HEAD) + int(length[1])
        return _CHUNKED.search(head) is None or self._data.endswith(_LAST_CHUNK)


def run(job: Job) -> Counts:
    """Do the job. The first fault ends it: there is nothing to be measured then."""
    counts, latencies = Counts(), list[float]()
    connections = [Connection(job, number, counts, latencies) for number in range(job.connections)]
    began = time.perf_counter()
    used = time.process_time()
    try:
        _drive(connections, began + job.seconds)
    except WrongAnswerError as error:
        counts.wrong, counts.words = 1, str(error)
    except TimeoutError as error:
        counts.timeout, counts.words = 1, str(error)
    except OSError as error:
        counts.read, counts.words = 1, str(error)
    counts.seconds = time.perf_counter() - began
    counts.cpu_seconds = time.process_time() - used
    for connection in connections:
        connection.close()
    if latencies:
        latencies.sort()
        counts.latencies_ms = {
            f"p{percent}": 1e3 * latencies[len(latencies) * percent // 100] for percent in (50, 99)
        }
    return counts


def main() -> None:
    """Read a job, do it, and print what was counted."""
    job: dict[str, Any] = json.load(sys.stdin)
    sys.stdout.write(json.dumps(asdict(run(Job(**job)))))


def _drive(connections: list[Connection], until: float) -> None:
    poll = select.poll()
    by_descriptor = {connection.fileno(): connection for connection in connections}
    for connection in connections:
        poll.register(connection.fileno(), select.POLLIN)
        connection.send()
    silent_since = time.perf_counter()
    while (now := time.perf_counter()) < until:
        ready = poll.poll(1000 * min(until - now, 1.0))
        for descriptor, _ in ready:
            by_descriptor[descriptor].readable()
        if ready:
            silent_since = now
        elif now - silent_since > _PATIENCE_SECONDS:
            raise TimeoutError(f"no answer for {_PATIENCE_SECONDS:g} seconds")


def _head(method: str, path: str, job: Job, more: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {job.host}:{job.port}\r\n{more}\r\n".encode()


def _location(head: bytes) -> str:
    found = _LOCATION.search(head)
    if found is None:
        raise WrongAnswerError("an answer had no Location")
    return path_of(found[1].decode())


if __name__ == "__main__":
    main()
