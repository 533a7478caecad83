"""How the commands of `registry gc` get at the database, and what the configuration says of collecting."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from app.cli import words
from app.cli.errors import BadConfiguration, Failure
from app.cli.settings import command_line, loaded
from app.domain.errors import RegistryError
from app.store import migrate
from app.store.engine import Database
from app.store.observing import observing
from app.wiring.parts import target_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from datetime import datetime
    from pathlib import Path
    from typing import Any

    from app.config import Settings
    from app.store.gc_counts import Control
    from app.store.observing import Observer

T = TypeVar("T")


class Place:
    """The registry that a configuration file describes. Every method raises Failure."""

    def __init__(self, config: Path | None) -> None:
        self._config = config
        self.settings: Settings = loaded(config).settings
        if not self.settings.database.host:
            raise BadConfiguration(["database.host: required, because it says which database to look at"])
        self._target = target_of(self.settings)

    def observe(self, work: Callable[[Observer], Awaitable[T]]) -> T:
        """Run `work`, which can only look."""

        async def run() -> T:
            await self._refuse_other_schema()
            async with observing(self._target) as observer:
                return await work(observer)

        return _run(run())

    def change(self, work: Callable[[Database], Awaitable[T]]) -> T:
        """Run `work`, which may write."""

        async def run() -> T:
            await self._refuse_other_schema()
            database = await Database.open(
                self._target,
                connections_max=1,
                prepared_statements=self.settings.database.preparedstatements,
            )
            try:
                return await work(database)
            finally:
                await database.close()

        return _run(run())

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run `work`, which brings its own connections."""

        async def run() -> T:
            await self._refuse_other_schema()
            return await work()

        return _run(run())

    async def _refuse_other_schema(self) -> None:
        if not await migrate.is_current(self._target):
            remedy = command_line("database migrate up", self._config)
            raise Failure(f"the metadata database lacks migrations; apply them first: {remedy}")

    @property
    def upload_age(self) -> timedelta | None:
        """After how long without a sign of life an upload is given up; None: never."""
        purging = self.settings.storage.maintenance.uploadpurging
        return timedelta(seconds=purging.age.seconds) if purging.enabled and not purging.dryrun else None

    @property
    def hindrances(self) -> tuple[str, ...]:
        """What in this configuration keeps collectors from deleting. Another replica may have another one."""
        gc = self.settings.gc
        facts = {
            "storage.maintenance.readonly is enabled: nothing is deleted": (
                self.settings.storage.maintenance.readonly.enabled
            ),
            "gc.disabled is set: registry serve deletes nothing, registry gc work does": gc.disabled,
            "gc.manifests.disabled is set: no manifest is deleted": gc.manifests.disabled,
            "gc.blobs.disabled is set: no blob and no object is deleted": gc.blobs.disabled,
        }
        return tuple(sentence for sentence, is_so in facts.items() if is_so)


def paused(control: Control, now: datetime) -> str:
    """Whether deletions are paused, in words."""
    if not control.is_paused:
        return "deletions are not paused"
    reason = f": {words.printable(control.reason)}" if control.reason else ""
    ago = words.since(control.changed_at, now)
    return f"deletions are paused since {words.moment(control.changed_at)} ({ago}){reason}"


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except RegistryError as error:
        raise Failure(str(error)) from error
