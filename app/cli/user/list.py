"""`registry user list`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from app.cli.accounts import json_option, list_accounts
from app.cli.settings import config_argument

if TYPE_CHECKING:
    from pathlib import Path


@click.command(name="list")
@json_option
@config_argument
def command(*, is_json: bool, config: Path | None) -> None:
    """List all users: whether they may log in, and when they last did, to the minute.

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it, or else it is
    data/config.yml, of registry serve --local.
    """
    list_accounts(config, "person", is_json=is_json)
