"""Clients of a registry in trouble: they must get an answer, or a 503 that says when to come again."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any, Final, Self

from app.domain.manifests import OCI_MANIFEST
from tests.support.registry import digest_of, image

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from http.client import HTTPResponse

    from tests.support.registry import Image

SECONDS: Final = 60.0

ALL_WELL_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Answer:
    """`seconds` is how long it took."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float = 0.0

    @property
    def is_refusal(self) -> bool:
        """Whether it is a 503. Fails if it is one that tells a client nothing."""
        if self.status != 503:
            return False
        assert self.headers["Retry-After"].isdecimal(), self
        if self.body:
            (error,) = json.loads(self.body)["errors"]
            assert error["code"] == "UNAVAILABLE", self
        return True

    @property
    def detail(self) -> str:
        return json.loads(self.body)["errors"][0]["detail"]


class Client:
    """One client with one connection, which it opens anew when the other side has closed it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._connection = HTTPConnection(*address, timeout=SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, method: str, target: str, body: bytes | None = None, **headers: str) -> Answer:
        """Raises OSError or HTTPException if the connection is cut."""
        began = time.monotonic()
        try:
            found = self.begin(method, target, body, **headers)
            content = found.read()
        except BaseException:
            self._connection.close()
            raise
        return Answer(found.status, found.headers, content, time.monotonic() - began)

    def begin(self, method: str, target: str, body: bytes | None = None, **headers: str) -> HTTPResponse:
        """As `ask`, up to the body of the answer."""
        self._connection.request(
            method, target, body, {name.replace("_", "-"): value for name, value in headers.items()}
        )
        return self._connection.getresponse()

    def get(self, target: str) -> Answer:
        return self.ask("GET", target, Accept=OCI_MANIFEST)

    def start(self, name: str) -> Answer:
        return self.ask("POST", f"/v2/{name}/blobs/uploads/")

    def push_blob(self, name: str, content: bytes) -> Answer:
        return self.ask("POST", f"/v2/{name}/blobs/uploads/?digest={digest_of(content)}", content)

    def put(self, name: str, reference: str, pushed: Image) -> Answer:
        return self.ask(
            "PUT", f"/v2/{name}/manifests/{reference}", pushed.payload, Content_Type=pushed.media_type
        )

    def push(self, name: str, tag: str, pushed: Image) -> None:
        """All of it, at once."""
        for blob in pushed.blobs:
            assert self.push_blob(name, blob).status == 201
        assert self.put(name, tag, pushed).status == 201

    def check(self, name: str, tag: str, pushed: Image) -> None:
        """All of it is there, byte by byte."""
        answer = self.get(f"/v2/{name}/manifests/{tag}")
        # Each worker finds out for itself that the trouble is over.
        end = time.monotonic() + ALL_WELL_SECONDS
        while answer.status == 503 and time.monotonic() < end:
            time.sleep(0.1)
            answer = self.get(f"/v2/{name}/manifests/{tag}")
        assert (answer.status, answer.body) == (200, pushed.payload)
        for blob in pushed.blobs:
            answer = self.get(f"/v2/{name}/blobs/{digest_of(blob)}")
            assert (answer.status, answer.body) == (200, blob)


def noise(name: str, size: int) -> bytes:
    """Bytes that follow from the name."""
    return hashlib.shake_128(name.encode()).digest(size)


@dataclass
class Load:
    """Clients that pull and push without a pause. `wrong` is what none of them should have been told."""

    address: tuple[str, int]
    pushed: dict[tuple[str, str], Image] = field(default_factory=dict[tuple[str, str], "Image"])
    answered: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list[str])
    slowest: float = 0.0
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list[threading.Thread])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, name: str, *, pullers: int, pushers: int) -> Self:
        """They work in the repositories below `name`."""
        seed = image(noise(name, 10_000), config=noise(f"{name}-config", 100))
        with Client(self.address) as client:
            client.push(f"{name}/seed", "latest", seed)
        work: list[Callable[[Client], None]] = [lambda c: self._pull(c, f"{name}/seed", seed)] * pullers
        work += [lambda c, n=n: self._push(c, f"{name}/p{n}") for n in range(pushers)]
        self._threads = [threading.Thread(target=self._run, args=(one,)) for one in work]
        for thread in self._threads:
            thread.start()
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def goes_on(self, seconds: float = 20.0) -> float:
        """Wait until clients are answered again: after how many seconds they were."""
        began, before = time.monotonic(), (self.answered, len(self.pushed))
        while not (self.answered >= before[0] + 20 and len(self.pushed) > before[1]):
            assert time.monotonic() - began < seconds, self.wrong or "nobody is answered"
            time.sleep(0.01)
        return time.monotonic() - began

    def check(self) -> None:
        """Nobody was told what is not true, and all that was acknowledged is there."""
        assert not self.wrong
        with Client(self.address) as client:
            for (name, tag), pushed in self.pushed.items():
                client.check(name, tag, pushed)

    def _run(self, work: Callable[[Client], None]) -> None:
        with Client(self.address) as client:
            while not self._over.is_set():
                try:
                    work(client)
                except Exception as error:  # noqa: BLE001  (whatever it is, it should not have been)
                    self.wrong.append(repr(error))
                    time.sleep(0.05)

    def _is_done(self, answer: Answer, status: int) -> bool:
        refused = answer.is_refusal
        with self._lock:
            self.slowest = max(self.slowest, answer.seconds)
            self.refused += refused
            self.answered += not refused
        if refused:
            time.sleep(0.02)
        elif answer.status != status:
            self.wrong.append(f"{answer}")
        return answer.status == status

    def _pull(self, client: Client, name: str, seed: Image) -> None:
        answer = client.get(f"/v2/{name}/manifests/latest")
        if self._is_done(answer, 200):
            assert answer.body == seed.payload
        answer = client.get(f"/v2/{name}/blobs/{digest_of(seed.blobs[1])}")
        if self._is_done(answer, 200):
            assert answer.body == seed.blobs[1]

    def _push(self, client: Client, name: str) -> None:
        tag = f"t{time.monotonic_ns()}"
        pushed = image(noise(tag, 5_000), config=noise(f"{tag}-config", 50))
        for blob in pushed.blobs:
            while not self._is_done(client.push_blob(name, blob), 201):
                if self._over.is_set():
                    return
        if self._is_done(client.put(name, tag, pushed), 201):
            with self._lock:
                self.pushed[name, tag] = pushed


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What so many threads come back with."""
    results: list[Any] = [None] * count

    def run(number: int) -> None:
        try:
            results[number] = work(number)
        except Exception as error:  # noqa: BLE001  (shown by the comparison that follows)
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
