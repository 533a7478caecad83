"""What `registry serve` does: choosing between the two set-ups."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.errors import told
from app.cli.settings import config_argument
from app.runtime.embedded import EmbeddedError
from app.server.errors import ServerError

if TYPE_CHECKING:
    from types import FrameType


@click.command(name="serve")
@click.option(
    "--local",
    "is_local",
    is_flag=True,
    help="Use the built-in set-up: no configuration file, a PostgreSQL that comes with the registry, everything in "
    "one directory, and http://127.0.0.1:5000. REGISTRY_* variables change its settings.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="The directory of --local.  [default: ./data]",
)
@config_argument
def command(*, is_local: bool, data: Path | None, config: Path | None) -> None:
    """Serve the registry until it is told to stop.

    CONFIG is a configuration file as Distribution's and the GitLab registry's; without it REGISTRY_CONFIGURATION_PATH
    names it. Every key can be set by an environment variable instead: http.addr is REGISTRY_HTTP_ADDR.

    One line on standard output tells when it is ready. SIGTERM and Ctrl-C let requests under way finish (for
    http.draintimeout, or 10 seconds) and then stop everything that was started; a second signal does so at once.
    """
    if is_local and config is not None:
        raise click.UsageError("--local is a configuration of its own: leave CONFIG out, or --local")
    if data is not None and not is_local:
        raise click.UsageError(
            "--data goes with --local; otherwise storage.filesystem.rootdirectory says where"
        )
    # Until the supervisor takes over: what was started by then is stopped on the way out.
    signal.signal(signal.SIGTERM, _terminated)
    with told(ServerError, EmbeddedError):
        # Each loads what the other does not need, and that takes longer than starting.
        if is_local:
            from app.cli import local  # noqa: PLC0415

            local.serve(data or Path("data"))
        else:
            from app.cli import configured  # noqa: PLC0415

            configured.serve(config)


def _terminated(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
