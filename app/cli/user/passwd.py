"""`registry user passwd`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from app.cli.accounts import account_of, change, chosen_password, name_argument, password_options, place_of
from app.cli.settings import config_argument
from app.store import accounts

if TYPE_CHECKING:
    from pathlib import Path

    from app.store.accounts import Account
    from app.store.engine import Database


@click.command(name="passwd")
@name_argument
@password_options
@config_argument
def command(*, name: str, is_stdin: bool, is_generated: bool, config: Path | None) -> None:
    """Give the user NAME a new password, and end what `docker login` had stored anywhere for the old one.

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it, or else it is
    data/config.yml, of registry serve --local.

    The password is asked for on the terminal, twice, unless an option says otherwise. It has at least 8 characters.
    """

    async def look(database: Database) -> Account:
        return await account_of(database, name, "person")

    place_of(config).change(look)
    password, secret_hash = chosen_password(is_stdin=is_stdin, is_generated=is_generated)
    change(config, name, "person", lambda c, account: accounts.set_password(c, account.id, secret_hash))
    click.echo(f"{name} has a new password", err=is_generated)
    if is_generated:
        click.echo(password)
