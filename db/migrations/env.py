"""Runs migrations on the connection that `app.store.migrate` hands over, one migrating process at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic import context

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

# Any constant will do, as long as every release uses the same.
_ADVISORY_LOCK = 0x72656769737472


def run() -> None:
    connection: Connection = context.config.attributes["connection"]
    context.configure(connection=connection, transaction_per_migration=False)
    with context.begin_transaction():
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
        # A migration that waits behind a long query would make every request wait behind the migration.
        connection.exec_driver_sql("SET LOCAL lock_timeout = '15s'")
        context.run_migrations()


run()
