"""Kinds of cases: what is asked for, what loads the server, and how an answer is looked at first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from benchmarks import asking, curl, files, generating, generator, seeds, wrk
from benchmarks.contenders import BOTH, PEER
from benchmarks.errors import CaseError
from benchmarks.files import Renewable
from benchmarks.images import ACCEPT, MIB, digest_of
from benchmarks.loads import Load
from benchmarks.watching import watched

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.asking import Answer
    from benchmarks.contenders import Contender

CONNECTIONS: Final = 16
LARGE_AT_ONCE: Final = 2
IMAGES_AT_ONCE: Final = 8
UPLOADS_AT_ONCE: Final = 50
UPLOAD_BYTES: Final = 64 * MIB
# More than any registry takes from one thread of wrk.
_BLOBS_PER_SECOND: Final = 400
_ACCEPT: Final = {"Accept": ACCEPT}


@dataclass(frozen=True)
class Row:
    """A figure that a case gives, of all its contenders or of those that `of` names. The ratios are to `beside`."""

    name: str
    unit: str
    value: Callable[[Load], float]
    of: tuple[str, ...] = ()
    beside: str = PEER


class Case(Protocol):
    """One thing to measure.

    `contenders` take turns in this order; sides join where both registries are. `needs` are seeds. `fresh` wants a
    server that has just been started. `pace` makes every load so much longer: the requests that are under way when the
    time is up must not be many beside those that were answered.
    """

    name: str
    contenders: tuple[str, ...]
    needs: tuple[str, ...]
    fresh: bool
    pace: float

    @property
    def rows(self) -> Sequence[Row]:
        """What comes out."""
        ...

    def prepare(self, directory: Path) -> None:
        """Make what the generator needs."""
        ...

    def check(self, contender: Contender) -> None:
        """Look at one answer. Raises CaseError if it is not what the load would ask for."""
        ...

    async def load(self, contender: Contender, seconds: float) -> Load:
        """Load the contender. Raises CaseError if one answer is wrong."""
        ...


def per_second(load: Load) -> float:
    """Operations in a second."""
    return load.operations / load.seconds


@dataclass
class OneFigure:
    """A case with one row."""

    name: str
    unit: str
    contenders: tuple[str, ...] = BOTH
    needs: tuple[str, ...] = ()
    fresh: bool = False
    pace: float = 1.0
    # What one operation is in the row's unit.
    worth: float = 1.0

    @property
    def rows(self) -> Sequence[Row]:
        return [Row(self.name, self.unit, lambda load: per_second(load) * self.worth)]

    def prepare(self, directory: Path) -> None:
        del directory

    def check(self, contender: Contender) -> None:
        del contender


@dataclass
class Gets(OneFigure):
    """GET of one path by wrk. `right` is what a body must be."""

    path: str = ""
    right: Callable[[bytes], bool] = bool
    connections: int = CONNECTIONS
    answer_bytes: int = 0

    def check(self, contender: Contender) -> None:
        with asking.connected(contender.running.url, contender.headers) as client:
            answer = client.ask("GET", self.path, expect=200, headers=_ACCEPT)
        if not self.right(answer.body):
            raise CaseError(f"GET {self.path} gives something else than what was pushed")

    async def load(self, contender: Contender, seconds: float) -> Load:
        return await wrk.run(
            contender.running.url + self.path,
            "get",
            seconds=seconds,
            connections=self.connections,
            headers={**_ACCEPT, **contender.headers},
            answer_bytes=self.answer_bytes,
        )


@dataclass
class Manifests(OneFigure):
    """Manifests by tag: GET by wrk, HEAD by our generator. More than one tag are asked for one after the other."""

    method: str = "GET"
    tags: int = 1
    connections: int = CONNECTIONS

    def check(self, contender: Contender) -> None:
        with asking.connected(contender.running.url, contender.headers) as client:
            for path, manifest in self._pairs():
                answer = client.ask(self.method, path, expect=200, headers=_ACCEPT)
                _compare(self.method, path, answer, manifest)

    async def load(self, contender: Contender, seconds: float) -> Load:
        url = contender.running.url
        paths = [path for path, _ in self._pairs()]
        if self.method == "HEAD":
            return await generating.run(
                url, "heads", seconds=seconds, connections=self.connections, paths=paths, accept=ACCEPT
            )
        script, arguments = ("tags", [seeds.IMAGES, str(self.tags)]) if self.tags > 1 else ("get", [])
        return await wrk.run(
            url + paths[0],
            script,
            arguments,
            seconds=seconds,
            connections=self.connections,
            headers={**_ACCEPT, **contender.headers},
            answer_bytes=len(seeds.hot_image().manifest),
        )

    def _pairs(self) -> list[tuple[str, bytes]]:
        if self.tags == 1:
            return [(_manifest_path(seeds.HOT_TAG), seeds.hot_image().manifest)]
        return [
            (_manifest_path(seeds.tag_name(number)), seeds.image_of_tag(number).manifest)
            for number in range(self.tags)
        ]


@dataclass
class Fetches(OneFigure):
    """GET of a large blob by curl."""

    size: int = seeds.LARGE_BYTES

    def check(self, contender: Contender) -> None:
        with asking.connected(contender.running.url, contender.headers) as client:
            answer = client.ask("GET", blob_path(self.size), expect=200)
        if digest_of(answer.body) != seeds.blob_digest(self.size):
            raise CaseError(f"GET {blob_path(self.size)} gives something else than what was pushed")

    async def load(self, contender: Contender, seconds: float) -> Load:
        url = contender.running.url + blob_path(self.size)
        return await curl.repeat(lambda _: curl.fetch(url, self.size), at_once=LARGE_AT_ONCE, seconds=seconds)


@dataclass
class SmallPushes(OneFigure):
    """Pushes of new small blobs by wrk, one connection per thread."""

    directory: Path | None = None

    def prepare(self, directory: Path) -> None:
        self.directory = directory

    async def load(self, contender: Contender, seconds: float) -> Load:
        assert self.directory is not None
        lines = round(_BLOBS_PER_SECOND * (seconds + 1))
        files.lines_of_blobs(self.directory, CONNECTIONS, lines, seeds.SMALL_BYTES)
        return await wrk.run(
            contender.running.url,
            "push",
            [seeds.PUSHES, str(seeds.SMALL_BYTES), str(self.directory)],
            seconds=seconds,
            connections=CONNECTIONS,
            threads=CONNECTIONS,
            requests_per_operation=3,
        )


@dataclass
class LargePushes(OneFigure):
    """Pushes of new large blobs by curl."""

    pushed: list[Renewable] = field(default_factory=list[Renewable])

    def prepare(self, directory: Path) -> None:
        self.pushed = files.make(directory, LARGE_AT_ONCE, seeds.LARGE_BYTES)

    async def load(self, contender: Contender, seconds: float) -> Load:
        async def push(number: int) -> None:
            await curl.push(
                contender.running.url, seeds.PUSHES, self.pushed[number].path, self.pushed[number].renew()
            )

        return await curl.repeat(push, at_once=LARGE_AT_ONCE, seconds=seconds)


@dataclass
class ImagePushes(OneFigure):
    """Pushes of whole images by our generator."""

    async def load(self, contender: Contender, seconds: float) -> Load:
        return await generating.run(
            contender.running.url,
            "pushes",
            seconds=seconds,
            connections=IMAGES_AT_ONCE,
            repository=seeds.PUSHES,
            requests_per_operation=generator.REQUESTS_PER_IMAGE,
        )


@dataclass
class Memory(OneFigure):
    """What a fresh server takes while it takes in uploads by curl, all at the same time."""

    pushed: list[Renewable] = field(default_factory=list[Renewable])

    @property
    def rows(self) -> Sequence[Row]:
        return [
            Row(self.name, self.unit, lambda load: load.gauges["peak"]),
            Row(f"{self.name}-no-postgres", self.unit, lambda load: load.gauges["peak_no_postgres"]),
            Row(f"{self.name}-before", self.unit, lambda load: load.gauges["before"]),
        ]

    def prepare(self, directory: Path) -> None:
        self.pushed = files.make(directory, UPLOADS_AT_ONCE, UPLOAD_BYTES, empty=True)

    async def load(self, contender: Contender, seconds: float) -> Load:
        del seconds
        url = contender.running.url
        async with watched(contender) as gauges:
            done = await curl.repeat(
                lambda number: curl.push(
                    url, f"bench/memory-{number}", self.pushed[number].path, self.pushed[number].renew()
                ),
                at_once=UPLOADS_AT_ONCE,
                seconds=0,
            )
        return Load(done.operations, done.seconds, done.generator_seconds, gauges=gauges)


def _manifest_path(tag: str) -> str:
    return f"/v2/{seeds.IMAGES}/manifests/{tag}"


def blob_path(size: int) -> str:
    """Where the blob of that size is."""
    return f"/v2/{seeds.BLOBS}/blobs/{seeds.blob_digest(size)}"


def _compare(method: str, path: str, answer: Answer, manifest: bytes) -> None:
    headers = answer.headers
    right = (headers.get("docker-content-digest"), headers.get("content-length"))
    if right != (digest_of(manifest), str(len(manifest))) or (method == "GET" and answer.body != manifest):
        raise CaseError(f"{method} {path} gives something else than what was pushed")
