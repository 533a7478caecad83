"""Migrations: from nothing to the newest schema and back, on any number of partitions, by several processes at once."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest
from alembic.script import ScriptDirectory

import db.migrations
from app.domain.errors import Unavailable
from app.store import migrate
from tests.migrations.fingerprint import fingerprint
from tests.store.scenes import Actor
from tests.support.invariants import assert_invariants
from tests.support.postgres import connected, create
from tests.support.registry import image

if TYPE_CHECKING:
    from app.store.engine import Target

# Every release must use the same, or two of them would migrate at once.
ADVISORY_LOCK: Final = 0x72656769737472
PARTITIONED: Final = ("blobs", "layers", "manifest_references", "manifests", "repository_blobs", "tags")
PROCESS: Final = """
import asyncio, json, sys
from app.store import migrate
from app.store.engine import Target
asyncio.run(migrate.upgrade(Target(**json.loads(sys.argv[1])), partitions=2))
"""


async def value(target: Target, sql: str, *arguments: Any) -> Any:
    async with connected(target) as connection:
        return await connection.fetchval(sql, *arguments)


async def partitions(target: Target) -> dict[str, int]:
    async with connected(target) as connection:
        rows = await connection.fetch(
            "SELECT inhparent::regclass::text, count(*) FROM pg_inherits"
            " JOIN pg_class ON pg_class.oid = inhparent WHERE relkind = 'p' GROUP BY 1"
        )
        return {row[0]: row[1] for row in rows}


def test_head_when_scripts_are_listed_then_it_is_the_only_newest_one() -> None:
    scripts = ScriptDirectory(str(Path(db.migrations.__file__).parent))
    assert scripts.get_heads() == [migrate.HEAD]
    newest_first = [script.revision for script in scripts.walk_revisions()]
    assert newest_first == sorted(newest_first, reverse=True)  # a later release is known by its name
    for script in scripts.walk_revisions():
        assert re.fullmatch(r"\d{8}_[a-z0-9_]+", script.revision)
        assert script.doc.splitlines()[0]


@pytest.mark.parametrize("count", [1, 4, 16])
def test_upgrade_when_the_database_is_empty_then_every_table_has_that_many_partitions_and_works(
    empty_database: Target, count: int
) -> None:
    async def scenario() -> None:
        await migrate.upgrade(empty_database, partitions=count)
        assert await partitions(empty_database) == dict.fromkeys(PARTITIONED, count)
        async with connected(empty_database) as connection:
            actor, pushed = Actor(connection), image(b"a", b"b")
            await actor.push("a", pushed, "t")
            assert list(await actor.tags()) == ["t"]
        await assert_invariants(empty_database)

    asyncio.run(scenario())


def test_upgrade_when_no_number_is_given_then_there_are_sixteen() -> None:
    assert migrate.PARTITIONS_DEFAULT == 16
    assert (migrate.upgrade.__kwdefaults__ or {})["partitions"] == 16


@pytest.mark.parametrize("count", [0, -1, 257])
def test_upgrade_when_the_number_of_partitions_is_out_of_bounds_then_nothing_is_left_behind(
    empty_database: Target, count: int
) -> None:
    async def scenario() -> None:
        before = await fingerprint(empty_database)
        with pytest.raises(asyncpg.RaiseError, match="between 1 and 256"):
            await migrate.upgrade(empty_database, partitions=count)
        assert await fingerprint(empty_database) == before
        assert await migrate.version(empty_database) is None

    asyncio.run(scenario())


def test_upgrade_when_run_twice_then_the_second_changes_nothing(empty_database: Target) -> None:
    async def scenario() -> None:
        await migrate.upgrade(empty_database, partitions=4)
        first = await fingerprint(empty_database)
        # The number was chosen at the first migration; what a later one is told does not matter.
        await migrate.upgrade(empty_database, partitions=7)
        assert await fingerprint(empty_database) == first
        assert await migrate.is_current(empty_database)

    asyncio.run(scenario())


def test_upgrade_when_two_processes_run_it_at_once_then_one_waits_and_both_succeed(
    empty_database: Target,
) -> None:
    async def process() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROCESS, json.dumps(asdict(empty_database))),
            stderr=asyncio.subprocess.PIPE,
        )

    async def scenario() -> None:
        async with asyncio.timeout(60), connected(empty_database) as connection:
            await connection.execute(f"SELECT pg_advisory_lock({ADVISORY_LOCK})")
            migrating = [await process() for _ in range(2)]
            waiting = (
                "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
                " WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted"
            )
            while await connection.fetchval(waiting) < 2:
                assert [p.returncode for p in migrating] == [None, None]
                await asyncio.sleep(0.05)
            assert await migrate.version(empty_database) is None
            await connection.execute(f"SELECT pg_advisory_unlock({ADVISORY_LOCK})")
            for one in migrating:
                _, stderr = await one.communicate()
                assert one.returncode == 0, stderr.decode()
        assert await migrate.is_current(empty_database)
        assert await partitions(empty_database) == dict.fromkeys(PARTITIONED, 2)

    asyncio.run(scenario())


def test_downgrade_when_everything_is_undone_then_nothing_is_left_and_up_again_is_the_same(
    empty_database: Target,
) -> None:
    async def scenario() -> None:
        empty = await fingerprint(empty_database)
        await migrate.upgrade(empty_database, partitions=4)
        migrated = await fingerprint(empty_database)
        async with connected(empty_database) as connection:
            await Actor(connection).push("a", image(b"a"), "t")
        await migrate.downgrade(empty_database)
        assert [line for line in await fingerprint(empty_database) if "alembic_version" not in line] == empty
        assert await migrate.version(empty_database) is None
        await migrate.upgrade(empty_database, partitions=4)
        assert await fingerprint(empty_database) == migrated

    asyncio.run(scenario())


def test_fingerprint_when_the_migrated_template_is_copied_then_it_is_the_same(
    postgres_server: Target, database: Target, empty_database: Target
) -> None:
    """The tests' own database is what a migration makes."""

    async def scenario() -> None:
        await migrate.upgrade(empty_database, partitions=4)
        assert await fingerprint(database) == await fingerprint(empty_database)
        async with connected(empty_database) as connection:
            await connection.execute("DROP INDEX tags_by_manifest")
        assert await fingerprint(database) != await fingerprint(empty_database)

    asyncio.run(scenario())


def test_status_when_nothing_or_everything_is_applied_then_it_says_so(empty_database: Target) -> None:
    async def scenario() -> None:
        assert await migrate.version(empty_database) is None
        assert not await migrate.is_current(empty_database)
        before = await migrate.status(empty_database)
        assert before
        assert not any(revision.applied for revision in before)
        assert before[-1].id == migrate.HEAD
        await migrate.upgrade(empty_database, partitions=1)
        assert await migrate.version(empty_database) == migrate.HEAD
        assert await migrate.is_current(empty_database)
        assert await migrate.status(empty_database) == [replace(r, applied=True) for r in before]
        await migrate.downgrade(empty_database)
        assert not await migrate.is_current(empty_database)
        assert not (await migrate.status(empty_database))[-1].applied

    asyncio.run(scenario())


def test_status_when_the_database_has_a_later_releases_revision_then_all_of_ours_are_applied(
    empty_database: Target,
) -> None:
    async def scenario() -> None:
        await migrate.upgrade(empty_database, partitions=1)
        await value(empty_database, "UPDATE alembic_version SET version_num = '29990101_later'")
        assert await migrate.version(empty_database) == "29990101_later"
        assert await migrate.is_current(empty_database)
        assert all(revision.applied for revision in await migrate.status(empty_database))

    asyncio.run(scenario())


def test_version_when_the_server_cannot_be_reached_then_unavailable_is_raised(
    postgres_server: Target,
) -> None:
    async def scenario() -> None:
        for wrong in (replace(postgres_server, port=1), replace(postgres_server, database="nowhere")):
            with pytest.raises(Unavailable):
                await migrate.version(wrong)

    asyncio.run(scenario())


def test_upgrade_when_the_role_may_not_create_tables_then_it_fails_and_nothing_is_left_behind(
    empty_database: Target,
) -> None:
    """The role of a registry that serves needs no more than rows; who migrates needs CREATE."""

    async def scenario() -> None:
        await value(empty_database, "DROP ROLE IF EXISTS tests_reader")
        await value(empty_database, "CREATE ROLE tests_reader LOGIN")
        try:
            with pytest.raises(Exception, match="permission denied"):
                await migrate.upgrade(replace(empty_database, user="tests_reader"), partitions=1)
            assert await migrate.version(empty_database) is None
        finally:
            await value(empty_database, "DROP ROLE tests_reader")

    asyncio.run(scenario())


def test_create_when_a_copy_is_made_of_a_migrated_database_then_it_is_current(
    postgres_server: Target, empty_database: Target
) -> None:
    async def scenario() -> None:
        await migrate.upgrade(empty_database, partitions=1)
        copy = await create(postgres_server, "a_migrated_copy", template=empty_database.database)
        try:
            assert await migrate.is_current(copy)
        finally:
            await value(postgres_server, 'DROP DATABASE "a_migrated_copy" WITH (FORCE)')

    asyncio.run(scenario())
