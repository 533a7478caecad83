"""`registry grant remove`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from app.cli.accounts import place_of
from app.cli.errors import Failure
from app.cli.grant import wish
from app.cli.settings import config_argument
from app.store import grants

if TYPE_CHECKING:
    from pathlib import Path

    from app.domain.access import Action
    from app.store.engine import Database


@click.command(name="remove")
@wish.arguments
@config_argument
def command(*, account: str, actions: frozenset[Action], pattern: str, config: Path | None) -> None:
    """Take back that ACCOUNT may do ACTIONS to what PATTERN matches. The pattern is the one that was granted.

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it, or else it is
    data/config.yml, of registry serve --local.

    Other actions of the same grant stay, and so do grants on other patterns that match the same repositories. Tokens
    that are out stay as they are until they end, within minutes.
    """
    wanted = tuple(wish.parts(account, actions, pattern))

    async def work(database: Database) -> bool:
        account_id = await wish.id_of(database, account)
        return any(
            [await database.write(lambda c, one=one: grants.remove(c, account_id, *one)) for one in wanted]
        )

    if not place_of(config).change(work):
        raise Failure(f"{account} has no such grant; registry grant list shows all")
    click.echo("taken back")
