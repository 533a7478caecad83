"""Where everything is while it is measured: a directory, a PostgreSQL in it, and registries on copies of the stock."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final, cast

import asyncpg

from app.runtime.embedded import EmbeddedError, EmbeddedPostgres
from app.store import migrate
from app.store.engine import Target
from benchmarks import trees
from benchmarks.errors import BenchError
from benchmarks.gc import storing
from benchmarks.gc.rows import write_rows
from benchmarks.peer import answering, free_port
from benchmarks.report import say
from benchmarks.running import Running, clean_environment

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from benchmarks.gc.content import Size
    from benchmarks.trees import Use

# The size that is documented.
FULL_REPOSITORIES: Final = 1000
_CONNECTIONS_MAX: Final = 100
# As the settings have it by default.
_INTERVAL_SECONDS: Final = 5.0
_REGISTRY: Final = (sys.executable, "-c", "from app.cli import main; main()")
# The collectors are another process than the API, as `registry serve` has them, but one that comes and goes.
_CONFIG: Final = """\
version: 0.1
log:
  level: warn
  accesslog:
    disabled: true
http:
  addr: 127.0.0.1:{port}
storage:
  filesystem:
    rootdirectory: {root}
  delete:
    enabled: true
database:
  host: {host}
  port: {database_port}
  user: {user}
  dbname: {database}
  sslmode: disable
  preparedstatements: true
gc:
  disabled: true
  load: {load}
  noidlebackoff: true
  manifests:
    interval: {interval:.3f}s
  blobs:
    interval: {interval:.3f}s
    storagedelay: 0s
"""
# What is due, and what was put off for a while; not what clients push meanwhile, which falls due tomorrow.
_DUE: Final = """
SELECT EXISTS (SELECT FROM gc_manifest_review_queue WHERE review_after < now() + interval '1 hour'),
       EXISTS (SELECT FROM gc_blob_review_queue WHERE review_after < now() + interval '1 hour'),
       EXISTS (SELECT FROM gc_storage_deletions)
"""


class Stand:
    """One set of rows at a time is in use, in the database `current` with the objects below `root`.

    What is not `durable`, for tests, is never waited for.
    """

    def __init__(self, directory: Path, size: Size, *, durable: bool = True) -> None:
        self.directory = directory
        self.size = size
        self.root = directory / "ours"
        self._server = EmbeddedPostgres(
            directory / "postgres", max_connections=_CONNECTIONS_MAX, durable=durable
        )
        self._durable = durable
        self._target: Target | None = None
        self._stocks: set[int] = set()
        # With less to do, waits are shorter, or a small stock would be all waiting.
        self._interval = max(_INTERVAL_SECONDS * min(size.repositories / FULL_REPOSITORIES, 1.0), 0.1)

    def start(self) -> None:
        """Start PostgreSQL. Raises BenchError."""
        try:
            self._target = Target(**asdict(self._server.start()))
        except EmbeddedError as error:
            raise BenchError(str(error)) from error

    def stop(self) -> None:
        """Stop it."""
        self._server.stop()

    async def renew(self, partitions: int) -> None:
        """Have everything as it was before anything was collected, on tables of so many partitions."""
        stock = f"stock_{partitions}"
        if partitions not in self._stocks:
            say(f"filling in: rows on {partitions} partitions")
            await self._make(stock, partitions)
            self._stocks.add(partitions)
        say("filling in: a copy of the rows, and the objects")
        async with self.connected("postgres") as connection:
            await connection.execute("DROP DATABASE IF EXISTS current WITH (FORCE)")
            await connection.execute(f"CREATE DATABASE current TEMPLATE {stock} STRATEGY file_copy")
            await connection.execute("CHECKPOINT")
        await asyncio.to_thread(storing.write_objects, self.root, self.size)
        await self.settle()

    async def settle(self) -> None:
        """Wait until everything that was written is on the disk."""
        if self._durable:
            await asyncio.to_thread(os.sync)

    def configuration(self, name: str, *, load: float = 1.0, port: int = 0) -> Path:
        """A file with the settings of a registry on what is in use."""
        target = self._target_of("current")
        path = self.directory / f"{name}.yml"
        path.write_text(
            _CONFIG.format(
                port=port,
                root=self.root,
                host=target.host,
                database_port=target.port,
                user=target.user,
                database=target.database,
                load=load,
                interval=self._interval,
            )
        )
        return path

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[Running]:
        """A registry without collectors."""
        port = free_port()
        command = [*_REGISTRY, "serve", str(self.configuration("serve", port=port))]

        def ready(_: str) -> str | None:
            return answering(port)

        async with self._running("ours", command, ready) as running:
            yield running

    @asynccontextmanager
    async def collecting(self, load: float) -> AsyncGenerator[Running]:
        """One worker of each kind."""
        command = [*_REGISTRY, "gc", "work", str(self.configuration("work", load=load))]

        def ready(said: str) -> str | None:
            return "collecting" if "registry: collecting" in said else None

        async with self._running("collectors", command, ready) as running:
            yield running

    @asynccontextmanager
    async def connected(self, database: str = "current") -> AsyncGenerator[Any]:
        """A connection of our own."""
        arguments = self._target_of(database).arguments()
        connection: Any = await cast("Any", asyncpg).connect(**arguments)
        try:
            yield connection
        except asyncpg.PostgresError as error:
            raise BenchError(f"the database does not do what the benchmark wants: {error}") from error
        finally:
            await connection.close()

    async def due(self) -> tuple[bool, bool, bool]:
        """Whether there is work for manifests, blobs and objects."""
        async with self.connected() as connection:
            return tuple(await connection.fetchrow(_DUE))

    def cpu_seconds(self) -> Use:
        """Processor time of our process and all below it, PostgreSQL among them."""
        return trees.cpu_seconds(os.getpid())

    async def _make(self, stock: str, partitions: int) -> None:
        async with self.connected("postgres") as connection:
            await connection.execute(f"CREATE DATABASE {stock}")
        await migrate.upgrade(self._target_of(stock), partitions=partitions)
        async with self.connected(stock) as connection:
            await write_rows(connection, self.size)

    def _target_of(self, database: str) -> Target:
        if self._target is None:
            raise BenchError("the PostgreSQL of the benchmark does not run")
        return replace(self._target, database=database)

    @asynccontextmanager
    async def _running(self, name: str, command: list[str], ready: Any) -> AsyncGenerator[Running]:
        running = Running(name, command, clean_environment(), self.directory / f"{name}.log", ready)
        await running.start()
        try:
            yield running
            if running.obituary:
                raise BenchError(running.obituary)
        finally:
            await running.stop()
