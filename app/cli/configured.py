"""`registry serve CONFIG`: an operator's own database, as a configuration file says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from app.cli.errors import Failure, told
from app.cli.ready import tell_access, tell_ready, tell_warnings
from app.cli.settings import command_line, loaded, refuse_unserved
from app.domain.errors import RegistryError
from app.server import choices, supervisor
from app.store import migrate
from app.wiring.checks import refuse_empty_storage
from app.wiring.parts import target_of

if TYPE_CHECKING:
    from pathlib import Path

    from app.config import Settings


def serve(config: Path | None) -> None:
    """Serve until told to stop. Raises ServerError, Failure or BadConfiguration."""
    result = loaded(config)
    settings = result.settings
    refuse_unserved(settings)
    choices.configure_logs(settings)
    tell_warnings(result.warnings)
    prepare_access(settings)
    doors = choices.open_doors(settings)
    try:
        refuse_unready(settings, config)
        tell_access(settings.auth)
        supervisor.run(
            supervisor.Site(
                settings, doors, ready=lambda: tell_ready(doors.url), collecting=choices.collecting(settings)
            )
        )
    finally:
        doors.close()


def prepare_access(settings: Settings) -> None:
    """Make and read the files that access control needs. Raises Failure."""
    if settings.auth.provider == "none":
        return
    from app.wiring import access  # noqa: PLC0415  (cryptography, which is not needed without)

    with told(access.AccessError):
        access.prepare(settings)


def refuse_unready(settings: Settings, config: Path | None) -> None:
    """Raise Failure if the database lacks a migration, or the storage is not the one that it knows.

    A database that a newer release has migrated will do.
    """

    async def check() -> None:
        if not await migrate.is_current(target_of(settings)):
            remedy = command_line("database migrate up", config)
            raise Failure(f"the metadata database lacks migrations; apply them first: {remedy}")
        await refuse_empty_storage(settings)

    try:
        asyncio.run(check())
    except RegistryError as error:
        raise Failure(str(error)) from error
