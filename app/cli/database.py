"""What `registry database` does: looking after the metadata database."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from app.cli.errors import BadConfiguration, Failure
from app.cli.settings import config_argument, loaded
from app.domain.errors import RegistryError
from app.store import migrate
from app.store.migrate import PARTITIONS_DEFAULT
from app.wiring.parts import target_of

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from app.store.engine import Target
    from app.store.migrate import Revision

T = TypeVar("T")
# PostgreSQL plans over every partition of a table, and each holds files open.
PARTITIONS_MAX: Final = 1024


@click.group(name="database", help="Look after the metadata database.")
def command() -> None:
    """Nothing by itself."""


@command.group(name="migrate")
def migrate_group() -> None:
    """Bring the database's schema to what this release needs, or back.

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it.
    """


@migrate_group.command(name="up")
@click.option("--dry-run", "-d", is_flag=True, help="Only print what would be applied.")
@click.option(
    "--partitions",
    type=click.IntRange(1, PARTITIONS_MAX),
    default=PARTITIONS_DEFAULT,
    show_default=True,
    help="Into how many partitions to split each large table. Counts only when the tables are made: the "
    "first time.",
)
@config_argument
def up(*, dry_run: bool, partitions: int, config: Path | None) -> None:
    """Apply every pending migration, all or none. Several processes may do so at once; one waits for the other."""
    target = _target(config)
    pending = [revision for revision in _revisions(target) if not revision.applied]
    if not pending:
        click.echo("nothing to do: the database is up to date")
        return
    for revision in pending:
        click.echo(f"{revision.id}  {revision.title}")
    if dry_run:
        return
    began = time.monotonic()
    _run(migrate.upgrade(target, partitions=partitions))
    click.echo(f"OK: applied {len(pending)} migration(s) in {time.monotonic() - began:.1f}s")


@migrate_group.command(name="down")
@click.option("--force", "-f", is_flag=True, help="Do not ask.")
@config_argument
def down(*, force: bool, config: Path | None) -> None:
    """Undo the newest migration, with all data that it made room for. Stop every registry first."""
    target = _target(config)
    applied = [revision for revision in _revisions(target) if revision.applied]
    if not applied:
        click.echo("nothing to do: no migration was applied")
        return
    newest = applied[-1]
    if not force:
        click.confirm(f"Undo {newest.id} ({newest.title}) and lose its data?", abort=True, err=True)
    began = time.monotonic()
    _run(migrate.downgrade(target))
    click.echo(f"OK: undid {newest.id} in {time.monotonic() - began:.1f}s")


@migrate_group.command(name="status")
@click.option("--up-to-date", "-u", is_flag=True, help="Print only true or false.")
@config_argument
def status(*, up_to_date: bool, config: Path | None) -> None:
    """List every migration of this release and whether it was applied."""
    revisions = _revisions(_target(config))
    if up_to_date:
        click.echo("true" if all(revision.applied for revision in revisions) else "false")
        return
    width = max(len(revision.id) for revision in revisions)
    for revision in revisions:
        click.echo(
            f"{'applied' if revision.applied else 'pending'}  {revision.id:<{width}}  {revision.title}"
        )


@migrate_group.command(name="version")
@config_argument
def version(*, config: Path | None) -> None:
    """Print the newest migration that the database has, or none."""
    click.echo(_run(migrate.version(_target(config))) or "none")


def _target(config: Path | None) -> Target:
    result = loaded(config)
    if not result.settings.database.host:
        raise BadConfiguration(["database.host: required, because it says which database to migrate"])
    return target_of(result.settings)


def _revisions(target: Target) -> list[Revision]:
    """Every migration of this release. Raises Failure if the database is beyond them."""
    revisions, applied = _run(migrate.status(target)), _run(migrate.version(target))
    if applied is not None and applied not in {revision.id for revision in revisions}:
        raise Failure(f"the database is at {applied}, which a newer release brought it to; use that release")
    return revisions


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except RegistryError as error:
        raise Failure(str(error)) from error
    except Exception as error:
        # The driver's own words; SQLAlchemy's wrapping adds the statement, which is pages long.
        cause = getattr(error, "orig", None) or error
        raise Failure(f"the database refused: {str(cause).strip().splitlines()[0]}") from error
