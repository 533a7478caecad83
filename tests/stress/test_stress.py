"""Eight pushers and three collectors of each kind, with reviews that come at once: nobody loses what is in use.

With a review delay of a second, nothing is lost either that a client was told of less than half a second ago. With none
at all a push may find that something of it is gone, and starts over. In both cases whatever was acknowledged as tagged
is complete at every moment, no answer is a server's fault, and once all is over nothing is left but what is in use.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

import pytest

from app.domain.digest import Digest
from tests.model.clock import jump
from tests.model.collection import Collection
from tests.model.keeping import DAY, UPLOAD_AGE_SECONDS
from tests.stress.crowd import Crowd
from tests.stress.site import running
from tests.support.effort import EFFORT
from tests.support.fsck import assert_fsck_clean
from tests.support.invariants import assert_invariants
from tests.support.postgres import connected

if TYPE_CHECKING:
    from pathlib import Path

    from app.store.engine import Target

SECONDS: Final = 5.0 * EFFORT
PUSHERS: Final = 8
# An index, its image, a referrer and what is about that; then blobs, and then objects.
_PASSES_MAX: Final = 12
_DEADLOCKS: Final = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
_TAGS: Final = """
    SELECT path, t.name, m.digest FROM tags AS t JOIN repositories AS r ON r.id = t.repository_id
    JOIN manifests AS m ON m.repository_id = t.repository_id AND m.id = t.manifest_id
"""
_DELETED: Final = """
    SELECT 'deleted: ' || kind || 's', count(*) FROM gc_receipts WHERE kind <> 'object' GROUP BY kind
    UNION ALL SELECT 'deleted: objects', count(*) FROM gc_receipts WHERE kind <> 'manifest' AND removed_at IS NOT NULL
"""
_WAITING: Final = """
    SELECT (SELECT count(*) FROM gc_manifest_review_queue) + (SELECT count(*) FROM gc_blob_review_queue)
        + (SELECT count(*) FROM gc_storage_deletions) + (SELECT count(*) FROM blob_uploads)
"""
# What no tag leads to, and blobs that no manifest has.
_UNUSED: Final = """
    WITH RECURSIVE live (repository_id, id, digest) AS (
        SELECT m.repository_id, m.id, m.digest
        FROM tags AS t JOIN manifests AS m ON m.repository_id = t.repository_id AND m.id = t.manifest_id
        UNION
        SELECT m.repository_id, m.id, m.digest
        FROM live AS l JOIN manifests AS m ON m.repository_id = l.repository_id AND (m.subject_digest = l.digest
            OR m.id IN (SELECT child_id FROM manifest_references AS r
                        WHERE r.repository_id = l.repository_id AND r.parent_id = l.id))
    )
    SELECT 'manifest', encode(digest, 'hex') FROM manifests WHERE (repository_id, id) NOT IN
        (SELECT repository_id, id FROM live)
    UNION ALL SELECT 'blob', encode(digest, 'hex') FROM blobs WHERE digest NOT IN
        (SELECT digest FROM layers UNION ALL SELECT config_digest FROM manifests WHERE config_digest IS NOT NULL)
"""


@pytest.mark.parametrize(("review_after", "grace_seconds"), [("1s", 0.5), ("0s", 0.0)])
def test_collectors_when_eight_push_and_reviews_come_at_once_then_nothing_in_use_is_lost_and_nothing_leaks(
    database: Target, tmp_path: Path, review_after: str, grace_seconds: float
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}, {SECONDS:g} seconds, review after {review_after}")  # noqa: T201
    deadlocks = asyncio.run(asked(database, _DEADLOCKS))[0][0]
    with running(tmp_path, database, review_after) as site:
        crowd = Crowd(PUSHERS, seed, site.port, grace_seconds)
        crowd.play(SECONDS)
        crowd.finish()
        counted = crowd.done + site.counted()
        site.stop()
    counted.update(dict(map(tuple, asyncio.run(asked(database, _DELETED)))))
    print(*(f"{count:8} {what}" for what, count in sorted(counted.items())), sep="\n")  # noqa: T201
    assert all(
        counted[what] > 0 for what in ("push", "reviews of manifests", "reviews of blobs", "deleted: objects")
    )
    # Nobody had to be made to wait for ever: one order of locks for all.
    assert asyncio.run(asked(database, _DEADLOCKS))[0][0] == deadlocks
    asyncio.run(check_what_is_left(database, tmp_path / "data", crowd.tagged()))


async def check_what_is_left(database: Target, data: Path, tagged: set[tuple[str, str, str]]) -> None:
    """Let all that is to come be done; then there is what is in use, whole, and nothing else."""
    async with AsyncExitStack() as stack:
        connection: Any = await stack.enter_async_context(connected(database))
        collection = await Collection.open(database, data)
        stack.push_async_callback(collection.close)
        for _ in range(_PASSES_MAX):
            await jump(connection, UPLOAD_AGE_SECONDS + DAY)
            await collection.whole_pass(100, keep_untagged=False)
            if not await connection.fetchval(_WAITING):
                break
        assert await connection.fetchval(_WAITING) == 0
        found = {
            (path, tag, str(Digest.unpack(digest))) for path, tag, digest in await connection.fetch(_TAGS)
        }
        assert found == tagged
        assert await connection.fetch(_UNUSED) == []
        blobs = {key for (key,) in await connection.fetch("SELECT storage_key FROM blobs")}
        assert {found.key async for found in collection.driver.list()} == blobs
        await assert_invariants(database, collection.driver)
        await assert_fsck_clean(database, collection.driver, share=1.0)


async def asked(database: Target, sql: str) -> list[Any]:
    async with connected(database) as connection:
        return await connection.fetch(sql)
