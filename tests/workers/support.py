"""Collectors as the registry builds them, on a database and a directory of one test."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.config import Settings, load
from app.wiring.collection import collectors, open_gc_database, tempo
from gc_workers.crew import Crew
from gc_workers.loop import Loop
from gc_workers.pace import Pace
from tests.support.postgres import connected
from tests.support.registry import open_registry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from app.store.engine import Database, Target
    from gc_workers.collectors import Batch, Collector
    from tests.support.registry import Registry


def settings_of(database: Target, root: Path, **gc: Any) -> Settings:
    base = {
        "http": {"addr": "127.0.0.1:0", "workers": 1, "debug": {"addr": "127.0.0.1:0"}},
        "storage": {"filesystem": {"rootdirectory": str(root)}, "delete": {"enabled": True}},
        "database": {
            "host": database.host,
            "port": database.port,
            "user": database.user,
            "password": database.password,
            "dbname": database.database,
            "sslmode": "disable",
            "preparedstatements": True,
        },
        "gc": gc,
        "log": {"accesslog": {"disabled": True}},
    }
    return load(None, {}, base=base).settings


@dataclass
class Counted:
    """A ledger that remembers."""

    batches: list[tuple[str, Batch]] = field(default_factory=list["tuple[str, Batch]"])
    failures: list[str] = field(default_factory=list[str])
    sleeps: list[tuple[str, float]] = field(default_factory=list["tuple[str, float]"])

    def batch(self, collector: str, batch: Batch, seconds: float) -> None:
        self.batches.append((collector, batch))

    def failure(self, collector: str, seconds: float) -> None:
        self.failures.append(collector)

    def sleep(self, collector: str, seconds: float) -> None:
        self.sleeps.append((collector, seconds))

    def of(self, collector: str) -> list[Batch]:
        return [batch for name, batch in self.batches if name == collector]


@dataclass(frozen=True)
class Site:
    """A registry and what collects in it."""

    registry: Registry
    database: Database
    settings: Settings
    collectors: list[Collector]
    counted: Counted

    def crew(self, **options: Any) -> Crew:
        loops = [Loop(one, Pace(tempo(self.settings, one)), self.counted) for one in self.collectors]
        return Crew(self.database, loops, **options)

    async def run(self, sql: str, *values: Any) -> Any:
        async with connected(self.registry.target) as connection:
            return await connection.fetchval(sql, *values)

    async def fall_due(self) -> None:
        """Everything that waits for its time has waited long enough."""
        async with connected(self.registry.target) as connection:
            for table, column in (
                ("gc_blob_review_queue", "review_after"),
                ("gc_manifest_review_queue", "review_after"),
                ("gc_storage_deletions", "not_before"),
            ):
                await connection.execute(f"UPDATE {table} SET {column} = {column} - interval '30 days'")


@asynccontextmanager
async def open_site(database: Target, root: Path, **gc: Any) -> AsyncGenerator[Site]:
    settings = settings_of(database, root, **gc)
    async with open_registry(database, root) as registry:
        gc_database = await open_gc_database(settings, None)
        try:
            found = collectors(settings, gc_database, registry.driver)
            yield Site(registry, gc_database, settings, found, Counted())
        finally:
            await gc_database.close()
