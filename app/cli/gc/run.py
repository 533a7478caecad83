"""`registry gc run`."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from app.blobs.driver import StorageError
from app.blobs.drivers import open_driver
from app.cli import words
from app.cli.errors import Failure, told
from app.cli.gc.place import Place
from app.cli.progress import Progress
from app.cli.settings import config_argument
from app.store import queues
from app.wiring.checks import refuse_empty_storage
from app.wiring.collection import collectors, open_gc_database
from gc_workers.passes import Paused, full_pass

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from app.config import Settings
    from gc_workers.passes import Tally


@click.command(name="run")
@config_argument
def command(*, config: Path | None) -> int:
    """Review and delete now what is due, without pauses, once.

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it.

    This may run beside any number of collectors, and be interrupted: what was done is done. It hurries nothing that is
    not due yet; registry gc plan tells beforehand what would be deleted. The exit code is 1 if something had to be put
    off because it failed.
    """
    place = Place(config)
    if place.settings.storage.maintenance.readonly.enabled:
        raise Failure("storage.maintenance.readonly is on: nothing may be deleted")
    with told(StorageError):
        try:
            tallies = place.run(lambda: _pass(place.settings))
        except Paused as error:
            raise Failure("garbage collection is paused; registry gc resume lets it go on") from error
    for tally in tallies:
        click.echo(_line(tally))
    return 1 if any(tally.failures for tally in tallies) else 0


async def _pass(settings: Settings) -> list[Tally]:
    await refuse_empty_storage(settings)
    database = await open_gc_database(settings, None)
    driver = open_driver(settings.storage.driver, settings.storage.parameters)
    try:
        states = await database.read(queues.states)
        with _Bars({state.queue: state.due for state in states}) as bars:
            return await full_pass(
                collectors(settings, database, driver), settings.gc.batchsize, told=bars.tell
            )
    finally:
        async with asyncio.TaskGroup() as group:
            group.create_task(driver.close())
            group.create_task(database.close())


class _Bars(ExitStack):
    """One collector's progress after the other's."""

    def __init__(self, totals: Mapping[str, int]) -> None:
        super().__init__()
        self._totals = totals
        self._name = ""
        self._progress: Progress | None = None

    def tell(self, tally: Tally) -> None:
        if tally.name != self._name:
            self.close()
            self._name = tally.name
            self._progress = self.enter_context(Progress(tally.name, self._totals.get(tally.name, 0)))
        if self._progress is not None:
            self._progress.reached(tally.taken)


def _line(tally: Tally) -> str:
    parts = [f"{words.number(tally.taken)} looked at", f"{words.number(tally.deleted)} deleted"]
    if tally.bytes:
        parts[1] += f" ({words.mib(tally.bytes)})"
    if tally.put_off:
        parts.append(f"{words.number(tally.put_off)} put off")
    if tally.failures:
        parts.append(f"{words.number(tally.failures)} batches failed: see the log above")
    return f"{tally.name}: {', '.join(parts)}"
