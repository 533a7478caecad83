"""To pick the next batch of a queue costs the same, however long it is and whatever an old transaction still sees.

The statements are cut out of the database's own functions, so that what is measured is what runs. An entry of an index
stays while any transaction might still want its row: whoever begins at the head of a queue of which the first hundred
thousand are dead reads them all, which is what `p_from` and `reached` are for.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Any, Final

import pytest

from app.store import collecting
from app.store.engine import Connection
from tests.support.effort import EFFORT
from tests.support.postgres import connected, create, drop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.store.engine import Target

ROWS: Final = 300_000 if EFFORT == 1 else 10_000_000
DEAD: Final = 100_000
LIMIT: Final = 100
# Of a batch: the index's way down, its leaves, and a page for each row at worst.
BUFFERS_MAX: Final = LIMIT * 3 + 20

_FILL: Final = {
    "gc_blob_review_queue": "(digest, review_after, event) SELECT '\\x01'::bytea || sha256(n::text::bytea), {due},"
    " 'blob_upload'",
    "gc_manifest_review_queue": "(repository_id, manifest_id, review_after, event) SELECT n % 1000, n, {due},"
    " 'tag_delete'",
    "gc_storage_deletions": "(storage_key, reason, not_before) SELECT 'k/' || n, 'blob_unused', {due}",
    "blob_uploads": "(id, repository_id, storage_key, updated_at) SELECT gen_random_uuid(), 1, 'u/' || n, {due}",
    "gc_receipts": "(kind, event, suspected_at, deleted_at) SELECT 'object', 'orphan', now(), {due}",
}
# Queue → where the statement that picks from it begins and ends, in which function; and the column it is ordered by.
PICKS: Final = {
    "gc_blob_review_queue": ("gc_collect_blobs", r"SELECT q\.id, q\.digest.*?SKIP LOCKED", "review_after"),
    "gc_manifest_review_queue": (
        "gc_collect_manifests",
        r"SELECT q\.id, q\.repository_id.*?SKIP LOCKED",
        "review_after",
    ),
    "blob_uploads": ("gc_expire_uploads", r"SELECT id FROM blob_uploads.*?SKIP LOCKED", "updated_at"),
    "gc_storage_deletions": (
        "gc_take_tombstones",
        r"SELECT t\.storage_key, t\.not_before FROM.*?SKIP LOCKED",
        "not_before",
    ),
}


async def fill(connection: Any, table: str, columns: str) -> None:
    """Rows first, indexes second, and no log of it: that takes a fifth of the time."""
    count = ROWS if table.endswith("review_queue") else ROWS // 10
    indexes = await connection.fetch(
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index"
        " WHERE indrelid = $1::text::regclass AND NOT indisunique",
        table,
    )
    await connection.execute(f"ALTER TABLE {table} SET UNLOGGED; SET session_replication_role = replica")
    for name, _ in indexes:
        await connection.execute(f"DROP INDEX {name}")
    await connection.execute(f"INSERT INTO {table} {columns} FROM generate_series(1, {count}) AS n")
    for _, definition in indexes:
        await connection.execute(definition)


@pytest.fixture(scope="module")
def large(
    postgres_server: Target, migrated_database: tuple[Target, Any], request: pytest.FixtureRequest
) -> Iterator[Target]:
    """Queues of so many rows, all of them due, one a microsecond."""
    worker = getattr(request.config, "workerinput", {}).get("workerid", "alone")
    due = "now() - interval '1 day' + n * interval '1 microsecond'"

    async def make() -> Target:
        target = await create(postgres_server, f"large_{worker}", template="registry_template")
        async with connected(target) as connection:
            for table, columns in _FILL.items():
                await fill(connection, table, columns.format(due=due))
            await connection.execute("VACUUM ANALYZE")
        return target

    target = asyncio.run(make())
    yield target
    asyncio.run(drop(postgres_server, target.database))


async def explained(connection: Any, queue: str, begin: object = None) -> dict[str, Any]:
    """The plan of the queue's picking statement, as a function has it: generic, with its settings, carried out."""
    function, pattern, _ = PICKS[queue]
    source = await connection.fetchrow("SELECT prosrc, proconfig FROM pg_proc WHERE proname = $1", function)
    found = re.findall(pattern, source["prosrc"], re.DOTALL)
    assert len(found) == 1, f"{function} picks {len(found)} times"
    statement = (
        found[0].replace("p_limit", "$1").replace("p_from", "$2").replace("p_age", "interval '1 hour'")
    )
    for setting in source["proconfig"]:
        await connection.execute("SET LOCAL " + setting)
    takes_begin = "$2" in statement
    await connection.execute(
        f"PREPARE picks ({'integer, timestamptz' if takes_begin else 'integer'}) AS {statement}"
    )
    start = "NULL" if begin is None else f"'{begin}'"
    call = f"{LIMIT}, {start}" if takes_begin else f"{LIMIT}"
    plan = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE picks ({call})")
    await connection.execute("DEALLOCATE picks")
    return json.loads(plan)[0]["Plan"]


def touched(plan: dict[str, Any]) -> int:
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


def rows_read(plan: dict[str, Any]) -> int:
    """Of the node that reads the table."""
    while plan.get("Plans"):
        (plan,) = plan["Plans"]
    assert plan["Node Type"] in ("Index Scan", "Index Only Scan"), json.dumps(plan)
    return plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)


@pytest.mark.parametrize("queue", PICKS)
def test_pick_when_the_queue_is_long_then_it_reads_no_more_than_the_batch(large: Target, queue: str) -> None:
    async def scenario() -> None:
        async with connected(large) as connection, connection.transaction():
            plan = await explained(connection, queue)
        assert rows_read(plan) == LIMIT
        assert touched(plan) <= BUFFERS_MAX, json.dumps(plan)

    asyncio.run(scenario())


@pytest.mark.parametrize("queue", ["gc_blob_review_queue", "gc_manifest_review_queue"])
def test_pick_when_the_head_of_the_queue_is_dead_but_still_visible_to_somebody_then_it_begins_behind_it(
    large: Target, queue: str
) -> None:
    async def scenario() -> None:
        _, _, column = PICKS[queue]
        async with connected(large) as connection, connected(large) as reader:
            old = reader.transaction(isolation="repeatable_read")
            await old.start()
            await reader.fetchval("SELECT txid_current()")
            reached = await connection.fetchval(
                f"WITH gone AS (DELETE FROM {queue} WHERE id IN (SELECT id FROM {queue} ORDER BY {column} LIMIT {DEAD})"
                f" RETURNING {column}) SELECT max({column}) FROM gone"
            )
            async with connection.transaction():
                from_the_head = await explained(connection, queue)
                behind = await explained(connection, queue, reached)
            await old.rollback()
            await connection.execute(f"VACUUM {queue}")  # for the other tests
        assert rows_read(behind) == rows_read(from_the_head) == LIMIT
        assert touched(behind) <= BUFFERS_MAX, json.dumps(behind)
        # The witness: somebody who begins at the head pays for all that are dead.
        assert touched(from_the_head) > BUFFERS_MAX * 3, json.dumps(from_the_head)

    asyncio.run(scenario())


def test_prune_when_the_receipts_are_many_then_it_reads_no_more_than_the_batch(large: Target) -> None:
    async def scenario() -> None:
        async with connected(large) as connection:
            # As behind PgBouncer, where no setting helps.
            await connection.execute("SET plan_cache_mode = force_generic_plan")
            async with connection.transaction():
                pruned = await collecting.prune_receipts(
                    Connection(connection, None), LIMIT, dt.timedelta(hours=1)
                )
                rows = await connection.fetchval(
                    "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'gc_receipts'"
                )
        assert pruned == LIMIT
        assert rows <= LIMIT * 2 + 10

    asyncio.run(scenario())
