"""`registry robot remove`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from app.cli.accounts import name_argument, remove, yes_option
from app.cli.settings import config_argument

if TYPE_CHECKING:
    from pathlib import Path


@click.command(name="remove")
@name_argument
@yes_option
@config_argument
def command(*, name: str, is_sure: bool, config: Path | None) -> None:
    """Remove the robot NAME with all that is granted to it. What it has pushed stays.

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it, or else it is
    data/config.yml, of registry serve --local.
    """
    remove(config, name, "robot", is_sure=is_sure)
