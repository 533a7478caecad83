"""A registry in processes of its own, on a PostgreSQL cluster of its own, and what can befall either."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx

from app.runtime.embedded import EmbeddedPostgres
from app.store.engine import Target
from tests.support.postgres import connected, create, make_template
from tests.support.processes import descendants, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
PATIENCE_SECONDS: Final = 30.0
# The longest wait for a connection: short, so that tests need not wait long for what comes after it.
QUEUE_SECONDS: Final = 1.0
WORKERS: Final = 2
CONNECTIONS: Final = 4
THREADS: Final = 25
MAX_CONNECTIONS: Final = 30
_SESSIONS: Final = (
    "FROM pg_stat_activity WHERE application_name = 'registry' AND datname = current_database()"
)


class Cluster:
    """A PostgreSQL server that is killed and comes back at the same address. What it acknowledges is on the disk."""

    def __init__(self) -> None:
        # Short, so that its socket has room in it.
        self._directory = Path(tempfile.mkdtemp(prefix="rf-"))
        self._server = self._made()
        self._address = self._server.start()
        self._template = Target(**asdict(self._address))
        self._frozen: list[int] = []
        asyncio.run(make_template(self._template))

    def create(self) -> Target:
        """A new database with all tables."""
        server, name = replace(self._template, database="postgres"), f"faults_{time.monotonic_ns()}"
        return asyncio.run(create(server, name, template=self._template.database))

    def kill(self) -> None:
        """Kill every process of it."""
        for process in self.processes():
            _signal(process, signal.SIGKILL)
        self._server.stop()

    def restart(self) -> None:
        """Start it again; returns when it takes connections."""
        self._server = self._made()
        assert self._server.start() == self._address

    @contextmanager
    def down(self) -> Iterator[None]:
        """Not there."""
        self.kill()
        try:
            yield
        finally:
            self.restart()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """There, but it does nothing: it takes connections and bytes, and never answers."""
        self._frozen = self.processes()
        for process in self._frozen:
            _signal(process, signal.SIGSTOP)
        try:
            yield
        finally:
            self.thaw()

    def thaw(self) -> None:
        """It goes on as if nothing had been."""
        for process in self._frozen:
            _signal(process, signal.SIGCONT)
        self._frozen = []

    def processes(self) -> list[int]:
        pid = int((self._directory / "postgres" / "postmaster.pid").read_text().split()[0])
        return [pid, *descendants(pid)]

    def close(self) -> None:
        self._server.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _made(self) -> EmbeddedPostgres:
        return EmbeddedPostgres(self._directory / "postgres", max_connections=MAX_CONNECTIONS)


class Registry:
    """A running registry, its database and its objects' directory. `faults` holds what its disk is told."""

    def __init__(
        self, process: subprocess.Popen[str], log: Path, faults: Path, root: Path, target: Target
    ) -> None:
        self.process = process
        self.faults = faults
        self.root = root
        self.target = target
        self._log = log
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"it did not start: {self.log}"
        self.url, self._debug = json.loads(line)

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.rpartition("/")[2].rpartition(":")
        return host, int(port)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def workers(self) -> list[int]:
        return descendants(self.process.pid)

    def collector(self) -> int:
        """The process that collects, or did last."""
        found = re.findall(r"collectors \(process (\d+)\) is ready", self.log)
        return int(found[-1]) if found else 0

    def threads(self) -> int:
        """The largest number of threads of a worker."""
        return max(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in self.workers())

    def health(self) -> dict[str, str]:
        """What is wrong."""
        answer = httpx.get(f"{self._debug}/debug/health", timeout=PATIENCE_SECONDS)
        found: dict[str, str] = answer.json()
        assert answer.status_code == (503 if found else 200)
        return found

    def becomes_well(self, seconds: float = PATIENCE_SECONDS) -> None:
        assert wait_for(lambda: not self.health(), seconds), self.health()

    def becomes_unwell(self) -> dict[str, str]:
        found = wait_for(self.health, PATIENCE_SECONDS)
        assert found
        return found

    @contextmanager
    def disk(self, *orders: str) -> Iterator[None]:
        """Its disk does as it is told."""
        for order in orders:
            (self.faults / order).touch()
        try:
            yield
        finally:
            for order in self.faults.iterdir():
                order.unlink()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What its database says."""

        async def ask() -> list[tuple[Any, ...]]:
            async with connected(self.target) as connection:
                return [tuple(row) for row in await connection.fetch(sql)]

        return asyncio.run(ask())

    def execute(self, *statements: str) -> None:
        """One after the other, in one session of its database."""

        async def work() -> None:
            async with connected(self.target) as connection:
                for statement in statements:
                    await connection.execute(statement)

        asyncio.run(work())

    def sessions(self) -> int:
        """How many connections it has."""
        return len(self.rows(f"SELECT {_SESSIONS}"))

    def end_sessions(self) -> None:
        """End every connection that it has."""
        self.rows(f"SELECT pg_terminate_backend(pid, 5000) {_SESSIONS}")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in (self.process.pid, *self.workers()):
                _signal(pid, signal.SIGKILL)
            self.process.wait()
            raise
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()


@contextmanager
def running(
    cluster: Cluster,
    directory: Path,
    root: Path | None = None,
    queue_seconds: float = QUEUE_SECONDS,
    collecting: dict[str, Any] | None = None,
) -> Iterator[Registry]:
    """A registry with its objects in `root`, and everything else of it in `directory`.

    Nobody collects unless `collecting` has settings for it.
    """
    root = root or directory / "objects"
    root.mkdir()
    faults, log = directory / "faults", directory / f"log-{time.monotonic_ns()}"
    faults.mkdir(exist_ok=True)
    target = cluster.create()
    settings = json.dumps(_settings(target, root, queue_seconds) | {"gc": collecting or {"disabled": True}})
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.launch", settings],
            cwd=ROOT,
            env={**os.environ, "FAULTS": str(faults), "TMPDIR": str(directory)},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    registry = Registry(process, log, faults, root, target)
    try:
        yield registry
    finally:
        registry.stop()


def _settings(target: Target, root: Path, queue_seconds: float) -> dict[str, Any]:
    return {
        "http": {"addr": "127.0.0.1:0", "workers": WORKERS, "debug": {"addr": "127.0.0.1:0"}},
        "storage": {"filesystem": {"rootdirectory": str(root), "maxthreads": THREADS}},
        "database": {
            "host": target.host,
            "port": target.port,
            "user": target.user,
            "dbname": target.database,
            "sslmode": "disable",
            "preparedstatements": True,
            "pool": {"maxopen": CONNECTIONS, "queuetimeout": f"{queue_seconds:g}s"},
        },
        "log": {"level": "info", "accesslog": {"disabled": True}},
    }


def _signal(process: int, number: signal.Signals) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return
