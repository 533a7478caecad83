"""What `registry config` does: looking at a configuration file."""

from __future__ import annotations

from pathlib import Path

import click

from app.cli.settings import loaded, refuse_unserved


@click.group(name="config", help="Look at a configuration file.")
def command() -> None:
    """Nothing by itself."""


@command.command(name="check")
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Say whether `registry serve FILE` would accept the configuration.

    The REGISTRY_* variables of the environment count as they do for serve. Nothing is started and nothing is
    connected to. Warnings go to standard error. Exit code 0 means that it is good; otherwise each mistake is told
    on a line of its own and the exit code is 2.
    """
    result = loaded(file)
    for warning in result.warnings:
        click.echo(f"warning: {warning}", err=True)
    refuse_unserved(result.settings)
    click.echo(f"{file}: ok")
