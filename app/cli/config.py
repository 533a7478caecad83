"""What `registry config` does: looking at a configuration file."""

from __future__ import annotations

from pathlib import Path

import click

from app.cli.settings import loaded


@click.group(name="config", help="Look at a configuration file.")
def command() -> None:
    """Nothing by itself."""


@command.command(name="check")
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Say whether the configuration is right.

    The REGISTRY_* variables of the environment count as they do for serve. Nothing is started and nothing is
    connected to. Warnings go to standard error, among them what keeps this release from serving a file that is right
    as such. Exit code 0 means that it is right; otherwise each mistake is told on a line of its own and the exit code
    is 2.
    """
    result = loaded(file)
    unserved = result.settings.unserved()
    for warning in (*result.warnings, *(f"registry serve refuses to start: {reason}" for reason in unserved)):
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{file}: ok, but it cannot be served yet" if unserved else f"{file}: ok")
