"""`registry issuer distrust`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from app.cli.accounts import place_of
from app.cli.errors import Failure
from app.cli.issuer.own import issuer_of, own_kid
from app.cli.settings import command_line, config_argument
from app.store import signing_keys

if TYPE_CHECKING:
    from pathlib import Path

    from app.store.engine import Database


# One key of 64 has a name that looks like an option.
@click.command(
    name="distrust", context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]}
)
@click.argument("kid")
@config_argument
def command(*, kid: str, config: Path | None) -> None:
    """Refuse all tokens of the key KID from now on and for good; clients log in again by themselves.

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it, or else it is
    data/config.yml, of registry serve --local.

    Replicas know within ten seconds. One whose file still has that key issues no more tokens, so rotate it there first.
    """
    place = place_of(config)
    if own_kid(issuer_of(place)) == kid:
        raise Failure(
            "this machine signs with that key and could issue no more tokens; first: "
            + command_line("issuer rotate", config)
        )

    async def work(database: Database) -> bool:
        return await database.write(lambda c: signing_keys.distrust(c, kid))

    if not place.change(work):
        raise Failure("no key of that name is trusted; see: " + command_line("issuer keys", config))
    click.echo("distrusted: no token of that key is accepted any more")
