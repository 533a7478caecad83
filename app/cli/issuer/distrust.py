"""`registry issuer distrust`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from app.cli.errors import Failure
from app.cli.gc.place import Place
from app.cli.issuer.own import issuer_of, own_key
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
    """Refuse all tokens of the key KID from now on; clients log in again by themselves.

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it.

    Replicas know within ten seconds. One whose file still has that key announces it again, so rotate it there first.
    """
    place = Place(config)
    if own_key(issuer_of(place)).kid == kid:
        raise Failure(
            "this machine signs with that key and would announce it again; first: "
            + command_line("issuer rotate", config)
        )

    async def work(database: Database) -> bool:
        is_known = any(key.kid == kid for key in await database.read(signing_keys.trusted))
        await database.write(lambda c: signing_keys.retire(c, kid, timedelta()))
        return is_known

    if not place.change(work):
        raise Failure("no key of that name is trusted; see: " + command_line("issuer keys", config))
    click.echo("distrusted: no token of that key is accepted any more")
