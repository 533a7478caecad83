"""A registry that dies and comes back on the same data, as often as a test wants, and what must hold whenever it has.

The database and the storage outlive the processes. Everything is emptied between two plays.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from app.blobs.drivers.filesystem import Filesystem
from app.config import load
from app.domain.digest import Digest
from tests.crashes import disks
from tests.crashes.client import Crashed
from tests.crashes.disks import Record, object_files
from tests.crashes.steps import Strike
from tests.crashes.victim import Order
from tests.support.invariants import assert_invariants
from tests.support.postgres import Rows, connected, restore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from app.store.engine import Target
    from tests.crashes.client import Client, Upload, World
    from tests.crashes.scenes import Scene

ROOT: Final = Path(__file__).parents[2]
PATIENCE_SECONDS: Final = 30.0


class Nursery:
    """The process that victims are forked from. See tests/crashes/victim.py."""

    def __init__(self, errors: Path) -> None:
        self._errors = errors
        with errors.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.crashes.victim"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._ended: dict[int, int] = {}

    def bear(self, order: Order) -> Victim:
        """A process that serves."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
        self._process.stdin.flush()
        words = self._next()
        while "ready" not in words:
            assert words.get("status", 0) <= 0, f"it did not start: {self.said()}"
            words = self._next()
        return Victim(self, words["ready"], words["port"])

    def status(self, process: int) -> int:
        """How the process ended; waits for it."""
        while process not in self._ended:
            self._next()
        return self._ended[process]

    def said(self) -> str:
        return self._errors.read_text(errors="replace")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE_SECONDS)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _next(self) -> dict[str, int]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the nursery is gone: {self.said()}"
        words: dict[str, int] = json.loads(line)
        if "ended" in words:
            self._ended[words["ended"]] = words["status"]
        return words


@dataclass(frozen=True)
class Victim:
    """A process that serves on `port` until it dies."""

    nursery: Nursery
    process: int
    port: int

    def kill(self) -> None:
        """End it, if it has not come to its end yet. Returns when it is gone, which must have been by SIGKILL."""
        with suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)
        assert self.nursery.status(self.process) == -signal.SIGKILL, self.nursery.said()

    def is_alive(self) -> bool:
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return False
        return True


@dataclass
class Place:
    """The data, and whoever serves it. One life at a time. `prepared`: as `database.preparedstatements`."""

    target: Target
    directory: Path
    nursery: Nursery
    kept: list[Rows]
    victim: Victim | None = None
    prepared: bool = True
    _runner: asyncio.Runner = field(default_factory=asyncio.Runner)

    def __post_init__(self) -> None:
        self.root = self.directory / "storage"
        self._record = self.directory / "record"
        self._log = self.directory / "steps"
        self._armed = self.directory / "armed"
        self._settings = load(None, {}, base=_settings(self.target, self.root)).settings

    def clear(self) -> None:
        """Begin anew: empty, and with nobody serving."""
        self.end()
        for path in (self.root, self._record):
            shutil.rmtree(path, ignore_errors=True)
        self.root.mkdir()
        Record(self._record).keep_all(self.root)
        self._run(restore(self.target, self.kept))

    def live(
        self, *, chosen: int | None = None, strike: Strike | None = None, skipped: tuple[str, ...] = ()
    ) -> Victim:
        """Let a process serve the data, which is struck at the point numbered `chosen`."""
        assert self.victim is None, "one life at a time"
        for path in (self._log, self._armed):
            path.unlink(missing_ok=True)
        self._log.touch()
        database = self._settings.database.model_copy(update={"preparedstatements": self.prepared})
        order = Order(
            settings=self._settings.model_copy(update={"database": database}).model_dump_json(),
            root=str(self.root),
            log=str(self._log),
            armed=str(self._armed),
            record=str(self._record),
            chosen=chosen,
            strike=strike or Strike(),
            skipped=skipped,
        )
        self.victim = self.nursery.bear(order)
        return self.victim

    def end(self) -> None:
        """Kill whoever serves. Returns when nothing is done on its behalf any more."""
        if self.victim is not None:
            self.victim.kill()
            self.victim = None
            self._until(lambda: self.value(_BACKENDS) == 0)

    def cut_power(self) -> None:
        """Leave of the storage what is durable. Nobody serves."""
        assert self.victim is None
        record = Record(self._record)
        disks.cut_power(self.root, record)
        shutil.rmtree(self._record)
        Record(self._record).keep_all(self.root)

    def points(self) -> list[str]:
        """The points that the last life has come to, in order."""
        return self._log.read_text().splitlines()

    def check(self) -> None:
        """What must hold whenever nobody is at work."""
        self._run(self._check())

    @contextmanager
    def served(self, client: Client) -> Generator[None]:
        """Let the client talk to whoever serves now."""
        assert self.victim is not None
        client.connect(self.victim.port)
        try:
            yield
        finally:
            client.close()

    def begin(self) -> None:
        self._armed.touch()

    def wait_until_claimed(self, upload: Upload) -> None:
        def claimed_or_dead() -> bool:
            dead = self.victim is None or not self.victim.is_alive()
            return dead or bool(self.value(_WRITER, upload.id))

        self._until(claimed_or_dead)
        if self.victim is None or not self.victim.is_alive():
            raise Crashed

    def value(self, sql: str, *arguments: Any) -> Any:
        """What the database says."""

        async def ask() -> Any:
            async with connected(self.target) as connection:
                return await connection.fetchval(sql, *arguments)

        return self._run(ask())

    def close(self) -> None:
        self.end()
        self._runner.close()

    async def _check(self) -> None:
        driver = Filesystem(self.root, threads=1)
        try:
            await assert_invariants(self.target, driver)
        finally:
            await driver.close()
        async with connected(self.target) as connection:
            blobs = await connection.fetch("SELECT storage_key, size, digest FROM blobs")
            sessions = await connection.fetch("SELECT storage_key, size FROM blob_uploads WHERE size > 0")
        files = object_files(self.root)
        for key, size, packed in blobs:
            digest = Digest.unpack(packed)
            content = files[key].read_bytes() if key in files else b""
            assert len(content) == size, (
                f"the object of {digest} has {len(content)} bytes, its row says {size}"
            )
            assert Digest.of(content, digest.algorithm) == digest, f"the object of {digest} has other bytes"
        for key, size in sessions:
            assert key in files, f"the object {key} of a session of {size} bytes is gone"
            assert files[key].stat().st_size >= size, f"the object {key} is shorter than its session"

    def _until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < end, "it did not come to that"
            time.sleep(0.001)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(work)


# What a process that died has sent may still be carried out.
_BACKENDS: Final = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'registry'
"""
_WRITER: Final = "SELECT writer IS NOT NULL FROM blob_uploads WHERE id = $1"


def _settings(target: Target, root: Path) -> dict[str, Any]:
    return {
        "http": {"addr": "127.0.0.1:0"},
        "storage": {"filesystem": {"rootdirectory": str(root)}, "delete": {"enabled": True}},
        "database": {
            "host": target.host,
            "port": target.port,
            "user": target.user,
            "dbname": target.database,
            "pool": {"maxopen": 4},
        },
        "log": {"level": "error", "accesslog": {"disabled": True}},
    }


def play(place: Place, scene: Scene, client: Client) -> bool:
    """Play the scene for the process that serves now. Whether it came to its end."""
    with place.served(client):
        try:
            scene(client, place)
        except Crashed:
            return False
    return True


def look(place: Place, client: Client) -> World:
    """What the process that serves now holds of what the client ever sent."""
    with place.served(client):
        return client.look()
