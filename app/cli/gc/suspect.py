"""`registry gc suspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import click

from app.cli import words
from app.cli.gc.place import Place
from app.cli.progress import Progress
from app.cli.settings import config_argument
from app.store import collecting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from app.store.collecting import Suspected
    from app.store.engine import Database

T = TypeVar("T")
PAGE: Final = 500


@click.command(name="suspect")
@config_argument
def command(*, config: Path | None) -> None:
    """Have everything reviewed that is unused and that no review is pending for.

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it.

    Usually there is nothing of the kind: what becomes unused becomes suspect by itself. It is for what was kept while
    gc.manifests.keepuntagged was set, and for what was reviewed with other rules. All manifests and blobs are read, and
    the reviews fall due after the usual delay. It may be interrupted and run again.
    """

    async def work(database: Database) -> tuple[int, int]:
        async def manifests(after: tuple[int, int]) -> Suspected[tuple[int, int]]:
            return await database.write(lambda c: collecting.suspect_manifests(c, PAGE, after))

        async def blobs(after: bytes) -> Suspected[bytes]:
            return await database.write(lambda c: collecting.suspect_blobs(c, PAGE, after))

        return await _walk("manifests", (0, 0), manifests), await _walk("blobs", b"", blobs)

    manifests, blobs = Place(config).change(work)
    click.echo(f"suspect now: {words.many(manifests, 'manifest')} and {words.many(blobs, 'blob')}")


async def _walk(name: str, begin: T, step: Callable[[T], Awaitable[Suspected[T]]]) -> int:
    looked_at, suspected = 0, 0
    after: T | None = begin
    with Progress(name) as progress:
        while after is not None:
            page = await step(after)
            looked_at, suspected, after = looked_at + page.looked_at, suspected + page.suspected, page.last
            progress.reached(looked_at)
    return suspected
