"""The `database` that tests share: what one test leaves in it, the next does not find."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.postgres import connected, create, drop, restore, rows

if TYPE_CHECKING:
    from app.store.engine import Target

SCHEMA = """
    CREATE TABLE parents (id bigint PRIMARY KEY, name text) PARTITION BY HASH (id);
    CREATE TABLE parents_0 PARTITION OF parents FOR VALUES WITH (MODULUS 1, REMAINDER 0);
    CREATE TABLE children (parent_id bigint REFERENCES parents, raw bytea);
    CREATE TABLE queue (id bigint GENERATED ALWAYS AS IDENTITY, parent_id bigint);
    CREATE FUNCTION suspect() RETURNS trigger LANGUAGE plpgsql AS
      'BEGIN INSERT INTO queue (parent_id) VALUES (OLD.parent_id); RETURN NULL; END';
    CREATE TRIGGER children_delete AFTER DELETE ON children FOR EACH ROW EXECUTE FUNCTION suspect();
    CREATE TABLE settings (event text PRIMARY KEY, wait interval,
      size int GENERATED ALWAYS AS (length(event)) STORED);
    INSERT INTO settings VALUES ('upload', '1 day'), ('tab\tand\\backslash', NULL);
"""
LEAVINGS = r"""
    INSERT INTO parents VALUES (1, 'a'); INSERT INTO children VALUES (1, '\x00ff'), (1, '');
    UPDATE settings SET wait = '1 second'; DELETE FROM settings WHERE event <> 'upload';
"""


def test_restore_after_a_test_that_wrote_leaves_the_rows_of_the_migrations_alone(
    empty_database: Target,
) -> None:
    async def run() -> None:
        async with connected(empty_database) as connection:
            await connection.execute(SCHEMA)
        before = await rows(empty_database)
        assert {table.name for table in before} == {"settings"}
        async with connected(empty_database) as connection:
            await connection.execute(LEAVINGS)
        written = {table.name for table in await rows(empty_database)}
        assert written == {"parents", "children", "settings"}
        await restore(empty_database, before)
        assert await rows(empty_database) == before

    asyncio.run(run())


@pytest.mark.parametrize("attempt", [1, 2])
def test_database_is_migrated_and_free_of_what_other_tests_wrote(database: Target, attempt: int) -> None:
    async def run() -> None:
        async with connected(database) as connection:
            assert await connection.fetchval("SELECT count(*) FROM repositories") == 0
            assert await connection.fetchval("SELECT count(*) FROM alembic_version") == 1
            await connection.execute("INSERT INTO repositories (path) VALUES ('a/b')")

    asyncio.run(run())


def test_create_makes_a_copy_that_drop_removes_though_somebody_is_connected(postgres_server: Target) -> None:
    async def run() -> None:
        copy = await create(postgres_server, "a_copy")
        async with connected(copy) as connection:
            assert await connection.fetchval("SELECT current_database()") == "a_copy"
            await drop(postgres_server, "a_copy")

    asyncio.run(run())
