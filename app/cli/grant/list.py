"""`registry grant list`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli import words
from app.cli.accounts import PAGE, json_option, place_of, shown_actions, tell_table
from app.cli.grant import wish
from app.domain.accounts import ANONYMOUS
from app.store import grants

if TYPE_CHECKING:
    from app.store.engine import Database
    from app.store.grants import GrantRow


@click.command(name="list")
@json_option
@click.argument("account", required=False)
@click.argument("config", required=False, type=click.Path(path_type=Path))
def command(*, is_json: bool, account: str | None, config: Path | None) -> None:
    """List what is granted to ACCOUNT, or to all accounts and to everybody (anonymous).

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it, or else it is
    data/config.yml, of registry serve --local. A single argument that is the name of a file is CONFIG.

    Admins may do everything, without a grant.
    """
    if account is not None and config is None and Path(account).is_file():
        account, config = None, Path(account)
    if account is not None:
        account = wish.parse_account(account)
    found = place_of(config).change(lambda database: _found(database, account))
    if is_json:
        click.echo(words.document([words.plain(one) for one in found]))
        return
    rows = [
        (
            one.account or ANONYMOUS,
            shown_actions(one.actions),
            one.pattern or "**",
            words.moment(one.created_at),
        )
        for one in found
    ]
    tell_table(("ACCOUNT", "ACTIONS", "PATTERN", "SINCE"), rows, "nothing is granted")


async def _found(database: Database, account: str | None) -> list[GrantRow]:
    if account is not None:
        account_id = await wish.id_of(database, account)
        return await database.read(lambda c: grants.of(c, account_id))
    found: list[GrantRow] = []
    last = 0
    while page := await database.read(lambda c: grants.page(c, last, PAGE)):  # noqa: B023
        found += page
        last = page[-1].id
    return sorted(found, key=lambda one: (one.account or "", one.pattern))
