"""The key that this machine signs with, as the commands of `registry issuer` find it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.auth.keys import KeyFileError
from app.auth.signing import read_signing_key
from app.cli.errors import BadConfiguration, told

if TYPE_CHECKING:
    from app.auth.signing import SigningKey
    from app.cli.gc.place import Place
    from app.config.auth import Issuer


def issuer_of(place: Place) -> Issuer:
    """What the configuration says of the token service. Raises BadConfiguration if there is none."""
    issuer = place.settings.auth.issuer
    if issuer is None:
        raise BadConfiguration(
            ["auth.issuer: required, because only the built-in token service has keys of its own"]
        )
    return issuer


def own_key(issuer: Issuer) -> SigningKey:
    """The key of the file. Raises Failure."""
    with told(KeyFileError):
        return read_signing_key(Path(issuer.key))


def own_kid(issuer: Issuer) -> str | None:
    """The id of the file's key. None if it cannot be read, as where the key is another user's, which is told."""
    try:
        return read_signing_key(Path(issuer.key)).kid
    except KeyFileError as error:
        click.echo(f"registry: which key is this machine's is not known: {error}", err=True)
        return None
