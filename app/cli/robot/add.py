"""`registry robot add`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from app.auth.passwords import hash_secret, new_secret
from app.cli.accounts import (
    add,
    description_option,
    expires_option,
    label_option,
    name_argument,
    place_of,
)
from app.cli.errors import told
from app.cli.settings import config_argument
from app.store.accounts import AccountExists

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path


@click.command(name="add")
@name_argument
@description_option
@label_option
@expires_option
@config_argument
def command(
    *, name: str, description: str, label: str, lifetime: timedelta | None, config: Path | None
) -> None:
    """Add the robot NAME, and print its first secret, which cannot be shown again.

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it, or else it is
    data/config.yml, of registry serve --local.

    The secret alone goes to standard output, so this works:
    registry robot add ci | docker login -u ci --password-stdin HOST
    """
    secret = new_secret()
    with told(AccountExists):
        add(
            place_of(config),
            name,
            "robot",
            description=description,
            secret_hash=hash_secret(secret),
            label=label,
            lifetime=lifetime,
        )
    click.echo(
        f"added {name}; its secret is shown this once; to let it push, say:"
        f" registry grant add {name} pull,push '{name}/**'",
        err=True,
    )
    click.echo(secret)
