"""The collectors of the model's registries, as the settings make them, each on its own and all in a pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.blobs.drivers.filesystem import Filesystem
from app.config import load
from app.wiring.collection import collectors, open_gc_database
from gc_workers.passes import Paused, full_pass
from tests.model.keeping import RECEIPT_AGE_SECONDS, STORAGE_DELAY_SECONDS, UPLOAD_AGE_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from app.config import Settings
    from app.store.engine import Database, Target
    from gc_workers.collectors import Batch, Collector
    from gc_workers.passes import Tally


class Collection:
    """Collectors that go on where their last batch ended, and those of passes, which begin anew each time.

    They come twice: those that delete untagged manifests, and those that keep them.
    """

    def __init__(self, settings: dict[bool, Settings], database: Database, driver: Filesystem) -> None:
        self.database = database
        self.driver = driver
        self._settings = settings
        self._working: dict[bool, dict[str, Collector]] = {}

    @classmethod
    async def open(cls, target: Target, root: Path) -> Collection:
        settings = {keep: _settings(target, root, keep_untagged=keep) for keep in (False, True)}
        return cls(settings, await open_gc_database(settings[False], None), Filesystem(root))

    async def close(self) -> None:
        await self.database.close()
        await self.driver.close()

    def begin(self) -> None:
        """Forget where the last batches ended."""
        self._working = {
            keep: {collector.name: collector for collector in self._made(keep_untagged=keep)}
            for keep in self._settings
        }

    async def batch(self, kind: str, limit: int, *, keep_untagged: bool) -> Batch:
        return await self._working[keep_untagged][kind].collect(limit)

    async def whole_pass(self, limit: int, *, keep_untagged: bool) -> list[Tally] | None:
        """None: deletions are paused."""
        try:
            return await full_pass(self._made(keep_untagged=keep_untagged), limit)
        except Paused:
            return None

    def _made(self, *, keep_untagged: bool) -> list[Collector]:
        return collectors(self._settings[keep_untagged], self.database, self.driver)


def _settings(target: Target, root: Path, *, keep_untagged: bool) -> Settings:
    base: dict[str, Any] = {
        "http": {"addr": "127.0.0.1:0"},
        "database": {
            "host": target.host,
            "port": target.port,
            "user": target.user,
            "password": target.password,
            "dbname": target.database,
        },
        "storage": {
            "filesystem": {"rootdirectory": str(root)},
            "maintenance": {"uploadpurging": {"age": f"{UPLOAD_AGE_SECONDS:.0f}s"}},
        },
        "gc": {
            "manifests": {"keepuntagged": keep_untagged},
            "blobs": {"storagedelay": f"{STORAGE_DELAY_SECONDS:.0f}s"},
            "receipts": {"age": f"{RECEIPT_AGE_SECONDS:.0f}s"},
        },
    }
    return load(None, {}, base=base).settings
