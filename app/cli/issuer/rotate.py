"""`registry issuer rotate`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from app.auth.jwts import LEEWAY_SECONDS
from app.auth.keys import KeyFileError
from app.auth.signing import new_key, write_key
from app.cli import words
from app.cli.accounts import place_of
from app.cli.errors import Failure, told
from app.cli.issuer.own import issuer_of, own_key
from app.cli.settings import config_argument
from app.services.signing_ring import ANNOUNCED
from app.store import signing_keys

if TYPE_CHECKING:
    from app.store.engine import Database

# Processes find a changed file within a second; until then they sign with the old key.
_NOTICED: Final = timedelta(minutes=1)


@click.command(name="rotate")
@config_argument
def command(*, config: Path | None) -> None:
    """Have this machine sign with a new key.

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it, or else it is
    data/config.yml, of registry serve --local.

    The new key is made as auth.issuer.algorithm says and takes the place of the old one in its file. A registry that
    runs goes on with it by itself. Tokens of the old key are accepted until the last of them has ended. Where the key
    is known to somebody else, distrust the old one afterwards.
    """
    place = place_of(config)
    issuer = issuer_of(place)
    old, new = own_key(issuer), new_key(issuer.algorithm)
    overlap = timedelta(seconds=issuer.expiresin.seconds + LEEWAY_SECONDS) + _NOTICED

    async def work(database: Database) -> bool:
        # Before anybody can sign with it, so that no replica meets a token whose key it does not know.
        if not await database.write(
            lambda c: signing_keys.announce(c, new.kid, new.algorithm, new.public_pem, ANNOUNCED)
        ):
            raise Failure("the new key could not be announced in the database; nothing was changed")
        with told(KeyFileError):
            write_key(Path(issuer.key), new)
        await database.write(lambda c: signing_keys.retire(c, old.kid, overlap))
        return any(key.kid == old.kid for key in await database.read(signing_keys.trusted))

    trust = f"trusted for another {words.span(overlap)}" if place.change(work) else "not trusted"
    click.echo(f"new key: {new.kid} ({new.algorithm})")
    click.echo(f"old key: {old.kid} ({old.algorithm}), {trust}")
