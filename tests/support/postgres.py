"""A pytest plugin: one PostgreSQL for the whole run, one database per worker, empty before each test.

The server is started by the process that ends last: the controller of a parallel run, which hands its
address to the workers, or else the run itself, once a test asks for it. The schema is built once, in a
template, under a lock that the first worker takes; a worker's database is a copy of it. A test is followed by
a DELETE of every row (never TRUNCATE, which takes a second with many partitions), and the rows that the
migrations had put there are put back.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import asyncpg
import pytest

from app.runtime.embedded import Address, EmbeddedPostgres
from app.store import migrate
from app.store.engine import Target

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

PARTITIONS: Final = 4
_TEMPLATE: Final = "registry_template"
_LOCK: Final = 4_207_849
_HANDED: Final = "postgres"

_TABLES: Final = """
    SELECT n.nspname AS schema, c.relname AS name,
      ARRAY (SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
        AND attgenerated = '' ORDER BY attnum) AS columns
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname <> 'alembic_version'
      AND n.nspname NOT LIKE 'pg|_%' ESCAPE '|' AND n.nspname <> 'information_schema'
"""
# Replica: neither the triggers, which would fill the queues again, nor the foreign keys, as everything goes.
_CLEAR: Final = f"""
    DO $$ DECLARE t record; BEGIN
      SET LOCAL session_replication_role = replica;
      SET LOCAL lock_timeout = '10s';
      FOR t IN {_TABLES} LOOP EXECUTE format('DELETE FROM %I.%I', t.schema, t.name); END LOOP;
    END $$
"""


class Rows(NamedTuple):
    """The rows of one table in PostgreSQL's own copy format."""

    schema: str
    name: str
    columns: tuple[str, ...]
    content: bytes


class SharedServer:
    """The run's server, started when its address is first asked for."""

    def __init__(self) -> None:
        self._directory: Path | None = None
        self._server: EmbeddedPostgres | None = None
        self._address: Address | None = None

    def address(self) -> Address:
        if self._address is None:
            self._directory = Path(tempfile.mkdtemp(prefix="registry-tests-"))
            self._server = EmbeddedPostgres(self._directory / "postgres", max_connections=300, durable=False)
            self._address = self._server.start()
        return self._address

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)


_SERVER: Final = pytest.StashKey[SharedServer]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SERVER] = SharedServer()


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_SERVER].stop()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give a worker of a parallel run the server's address before it starts."""
    node.workerinput[_HANDED] = asdict(node.config.stash[_SERVER].address())


async def make_template(target: Target) -> None:
    """Bring the empty database at `target` to the newest schema."""
    await migrate.upgrade(target, partitions=PARTITIONS)


async def ensure_template(server: Target, make: Callable[[Target], Awaitable[None]]) -> None:
    """Make the template unless another worker has; waits for one that is at it."""
    async with connected(server) as connection:
        await connection.execute(f"SELECT pg_advisory_lock({_LOCK})")
        if await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", _TEMPLATE):
            return
        unfinished = f"{_TEMPLATE}_unfinished"
        await connection.execute(f'DROP DATABASE IF EXISTS "{unfinished}"')
        await connection.execute(f'CREATE DATABASE "{unfinished}"')
        await make(replace(server, database=unfinished))
        await connection.execute(f'ALTER DATABASE "{unfinished}" RENAME TO "{_TEMPLATE}"')


async def create(server: Target, name: str, *, template: str = "template1") -> Target:
    """A new database: an empty one, or a copy of `template`."""
    async with connected(server) as connection:
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    return replace(server, database=name)


async def drop(server: Target, name: str) -> None:
    async with connected(server) as connection:
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


async def rows(target: Target) -> list[Rows]:
    """What is in every table that is not empty. Generated columns are left to the database."""
    found: list[Rows] = []
    async with connected(target) as connection:
        for schema, name, columns in await connection.fetch(_TABLES):
            content = BytesIO()
            listed = ", ".join(f'"{column}"' for column in columns)
            await connection.copy_from_query(f'SELECT {listed} FROM "{schema}"."{name}"', output=content)
            if content.getvalue():
                found.append(Rows(schema, name, tuple(columns), content.getvalue()))
    return found


async def restore(target: Target, kept: list[Rows]) -> None:
    """Leave `kept` in the database and nothing else. Sequences go on where they are."""
    async with connected(target) as connection:
        await connection.execute(_CLEAR)
        await connection.execute("SET session_replication_role = replica")
        for schema, name, columns, content in kept:
            await connection.copy_to_table(name, schema_name=schema, columns=columns, source=BytesIO(content))


@asynccontextmanager
async def connected(target: Target) -> AsyncGenerator[Any]:
    connection: Any = await asyncpg.connect(**target.arguments())
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Target:
    """The run's server, as a superuser of its empty default database."""
    handed = getattr(request.config, "workerinput", {}).get(_HANDED)
    address = Address(**handed) if handed else request.config.stash[_SERVER].address()
    return Target(**asdict(address))


@pytest.fixture(scope="session")
def migrated_database(postgres_server: Target, request: pytest.FixtureRequest) -> tuple[Target, list[Rows]]:
    """This worker's copy of the template, and the rows that the migrations put there."""
    worker = getattr(request.config, "workerinput", {}).get("workerid", "alone")

    async def make() -> tuple[Target, list[Rows]]:
        await ensure_template(postgres_server, make_template)
        target = await create(postgres_server, f"registry_{worker}", template=_TEMPLATE)
        return target, await rows(target)

    return asyncio.run(make())


@pytest.fixture
def database(migrated_database: tuple[Target, list[Rows]]) -> Iterator[Target]:
    """This worker's database: migrated, and without a row but those of the migrations."""
    target, kept = migrated_database
    yield target
    asyncio.run(restore(target, kept))


@pytest.fixture
def empty_database(postgres_server: Target, request: pytest.FixtureRequest) -> Iterator[Target]:
    """A database of the test's own in which no migration ever ran."""
    worker = getattr(request.config, "workerinput", {}).get("workerid", "alone")
    name = f"empty_{worker}"
    yield asyncio.run(create(postgres_server, name))
    asyncio.run(drop(postgres_server, name))
