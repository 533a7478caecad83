"""The key that this machine signs with, as the commands of `registry issuer` find it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
