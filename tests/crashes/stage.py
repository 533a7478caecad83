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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from app.blobs.drivers.filesystem import Filesystem
from app.config import load
from app.domain.digest import Digest
from tests.crashes import disks
from tests.crashes.client import Crashed
from tests.crashes.disks import Record, object_files
from tests.crashes.steps import Strike
from tests.crashes.victim import Chores, Order
from tests.support.fsck import assert_fsck_clean
from tests.support.invariants import assert_invariants
from tests.support.postgres import Rows, connected, restore, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from app.store.engine import Target
    from tests.crashes.client import Client, Upload, World
    from tests.crashes.scenes import Scene

ROOT: Final = Path(__file__).parents[2]
PATIENCE_SECONDS: Final = 30.0
COLLECTORS: Final = ("uploads", "manifests", "blobs", "objects", "receipts")
# As many as a collector takes up at a time here: so few that it needs several batches.
BATCH: Final = 3


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

    def is_struck(self) -> bool:
        """Whether it has come to its end, or to a stop."""
        return _state(self.process) in "TZX"


@dataclass(frozen=True)
class Snapshot:
    """The data as they were once. `storage` is a copy of the objects."""

    rows: list[Rows]
    storage: Path


@dataclass
class Place:
    """The data, whoever serves it, and whoever collects what nobody needs: one life of each at a time.

    `prepared`: as `database.preparedstatements`.
    """

    target: Target
    directory: Path
    nursery: Nursery
    kept: list[Rows]
    victim: Victim | None = None
    collector: Victim | None = None
    prepared: bool = True
    _runner: asyncio.Runner = field(default_factory=asyncio.Runner)

    def __post_init__(self) -> None:
        self.root = self.directory / "storage"
        self._record = self.directory / "record"
        self._log = self.directory / "steps"
        self._armed = self.directory / "armed"
        self._done = self.directory / "done"
        self._settings = load(None, {}, base=_settings(self.target, self.root)).settings

    def clear(self) -> None:
        """Begin anew: empty, and with nobody serving."""
        self.end()
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        self._begin_record()
        self._run(restore(self.target, self.kept))

    def snapshot(self, name: str) -> Snapshot:
        """The data as they are. Nobody is at work."""
        snapshot = Snapshot(self._run(rows(self.target)), self.directory / name)
        shutil.copytree(self.root, snapshot.storage)
        return snapshot

    def bring_back(self, snapshot: Snapshot) -> None:
        """The data as they were, all durable, and with nobody at work."""
        self.end()
        shutil.rmtree(self.root)
        shutil.copytree(snapshot.storage, self.root)
        self._begin_record()
        self._run(restore(self.target, snapshot.rows))

    def live(
        self, *, chosen: int | None = None, strike: Strike | None = None, skipped: tuple[str, ...] = ()
    ) -> Victim:
        """Let a process serve the data, which is struck at the point numbered `chosen`."""
        assert self.victim is None, "one life at a time"
        self._armed.unlink(missing_ok=True)
        order = replace(
            self._order(self._log, self._armed, skipped), chosen=chosen, strike=strike or Strike()
        )
        self.victim = self.nursery.bear(order)
        return self.victim

    def collect(
        self,
        *only: str,
        chosen: int | None = None,
        strike: Strike | None = None,
        skipped: tuple[str, ...] = (),
        limit: int = BATCH,
        flaw: str = "",
    ) -> Victim:
        """Let a process collect what is due, beside the one that serves, if any; every step of it is a crash point."""
        assert self.collector is None, "one life at a time"
        self._done.unlink(missing_ok=True)
        log = self._log.with_name("steps-of-collector")
        order = replace(
            self._order(log, log, skipped),
            chosen=chosen,
            strike=strike or Strike(),
            chores=Chores(only or COLLECTORS, limit, str(self._done), flaw),
        )
        self.collector = self.nursery.bear(order)
        return self.collector

    def wait_until_collected(self) -> bool:
        """Whether all that was due is done; False: the collector was struck at its point, and is dead or still."""
        assert self.collector is not None
        collector = self.collector
        self._until(lambda: self._done.exists() or collector.is_struck())
        return self._done.exists()

    def end(self) -> None:
        """Kill whoever is at work. Returns when nothing is done on its behalf any more."""
        self.end_collector()
        if self.victim is not None:
            self.victim.kill()
            self.victim = None
            self._until(lambda: self.value(_BACKENDS) == 0)

    def end_collector(self) -> None:
        """Kill who collects. Returns when nothing is done on its behalf any more."""
        if self.collector is not None:
            self.collector.kill()
            self.collector = None
            told_apart = _COLLECTORS if self.victim is not None else ""
            self._until(lambda: self.value(_BACKENDS + told_apart) == 0)

    def cut_power(self) -> None:
        """Leave of the storage what is durable. Nobody is at work."""
        assert self.victim is None
        assert self.collector is None
        disks.cut_power(self.root, Record(self._record))
        self._begin_record()

    def points(self) -> list[str]:
        """The points that the last life has come to, in order."""
        return self._log.read_text().splitlines()

    def points_of_collector(self) -> list[str]:
        """The same of the last one who collected."""
        return self._log.with_name("steps-of-collector").read_text().splitlines()

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

    def fetch(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """The rows that the database answers with."""

        async def ask() -> list[tuple[Any, ...]]:
            async with connected(self.target) as connection:
                return [tuple(row) for row in await connection.fetch(sql, *arguments)]

        return self._run(ask())

    def execute(self, *statements: str) -> None:
        """Each in a transaction of its own."""

        async def work() -> None:
            async with connected(self.target) as connection:
                for statement in statements:
                    await connection.execute(statement)

        self._run(work())

    def close(self) -> None:
        self.end()
        self._runner.close()

    def _order(self, log: Path, armed: Path, skipped: tuple[str, ...]) -> Order:
        """A life on the data, which is struck nowhere."""
        log.write_bytes(b"")
        database = self._settings.database.model_copy(update={"preparedstatements": self.prepared})
        return Order(
            settings=self._settings.model_copy(update={"database": database}).model_dump_json(),
            root=str(self.root),
            log=str(log),
            armed=str(armed),
            record=str(self._record),
            skipped=skipped,
        )

    def _begin_record(self) -> None:
        """Everything that is in storage now is durable."""
        shutil.rmtree(self._record, ignore_errors=True)
        Record(self._record).keep_all(self.root)

    async def _check(self) -> None:
        driver = Filesystem(self.root, threads=1)
        try:
            await assert_invariants(self.target, driver)
            await assert_fsck_clean(self.target, driver)
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


def _state(process: int) -> str:
    """What proc(5) calls it: T is stopped, Z is dead; X if it is gone altogether."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


# What a process that died has sent may still be carried out.
_BACKENDS: Final = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
_COLLECTORS: Final = "AND application_name = 'registry gc'"
_WRITER: Final = "SELECT writer IS NOT NULL FROM blob_uploads WHERE id = $1"


def _settings(target: Target, root: Path) -> dict[str, Any]:
    return {
        "http": {"addr": "127.0.0.1:0"},
        "storage": {"filesystem": {"rootdirectory": str(root)}, "delete": {"enabled": True}},
        # A clock that is put forward (tests/crashes/garbage.py) is all that deletions have to wait for.
        "gc": {"blobs": {"storagedelay": "0s"}},
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
