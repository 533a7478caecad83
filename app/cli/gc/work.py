"""What `registry gc work` does: the collectors alone, without the API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from app.cli.configured import refuse_unready
from app.cli.errors import Failure, told
from app.cli.ready import tell_warnings
from app.cli.settings import config_argument, loaded, refuse_unserved
from app.server import choices, supervisor
from app.server.errors import ServerError

if TYPE_CHECKING:
    from pathlib import Path


@click.command(name="work")
@click.option("--debug", "is_debug", is_flag=True, help="Serve health and metrics at http.debug.addr.")
@config_argument
def command(*, is_debug: bool, config: Path | None) -> None:
    """Run the collectors until told to stop, without serving the API.

    Any number may run, beside any number of `registry serve`, each of which has its own unless gc.disabled says
    otherwise; gc.disabled does not count here. CONFIG is the file that serve uses.
    """
    result = loaded(config)
    settings = result.settings
    refuse_unserved(settings)
    if settings.storage.maintenance.readonly.enabled:
        raise Failure("storage.maintenance.readonly is on: nothing may be deleted")
    if settings.storage.driver == "inmemory":
        raise Failure("storage.inmemory: only the process that keeps the bytes could delete any")
    choices.configure_logs(settings)
    tell_warnings(result.warnings)
    with told(ServerError):
        debug = choices.open_debug_door(settings) if is_debug else None
        doors = choices.Doors(None, debug, "")
        try:
            refuse_unready(settings, config)
            supervisor.run(
                supervisor.Site(
                    settings,
                    doors,
                    ready=lambda: click.echo("registry: collecting"),
                    collecting=choices.COLLECTING,
                )
            )
        finally:
            doors.close()
