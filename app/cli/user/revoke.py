"""`registry user revoke`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from app.cli import words
from app.cli.accounts import change, name_argument
from app.cli.settings import config_argument
from app.store import refresh_tokens

if TYPE_CHECKING:
    from pathlib import Path


@click.command(name="revoke")
@name_argument
@config_argument
def command(*, name: str, config: Path | None) -> None:
    """End all refresh tokens of the user NAME, which `docker login` stores in place of the password.

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it, or else it is
    data/config.yml, of registry serve --local. The password stays as it is: to log in with it is possible again.
    """
    count = change(config, name, "person", lambda c, account: refresh_tokens.revoke_all(c, account.id))
    click.echo(
        f"ended {words.many(count, 'refresh token')} of {name}; other tokens end by themselves, within minutes"
    )
