"""The schema's version: what the database has, what this release needs, and the way between (alembic)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from app.domain.errors import Unavailable

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy.engine import Connection as SyncConnection

    from app.store.engine import Target

# The newest migration of this release; a test compares it with db/migrations/versions. Known here so that `serve` can
# tell in one query whether it may start, without loading alembic.
HEAD: Final = "20261121_baseline"
PARTITIONS_DEFAULT: Final = 16
_MIGRATIONS: Final = Path(__file__).parents[2] / "db" / "migrations"


@dataclass(frozen=True)
class Revision:
    """One migration and whether the database has it."""

    id: str
    title: str
    applied: bool


async def version(target: Target) -> str | None:
    """The database's revision, None where no migration ever ran. Raises Unavailable."""
    try:
        connection = await asyncpg.connect(**target.arguments())
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Unavailable(f"cannot connect to the metadata database: {error}") from error
    try:
        if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
            return None
        return await connection.fetchval("SELECT version_num FROM alembic_version")
    finally:
        await connection.close()


async def is_current(target: Target) -> bool:
    """Whether the database has all that this release needs. It may have more: migrations keep the release before."""
    applied = await version(target)
    # Revisions begin with their date, so that their order is that of their names.
    return applied is not None and applied >= HEAD


async def upgrade(target: Target, *, partitions: int = PARTITIONS_DEFAULT) -> None:
    """Apply every pending migration in one transaction. Two processes may call this at once; one waits."""
    await _run(target, "upgrade", "head", partitions=partitions)


async def downgrade(target: Target) -> None:
    """Undo the newest migration. The baseline's undoing removes every table."""
    await _run(target, "downgrade", "-1")


async def status(target: Target) -> list[Revision]:
    """Every migration of this release, oldest first."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - alembic is slow to load and serve never needs it

    applied = await version(target)
    scripts = list(ScriptDirectory.from_config(_config()).walk_revisions())[::-1]
    return [
        Revision(
            script.revision, script.doc.splitlines()[0], applied is not None and script.revision <= applied
        )
        for script in scripts
    ]


def _config(**attributes: Any) -> Config:
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes.update(attributes)
    return config


async def _run(target: Target, verb: str, revision: str, **attributes: Any) -> None:
    from alembic import command  # noqa: PLC0415
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415
    from sqlalchemy.pool import NullPool  # noqa: PLC0415

    def work(connection: SyncConnection) -> None:
        getattr(command, verb)(_config(connection=connection, **attributes), revision)

    async def connect(*_: Any, **__: Any) -> Any:
        return await asyncpg.connect(**target.arguments())

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(work)
            await connection.commit()
    finally:
        await engine.dispose()
