"""`registry issuer keys`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from app.cli import words
from app.cli.accounts import place_of
from app.cli.issuer.own import issuer_of, own_kid
from app.cli.settings import config_argument
from app.store import gc_counts, signing_keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from app.store.engine import Connection
    from app.store.signing_keys import SigningKey


@click.command(name="keys")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
@config_argument
def command(*, is_json: bool, config: Path | None) -> None:
    """Say which keys tokens may be signed with, until when, and which one is this machine's.

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it, or else it is
    data/config.yml, of registry serve --local.

    A replica announces its key for a week, and again as long as it runs. Keys that nobody announces any more end.
    """
    place = place_of(config)
    own = own_kid(issuer_of(place))

    async def look(c: Connection) -> tuple[list[SigningKey], datetime]:
        return await signing_keys.trusted(c), await gc_counts.now(c)

    found, now = place.observe(lambda observer: observer.look(look))
    if is_json:
        keys = [
            {
                "kid": key.kid,
                "algorithm": key.algorithm,
                "expires_at": words.plain(key.expires_at),
                "is_own": key.kid == own,
                "public_key": key.public_key,
            }
            for key in found
        ]
        click.echo(words.document({"now": words.plain(now), "own": own, "keys": keys}))
        return
    for line in _lines(found, own, now):
        click.echo(line)


def _lines(found: Sequence[SigningKey], own: str | None, now: datetime) -> Iterator[str]:
    if found:
        yield from words.table(
            ("KEY", "ALGORITHM", "TRUSTED UNTIL", ""),
            (
                (
                    words.printable(key.kid),
                    words.printable(key.algorithm),
                    f"{words.moment(key.expires_at)} ({words.since(key.expires_at, now)})",
                    "this machine's" if key.kid == own else "",
                )
                for key in found
            ),
            indent="",
        )
    if own is not None and own not in {key.kid for key in found}:
        yield (
            f"this machine's key {own} is not trusted: the registry announces it when it starts, unless it was"
            " distrusted"
        )
