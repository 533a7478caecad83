"""`registry grant add`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from app.cli.accounts import place_of
from app.cli.grant import wish
from app.cli.settings import config_argument
from app.store import grants

if TYPE_CHECKING:
    from pathlib import Path

    from app.domain.access import Action
    from app.store.engine import Database


@click.command(name="add")
@wish.arguments
@config_argument
def command(*, account: str, actions: frozenset[Action], pattern: str, config: Path | None) -> None:
    """Let ACCOUNT do ACTIONS to the repositories that PATTERN matches, beside what it may already.

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it, or else it is
    data/config.yml, of registry serve --local.

    ACCOUNT is a user, a robot, or anonymous, for everybody with and without credentials. ACTIONS are some of pull,
    push, delete and catalog, joined by commas. PATTERN is a path in which * stands for anything within one part, and
    ** for any number of parts. Quote it, as the shell knows stars too: registry grant add ci pull,push 'team-a/**'
    """
    wanted = tuple(wish.parts(account, actions, pattern))

    async def work(database: Database) -> bool:
        account_id = await wish.id_of(database, account)
        return any(
            [await database.write(lambda c, one=one: grants.add(c, account_id, *one)) for one in wanted]
        )

    if place_of(config).change(work):
        click.echo("granted")
    else:
        click.echo(f"nothing to do: {account} has that grant")
