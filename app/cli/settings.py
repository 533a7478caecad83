"""The configuration, as commands get at it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli.errors import BadConfiguration
from app.config import ConfigError, Loaded, load

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.config import Settings

config_argument: Callable[[Callable[..., Any]], Callable[..., Any]] = click.argument(
    "config", required=False, type=click.Path(path_type=Path)
)


def loaded(config: Path | None, *, base: Mapping[str, object] | None = None) -> Loaded:
    """The configuration of a file, or on top of `base`, with the environment's REGISTRY_* over it."""
    try:
        return load(config, os.environ, base=base)
    except ConfigError as error:
        raise BadConfiguration(error.problems) from error


def refuse_unserved(settings: Settings) -> None:
    """Raise BadConfiguration if the registry may not be served with these settings."""
    if reasons := settings.unserved():
        raise BadConfiguration(reasons)


def command_line(command: str, config: Path | None) -> str:
    """A command of ours as the operator would type it next."""
    return f"registry {command}" if config is None else f"registry {command} {config}"
