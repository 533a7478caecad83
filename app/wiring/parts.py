"""What more than one kind of process is built of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.store.engine import CONNECT_SECONDS, Database, Target

if TYPE_CHECKING:
    from app.config import Settings
    from app.store.engine import Timings


def target_of(settings: Settings) -> Target:
    """Where the settings say the database is."""
    database = settings.database
    return Target(
        host=database.host,
        port=database.port,
        user=database.user,
        password=database.password.get_secret_value(),
        database=database.dbname,
        sslmode=database.sslmode,
        sslcert=database.sslcert,
        sslkey=database.sslkey,
        sslrootcert=database.sslrootcert,
        connect_timeout_seconds=database.connecttimeout.seconds or CONNECT_SECONDS,
    )


async def open_database(settings: Settings, timings: Timings | None) -> Database:
    """The database as requests use it. Raises Unavailable if it cannot be reached."""
    pool = settings.database.pool
    return await Database.open(
        target_of(settings),
        connections_max=pool.maxopen,
        connections_idle=pool.maxidle,
        idle_seconds=pool.maxidletime.seconds,
        prepared_statements=settings.database.preparedstatements,
        queue_seconds=pool.queuetimeout.seconds,
        timings=timings,
    )
