"""The schema: every table of the design, partitioned as designed, and SQLAlchemy's picture of it true to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import Text

from app.store import tables
from tests.support.postgres import PARTITIONS, connected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy import Column

    from app.store.engine import Target

# Table → what it is partitioned by.
DESIGNED: Final = {
    "repositories": None,
    "blobs": "HASH (digest)",
    "repository_blobs": "HASH (repository_id)",
    "manifests": "HASH (repository_id)",
    "layers": "HASH (repository_id)",
    "manifest_references": "HASH (repository_id)",
    "tags": "HASH (repository_id)",
    "blob_uploads": None,
    "accounts": None,
    "account_secrets": None,
    "grants": None,
    "refresh_tokens": None,
    "signing_keys": None,
    "login_failures": None,
    "gc_blob_review_queue": None,
    "gc_control": None,
    "gc_manifest_review_queue": None,
    "gc_receipts": None,
    "gc_review_after_defaults": None,
    "gc_storage_deletions": None,
}
COLUMNS: Final = """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull,
        CASE WHEN o.collname = 'default' THEN NULL ELSE o.collname END AS collation,
        coalesce(a.attnum = ANY (i.indkey), false) AS key
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_collation o ON o.oid = a.attcollation
    LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    ORDER BY c.relname, a.attnum
"""


def query(target: Target, work: Callable[[Any], Awaitable[None]]) -> None:
    async def run() -> None:
        async with connected(target) as connection:
            await work(connection)

    asyncio.run(run())


def described(column: Column[Any]) -> tuple[str, str, bool, str | None, bool]:
    collation = column.type.collation if isinstance(column.type, Text) else None
    dialect: Any = postgresql.dialect()
    sql = column.type.compile(dialect=dialect).removesuffix(f' COLLATE "{collation}"')
    return column.name, sql.lower(), not column.nullable, collation, column.primary_key


def test_tables_when_compared_with_the_database_then_columns_types_nullability_and_keys_are_equal(
    database: Target,
) -> None:
    async def work(connection: Any) -> None:
        found: dict[str, list[Any]] = {}
        for table, *column in await connection.fetch(COLUMNS):
            found.setdefault(table, []).append(tuple(column))
        pictured = {
            t.name: [described(column) for column in t.columns] for t in tables.METADATA.sorted_tables
        }
        assert pictured == {name: found[name] for name in pictured}

    query(database, work)


def test_schema_when_migrated_then_it_has_exactly_the_tables_of_the_design_partitioned_as_designed(
    database: Target,
) -> None:
    async def work(connection: Any) -> None:
        rows = await connection.fetch(
            "SELECT relname, pg_get_partkeydef(oid), (SELECT count(*) FROM pg_inherits WHERE inhparent = c.oid)"
            " FROM pg_class c WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')"
            " AND NOT relispartition AND relname <> 'alembic_version'"
        )
        assert {row[0]: row[1] for row in rows} == DESIGNED
        for name, key, partitions in rows:
            assert partitions == (PARTITIONS if key else 0), name

    query(database, work)


def test_schema_when_a_foreign_key_is_followed_backwards_then_an_index_helps(database: Target) -> None:
    """Without one, to delete a row reads the whole table that refers to it."""

    async def work(connection: Any) -> None:
        rows = await connection.fetch(
            "SELECT o.conrelid::regclass::text, o.conname FROM pg_constraint o"
            " WHERE o.contype = 'f' AND o.conparentid = 0 AND o.conrelid::regclass::text NOT LIKE 'gc|_%' ESCAPE '|'"
            " AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = o.conrelid"
            "   AND (i.indkey::int2[])[0 : cardinality(o.conkey) - 1] @> o.conkey)"
        )
        assert [tuple(row) for row in rows] == []

    query(database, work)


def test_schema_when_a_row_breaks_a_rule_then_the_database_refuses_it(database: Target) -> None:
    refused = (
        "INSERT INTO repositories (path) VALUES ('')",
        "INSERT INTO repositories (path) VALUES (repeat('a', 256))",
        "INSERT INTO blobs (digest, size, storage_key) VALUES ('\\x01', 0, 'k')",
        "INSERT INTO blobs (digest, size, storage_key) VALUES (decode(repeat('01', 33), 'hex'), -1, 'k')",
        "INSERT INTO gc_storage_deletions (storage_key, reason, not_before) VALUES ('k', 'a whim', now())",
        "UPDATE gc_review_after_defaults SET value = interval '-1 second'",
    )

    async def work(connection: Any) -> None:
        for statement in refused:
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await connection.execute(statement)
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await connection.execute(
                "INSERT INTO gc_blob_review_queue (digest, review_after, event) VALUES ('', now(), 'a whim')"
            )

    query(database, work)


def test_repository_when_inserted_then_its_name_is_the_last_part_of_its_path(database: Target) -> None:
    async def work(connection: Any) -> None:
        for path, name in (("a", "a"), ("a/b/c", "c"), ("a.b/c-d", "c-d")):
            sql = "INSERT INTO repositories (path) VALUES ($1) RETURNING name"
            assert await connection.fetchval(sql, path) == name

    query(database, work)


@pytest.mark.parametrize("count", [0, -1, 257, None])
def test_create_partitions_when_the_number_is_out_of_bounds_then_it_refuses(
    database: Target, count: int | None
) -> None:
    async def work(connection: Any) -> None:
        async with connection.transaction():
            await connection.execute("CREATE TABLE many (id bigint) PARTITION BY HASH (id)")
            with pytest.raises((asyncpg.RaiseError, asyncpg.NullValueNotAllowedError)):
                async with connection.transaction():
                    await connection.execute("SELECT create_partitions('many', $1)", count)
            await connection.execute("DROP TABLE many")

    query(database, work)


@pytest.mark.parametrize("count", [1, 3, 256])
def test_create_partitions_when_the_number_is_in_bounds_then_every_row_has_a_place(
    database: Target, count: int
) -> None:
    async def work(connection: Any) -> None:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("CREATE TABLE many (id bigint) PARTITION BY HASH (id)")
        await connection.execute("SELECT create_partitions('many', $1)", count)
        names = [f"many_p{n}" for n in range(count)]
        found = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'many'::regclass"
        assert sorted(row[0] for row in await connection.fetch(found)) == sorted(names)
        await connection.execute("INSERT INTO many SELECT generate_series(1, 5000)")
        assert await connection.fetchval("SELECT count(DISTINCT tableoid) FROM many") == count
        await transaction.rollback()

    query(database, work)
