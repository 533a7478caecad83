"""`registry robot enable`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from app.cli.accounts import name_argument, set_disabled
from app.cli.settings import config_argument

if TYPE_CHECKING:
    from pathlib import Path


@click.command(name="enable")
@name_argument
@config_argument
def command(*, name: str, config: Path | None) -> None:
    """Let the robot NAME log in again.

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it, or else it is
    data/config.yml, of registry serve --local.
    """
    set_disabled(config, name, "robot", is_disabled=False)
