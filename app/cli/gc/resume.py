"""`registry gc resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from app.cli.gc.place import Place
from app.cli.settings import config_argument
from app.store import collecting

if TYPE_CHECKING:
    from pathlib import Path


@click.command(name="resume")
@config_argument
def command(*, config: Path | None) -> None:
    """Delete again what is unused, after a pause. The collectors hear of it at once.

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it.
    """
    changed = Place(config).change(
        lambda database: database.write(lambda c: collecting.set_paused(c, is_paused=False))
    )
    click.echo("resumed" if changed else "nothing to do: deletions are not paused")
