"""`registry gc pause`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from app.cli.gc.place import Place, paused
from app.cli.settings import config_argument
from app.store import collecting, gc_counts

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from app.store.engine import Database
    from app.store.gc_counts import Control

REASON_CHARS_MAX: Final = 200


def _reason(_: click.Context, __: click.Parameter, value: str) -> str:
    if len(value) > REASON_CHARS_MAX or not value.isprintable():
        raise click.BadParameter(f"one line of at most {REASON_CHARS_MAX} printable characters")
    return value


@click.command(name="pause")
@click.option("--reason", default="", callback=_reason, help="Why, for those who look at the status.")
@config_argument
def command(*, reason: str, config: Path | None) -> None:
    """Delete nothing until told to resume: no collector of any replica, and no object from storage.

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it.

    When this returns, no row is being deleted any more. An object whose deletion had begun may still go. Pushes, pulls
    and deletions by clients go on, and so does the watch over what becomes unused.
    """

    async def work(database: Database) -> tuple[bool, Control, datetime]:
        changed = await database.write(lambda c: collecting.set_paused(c, is_paused=True, reason=reason))
        return changed, await database.read(gc_counts.control), await database.read(gc_counts.now)

    changed, control, now = Place(config).change(work)
    if changed:
        click.echo("paused: nothing is deleted until registry gc resume")
    else:
        click.echo(f"nothing to do: {paused(control, now)}")
