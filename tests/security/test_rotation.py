"""Signing keys are changed while clients work, and not one request is refused for it.

Every request comes on a connection of its own, so that all worker processes are met; which one took it is looked up.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from threading import Event
from typing import TYPE_CHECKING, Any, Final

from app.auth.passwords import hash_secret, new_secret
from app.domain.access import Action
from app.store import accounts, grants
from app.store.engine import Database
from tests.server.certificates import replace
from tests.support.images import Package, make_image
from tests.support.issuer import EVERYTHING, Project, outside
from tests.support.postgres import connected
from tests.support.processes import socket_name, sockets_of, wait_for
from tests.support.served import CHECKOUT, START_SECONDS, STOP_SECONDS, Served, overrides

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from app.store.engine import Connection, Target

REPOSITORY: Final = "team/app"
SCOPE: Final = f"repository:{REPOSITORY}:pull,push"
MANIFEST: Final = f"/v2/{REPOSITORY}/manifests/v1"
PROGRAM: Final = (sys.executable, "-c", "from app.cli import main; main()")
WORKERS: Final = 2
# How often the load must have come through in each phase.
ENOUGH: Final = 20
THREADS: Final = 4


@dataclass(frozen=True)
class Replica:
    """One registry of several on the same database."""

    name: str
    served: Served
    config: Path
    workers: tuple[int, ...]

    def ask(self, target: str, authorization: str = "") -> tuple[int, bytes, int]:
        """Status and body on a new connection, and the process that answered."""
        connection = HTTPConnection("127.0.0.1", self.served.port, timeout=30)
        try:
            connection.request(
                "GET", target, headers={"Authorization": authorization} if authorization else {}
            )
            answer = connection.getresponse()
            return answer.status, answer.read(), self._worker(connection.sock.getsockname()[1])
        finally:
            connection.close()

    def _worker(self, local_port: int) -> int:
        name = socket_name(self.served.port, local_port)
        return next((pid for pid in self.workers if name in sockets_of(pid)), 0)

    def token(self, secret: str) -> str:
        """What the built-in service gives the robot."""
        basic = base64.b64encode(f"ci:{secret}".encode()).decode()
        status, body, _ = self.ask(f"/auth/token?service=registry&scope={SCOPE}", f"Basic {basic}")
        assert status == 200, body
        return json.loads(body)["token"]

    def pull(self, token: str) -> tuple[int, int]:
        """How a request with the token is answered, and by which process."""
        status, _, worker = self.ask(MANIFEST, f"Bearer {token}")
        return status, worker

    def statuses(self, token: str) -> dict[int, int]:
        """How each process answers a request with the token."""
        found: dict[int, int] = {}

        def all_met() -> bool:
            status, worker = self.pull(token)
            found[worker] = status
            return found.keys() >= {*self.workers}

        assert wait_for(all_met)
        return {pid: found[pid] for pid in self.workers}


@contextmanager
def running_replicas(
    directory: Path, target: Target, **auths: dict[str, Any]
) -> Generator[tuple[Replica, ...]]:
    """Registries on the database, each with its own `auth`. They keep their blobs in one directory."""
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(process(directory, config(directory, name, target, auth)))
            for name, auth in auths.items()
        }
        yield tuple(ready(name, directory / f"{name}.yml", served) for name, served in started.items())


def config(directory: Path, name: str, target: Target, auth: dict[str, Any]) -> Path:
    content = {
        "version": "0.1",
        "http": {"addr": "127.0.0.1:0", "workers": WORKERS},
        "storage": {"filesystem": {"rootdirectory": str(directory / "blobs")}},
        "database": {
            "host": target.host,
            "port": target.port,
            "user": target.user,
            "dbname": target.database,
            "sslmode": "disable",
            "pool": {"maxopen": 4},
        },
        "gc": {"disabled": True},
        "auth": auth,
    }
    file = directory / f"{name}.yml"
    file.write_text(json.dumps(content))  # which is YAML
    return file


@contextmanager
def process(directory: Path, file: Path) -> Generator[Served]:
    """A registry that starts."""
    output, errors = file.with_suffix(".out"), file.with_suffix(".err")
    with output.open("wb") as out, errors.open("wb") as err:
        running = subprocess.Popen(
            [*PROGRAM, "serve", str(file)], cwd=CHECKOUT, env=overrides(), stdout=out, stderr=err
        )
    try:
        yield Served(running, directory, output, errors)
    finally:
        running.terminate()
        running.wait(STOP_SECONDS)


def ready(name: str, file: Path, served: Served) -> Replica:
    found = wait_for(
        lambda: (
            re.search(r"ready on (http://\S+)", served.output.read_text())
            or served.process.poll() is not None
        ),
        START_SECONDS,
    )
    assert isinstance(found, re.Match), served.said()
    served.url = found[1]
    return Replica(name, served, file, tuple(served.workers()))


@dataclass
class Load:
    """What threads saw that did the same again and again."""

    answers: list[tuple[str, int, int]] = field(default_factory=list[tuple[str, int, int]])

    def note(self, token: str, answer: tuple[int, int]) -> None:
        self.answers.append((kid_of(token), *answer))

    def refused(self) -> list[tuple[str, int, int]]:
        return [answer for answer in self.answers if answer[1] != 200]

    def wait(self, kids: set[str]) -> None:
        """Until it came through ENOUGH times more, and with each of the keys among them."""
        begin = len(self.answers)
        assert wait_for(
            lambda: len(self.answers) >= begin + ENOUGH and {kid for kid, *_ in self.answers[begin:]} >= kids
        ), self.answers[-5:]


@contextmanager
def running(*works: Callable[[], None]) -> Generator[None]:
    """Threads that do the works as often as they can, until the end or the first error."""
    over = Event()

    def go(number: int) -> None:
        while not over.is_set():
            works[number % len(works)]()

    with ThreadPoolExecutor(THREADS) as threads:
        futures = [threads.submit(go, number) for number in range(THREADS)]
        try:
            yield
        finally:
            over.set()
    for future in futures:
        future.result()


def kid_of(token: str) -> str:
    return json.loads(base64.urlsafe_b64decode(f"{token.partition('.')[0]}=="))["kid"]


def with_kid(token: str, kid: str) -> str:
    """The token under the name of another key."""
    header = json.dumps({"typ": "JWT", "alg": "ES256", "kid": kid}).encode()
    return ".".join((base64.urlsafe_b64encode(header).rstrip(b"=").decode(), *token.split(".")[1:]))


def rotate(at: Replica) -> None:
    """Change the replica's key, as an operator does."""
    done = subprocess.run(
        [*PROGRAM, "issuer", "rotate", str(at.config)],
        cwd=CHECKOUT,
        env=overrides(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


async def add_robot(target: Target) -> str:
    """A robot that may push; its secret, which is checked in no time."""
    secret = new_secret()

    async def add(c: Connection) -> None:
        robot = await accounts.add(c, "ci", "robot", secret_hash=hash_secret(secret))
        await grants.add(c, robot, "team/**", [Action.PULL, Action.PUSH])

    database = await Database.open(target, connections_max=1)
    try:
        await database.write(add)
    finally:
        await database.close()
    return secret


async def announced(target: Target) -> dict[str, datetime]:
    """The keys that are trusted, and until when."""
    async with connected(target) as connection:
        return dict(await connection.fetch("SELECT kid, expires_at FROM signing_keys"))


def push(at: Replica, token: str) -> None:
    with at.served.apart(headers={"Authorization": f"Bearer {token}"}) as registry:
        registry.push(REPOSITORY, "v1", Package(make_image("pulled all the time", size=1000)))


def test_own_keys_when_changed_under_load_then_no_request_is_refused(
    database: Target, tmp_path: Path
) -> None:
    secret = asyncio.run(add_robot(database))
    load = Load()
    auths = {name: {"issuer": {"key": str(tmp_path / f"{name}.pem")}} for name in ("one", "other")}
    with running_replicas(tmp_path, database, **auths) as replicas:
        one, other = replicas
        first = one.token(secret), other.token(secret)
        push(one, first[0])

        def crosswise(here: Replica, there: Replica) -> Callable[[], None]:
            def work() -> None:
                token = here.token(secret)
                load.note(token, there.pull(token))

            return work

        def stranger() -> None:
            """Has the replicas look for keys that nobody has, again and again."""
            for at in replicas:
                assert at.pull(with_kid(first[0], "made-up"))[0] == 401

        with running(crosswise(one, other), crosswise(other, one), stranger):
            load.wait({*map(kid_of, first)})
            for at in replicas:
                before = {kid for kid, *_ in load.answers}
                rotate(at)
                assert wait_for(lambda known=before: {kid for kid, *_ in load.answers} - known), at.name
                load.wait(set())

        assert load.refused() == []
        kids = {kid for kid, *_ in load.answers}
        assert len(kids) == 4
        assert {worker for *_, worker in load.answers} >= {*one.workers, *other.workers}
        last = one.token(secret), other.token(secret)
        assert {*map(kid_of, last)} == kids - {*map(kid_of, first)}
        for at in replicas:
            for token in (*first, *last):
                assert set(at.statuses(token).values()) == {200}

    until = asyncio.run(announced(database))
    soon = datetime.now(UTC) + timedelta(minutes=10)
    assert {kid for kid, end in until.items() if end < soon} == {*map(kid_of, first)}, (
        "they end with their tokens"
    )
    assert until.keys() == kids


def test_outside_keys_when_changed_under_load_then_no_request_is_refused(
    database: Target, tmp_path: Path
) -> None:
    load = Load()
    with (
        outside(tmp_path, {"ci": "secret"}, [Project("team", {"ci": EVERYTHING})]) as issuer,
        running_replicas(tmp_path, database, one=issuer.provider()) as (one,),
    ):
        old = issuer.token("ci", SCOPE)
        push(one, old)

        def work() -> None:
            token = issuer.token("ci", SCOPE)
            load.note(token, one.pull(token))

        def accepted(token: str) -> set[int]:
            return set(one.statuses(token).values())

        with running(work):
            load.wait({kid_of(old)})
            pair = issuer.prepare_key()
            new = issuer.token("ci", SCOPE, pair=pair)
            assert wait_for(lambda: accepted(new) == {200})
            issuer.use_new_key()
            load.wait({pair.kid})

            # At once: what is half written would be one more thing of no use.
            replace(issuer.bundle, b"-----BEGIN CERTIFICATE-----\nnot one\n-----END CERTIFICATE-----\n")
            assert wait_for(lambda: one.served.said().count("is of no use") == WORKERS), one.served.said()
            load.wait({pair.kid})
            assert accepted(old) == {200}, "what the file held before stays in force"

            issuer.forget_old_key()
            assert wait_for(lambda: accepted(old) == {401})
            load.wait({pair.kid})

        assert load.refused() == []
        assert {worker for *_, worker in load.answers} >= {*one.workers}
        assert one.served.said().count("is of no use") == WORKERS, "one line for each process"
