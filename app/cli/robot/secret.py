"""What `registry robot secret` does: several secrets, so that one can be exchanged while another is in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from app.auth.passwords import hash_secret, new_secret
from app.cli import words
from app.cli.accounts import change, expires_option, json_option, label_option, name_argument, tell_table
from app.cli.errors import Failure, told
from app.cli.settings import config_argument
from app.store import accounts
from app.store.accounts import TooManySecrets

if TYPE_CHECKING:
    from datetime import datetime, timedelta
    from pathlib import Path

    from app.store.accounts import SecretRow


@click.group(name="secret", help="Look after a robot's secrets.")
def command() -> None:
    """Nothing by itself."""


@command.command(name="add", short_help="Print one more secret of a robot.")
@name_argument
@label_option
@expires_option
@config_argument
def add(*, name: str, label: str, lifetime: timedelta | None, config: Path | None) -> None:
    """Print one more secret of the robot NAME, which cannot be shown again. Those that it has stay good.

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it, or else it is
    data/config.yml, of registry serve --local. The secret alone goes to standard output.
    """
    secret, digest = _made()
    with told(TooManySecrets):
        number = change(
            config,
            name,
            "robot",
            lambda c, robot: accounts.add_secret(c, robot.id, digest, label=label, lifetime=lifetime),
        )
    click.echo(f"added secret {number} of {name}; it is shown this once", err=True)
    click.echo(secret)


@command.command(name="list", short_help="List the secrets of a robot.")
@name_argument
@json_option
@config_argument
def list_(*, name: str, is_json: bool, config: Path | None) -> None:
    """List the secrets of the robot NAME: all but the secrets themselves, which nobody can look at.

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it, or else it is
    data/config.yml, of registry serve --local.
    """
    found: list[SecretRow] = change(config, name, "robot", lambda c, robot: accounts.secrets(c, robot.id))
    if is_json:
        click.echo(words.document([words.plain(one) for one in found]))
        return
    rows = [
        (
            str(one.id),
            words.moment(one.created_at),
            _moment(one.expires_at),
            _moment(one.last_used_at),
            words.printable(one.label),
        )
        for one in found
    ]
    tell_table(("ID>", "CREATED", "EXPIRES", "LAST USED", "LABEL"), rows, f"{name} has no secrets")


@command.command(name="remove", short_help="Remove a secret of a robot.")
@name_argument
@click.argument("number", metavar="ID", type=click.IntRange(min=1, max=2**63 - 1))
@config_argument
def remove(*, name: str, number: int, config: Path | None) -> None:
    """Remove the secret ID of the robot NAME, with the refresh tokens that it was used for.

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it, or else it is
    data/config.yml, of registry serve --local. registry robot secret list shows the ids.
    """
    if not change(config, name, "robot", lambda c, robot: accounts.remove_secret(c, robot.id, number)):
        raise Failure(f"{name} has no secret {number}; registry robot secret list {name} shows all")
    click.echo(f"removed secret {number} of {name}")


def _made() -> tuple[str, str]:
    secret = new_secret()
    return secret, hash_secret(secret)


def _moment(when: datetime | None) -> str:
    return "never" if when is None else words.moment(when)
