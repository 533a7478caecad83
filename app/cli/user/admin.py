"""`registry user admin`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from app.cli.accounts import change, name_argument
from app.cli.settings import config_argument
from app.store import accounts

if TYPE_CHECKING:
    from pathlib import Path


@click.command(name="admin")
@name_argument
@click.option("--on/--off", "is_admin", required=True, help="Everything, or only what is granted.")
@config_argument
def command(*, name: str, is_admin: bool, config: Path | None) -> None:
    """Let the user NAME do everything (--on), or only what is granted (--off).

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it, or else it is
    data/config.yml, of registry serve --local. Tokens that are out stay as they are until they end, within minutes.
    """
    change(config, name, "person", lambda c, _: accounts.set_admin(c, name, is_admin=is_admin))
    click.echo(f"{name} may do everything" if is_admin else f"{name} may do what is granted")
