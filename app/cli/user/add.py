"""`registry user add`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from app.cli.accounts import (
    add,
    chosen_password,
    description_option,
    name_argument,
    password_options,
    place_of,
)
from app.cli.errors import Failure, told
from app.cli.settings import config_argument
from app.store import accounts
from app.store.accounts import AccountExists

if TYPE_CHECKING:
    from pathlib import Path

    from app.store.engine import Database


@click.command(name="add")
@name_argument
@click.option("--admin", "is_admin", is_flag=True, help="Let the user do everything.")
@description_option
@password_options
@config_argument
def command(
    *, name: str, is_admin: bool, description: str, is_stdin: bool, is_generated: bool, config: Path | None
) -> None:
    """Add the user NAME, who may do what everybody may until something is granted.

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it, or else it is
    data/config.yml, of registry serve --local.

    The password is asked for on the terminal, twice, unless an option says otherwise. It has at least 8 characters.
    """

    async def look(database: Database) -> None:
        if await database.read(lambda c: accounts.find(c, name)):
            raise Failure(f"there is an account {name} already")

    place = place_of(config)
    place.change(look)
    password, secret_hash = chosen_password(is_stdin=is_stdin, is_generated=is_generated)
    with told(AccountExists):
        add(place, name, "person", is_admin=is_admin, description=description, secret_hash=secret_hash)
    hint = "" if is_admin else f"; to let it push, say: registry grant add {name} pull,push '{name}/**'"
    click.echo(f"added {name}{hint}", err=is_generated)
    if is_generated:
        click.echo(password)
