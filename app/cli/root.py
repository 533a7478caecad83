"""`registry` itself: which commands there are."""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

# A command NAME is `command` in the module app.cli.NAME.
_COMMANDS: Final = {
    "serve": "Serve the registry until it is told to stop.",
    "config": "Look at a configuration file.",
    "database": "Look after the metadata database.",
    "gc": "Look at garbage collection, or have it wait and go on.",
    "fsck": "Check that nothing is lost, leaked or damaged.",
    "user": "Look after the people who may log in.",
    "robot": "Look after the programs that may log in.",
    "grant": "Say who may do what to which repositories.",
    "token": "Look at the tokens that clients bring.",
    "issuer": "Look after the keys of the built-in token service.",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called; their summaries are known without that."""

    def __init__(self, summaries: Mapping[str, str], package: str, **options: object) -> None:
        super().__init__(**options)  # pyright: ignore[reportArgumentType]
        self._summaries = summaries
        self._package = package

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(self._summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in self._summaries:
            return None
        return importlib.import_module(f"{self._package}.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(self._summaries.items()))


def _version(context: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001  (click's call)
    if not value or context.resilient_parsing:
        return
    try:
        number = metadata.version("registry")
    except metadata.PackageNotFoundError:
        number = "(not installed)"
    click.echo(f"registry {number}")
    context.exit()


registry = LazyGroup(
    _COMMANDS,
    "app.cli",
    name="registry",
    help=(
        "A container registry: the OCI distribution API on PostgreSQL.\n\n"
        "To try it without any set-up: registry serve --local\n\n"
        "Exit codes: 0 is success, 1 a failure, 2 a mistake in the command or the configuration."
    ),
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_version,
            help="Print the version and exit.",
        )
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
