"""What each statement of the collectors does when nobody interferes. The races are in `tests/interleavings`."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

from app.domain.digest import Digest
from app.domain.names import Tag
from app.store import blobs, collecting, manifests
from app.store.collecting import Reviewed
from tests.store.scenes import PATIENCE_SECONDS, digests, manifest_digest, play
from tests.support.registry import descriptor, image, index

if TYPE_CHECKING:
    from datetime import datetime

    from app.store.engine import Target
    from tests.store.scenes import Actor, Stage

HOUR: Final = timedelta(hours=1)
A, B, C = (Digest.of(content) for content in (b"a", b"b", b"c"))
ONE = image(b"a", config=b"c")
ONE_DIGEST = manifest_digest(ONE)
# What a review is put off by: 5 s doubled each time, at most an hour, give or take a quarter.
NEVER_LONGER = HOUR * 1.25


async def receipts(actor: Actor, *columns: str) -> list[tuple[Any, ...]]:
    rows = await actor.raw.fetch(f"SELECT {', '.join(columns)} FROM gc_receipts ORDER BY id")
    return [tuple(row) for row in rows]


async def delays(actor: Actor, queue: str) -> list[timedelta]:
    return [row[0] for row in await actor.raw.fetch(f"SELECT review_after - now() FROM {queue} ORDER BY id")]


async def untag(actor: Actor, repository: int, tag: str) -> None:
    assert await manifests.untag(actor.c, repository, Tag(tag))


# Blobs


def test_collect_blobs_when_nothing_is_due_then_nothing_is_reviewed(database: Target) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        await actor.push_blob("a", b"a")
        assert await actor.collect_blobs() == Reviewed(0, 0, 0, 0, None)
        assert (await s.count("blobs"), await s.count("gc_blob_review_queue")) == (1, 1)

    play(database, scene)


def test_collect_blobs_when_due_then_the_unused_go_with_their_links_and_the_needed_stay(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        await actor.push("a", ONE, "t")
        await actor.push_blob("a", b"unused")
        await actor.push_blob("b", b"unused")
        key = await s.key_of(Digest.of(b"unused"))
        assert key is not None
        await actor.fall_due()
        reached = await actor.value("SELECT max(review_after) FROM gc_blob_review_queue")
        assert await actor.collect_blobs() == Reviewed(3, 1, 0, len(b"unused"), reached)
        assert await s.links() == {("a", digest.packed) for digest in digests(ONE)}
        assert (await s.tombstones())[key] == "blob_unused"
        assert await s.count("gc_blob_review_queue") == 0

    play(database, scene)


def test_collect_blobs_when_deleted_then_the_receipt_has_its_event_bytes_key_and_times(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        await actor.push_blob("a", b"bytes")
        key = await s.key_of(Digest.of(b"bytes"))
        suspected = await actor.value("SELECT created_at FROM gc_blob_review_queue")
        await actor.fall_due()
        async with actor.transaction():
            now = await actor.value("SELECT now()")
            await collecting.collect_blobs(actor.c, 10, None, HOUR)
        columns = ("kind", "digest", "event", "suspected_at", "bytes", "storage_key", "deleted_at")
        assert await receipts(actor, *columns) == [
            ("blob", Digest.of(b"bytes").packed, "blob_upload", suspected, 5, key, now)
        ]
        assert await receipts(actor, "removed_at", "repository") == [(None, None)]
        tombstone = await actor.raw.fetchrow("SELECT * FROM gc_storage_deletions")
        assert tombstone["digest"] == Digest.of(b"bytes").packed
        assert (tombstone["size"], tombstone["attempts"], tombstone["not_before"]) == (5, 0, now + HOUR)

    play(database, scene)


def test_collect_blobs_when_its_object_was_lost_then_there_is_no_tombstone_and_the_receipt_is_complete(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        await actor.push_blob("a", b"a")
        await actor.value("UPDATE blobs SET storage_key = NULL")
        await actor.fall_due()
        assert (await actor.collect_blobs()).deleted == 1
        assert await s.tombstones() == {}
        assert await receipts(actor, "storage_key", "removed_at = deleted_at") == [(None, True)]

    play(database, scene)


def test_collect_blobs_when_a_later_review_is_pending_then_the_blob_stays_until_that_one(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        await actor.push_blob("a", b"a")
        await actor.fall_due()
        assert await blobs.keep(actor.c, A)
        outcome = await actor.collect_blobs()
        assert (outcome.reviewed, outcome.deleted, outcome.put_off) == (1, 0, 0)
        assert await actor.value("SELECT array_agg(event) FROM gc_blob_review_queue") == ["touch"]
        await actor.fall_due()
        assert (await actor.collect_blobs()).deleted == 1
        assert await receipts(actor, "event") == [("touch",)]

    play(database, scene)


def test_collect_blobs_when_several_reviews_of_one_are_due_then_all_are_settled_and_the_oldest_is_the_cause(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        await actor.push_blob("a", b"a")
        await actor.value(
            "INSERT INTO gc_blob_review_queue (digest, review_after, event)"
            " SELECT digest, review_after - n * interval '1 minute', 'layer_delete'"
            " FROM gc_blob_review_queue, generate_series(1, 3) AS n"
        )
        await actor.fall_due()
        assert (await actor.collect_blobs(limit=1)).deleted == 1
        assert await s.count("gc_blob_review_queue") == await s.count("blobs") == 0
        assert await receipts(actor, "event") == [("layer_delete",)]

    play(database, scene)


def test_collect_blobs_when_more_are_due_than_a_batch_then_the_next_begins_where_it_ended(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        for n in range(7):
            await actor.push_blob("a", b"%d" % n)
        await actor.fall_due()
        begin: datetime | None = None
        sizes: list[int] = []
        while not sizes or sizes[-1] == 3:
            outcome = await collecting.collect_blobs(actor.c, 3, begin, HOUR)
            assert outcome is not None
            assert begin is None or outcome.reached is None or outcome.reached >= begin
            begin = outcome.reached
            sizes.append(outcome.reviewed)
        assert sizes == [3, 3, 1]
        assert await s.count("blobs") == 0

    play(database, scene)


def test_collect_blobs_when_begun_later_then_what_fell_due_before_is_left_for_another_round(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        await actor.push_blob("a", b"a")
        await actor.fall_due()
        begin = await actor.value("SELECT max(review_after) + interval '1 second' FROM gc_blob_review_queue")
        assert await collecting.collect_blobs(actor.c, 10, begin, HOUR) == Reviewed(0, 0, 0, 0, None)
        assert (await actor.collect_blobs()).deleted == 1

    play(database, scene)


def test_collect_blobs_when_the_suspect_is_gone_already_then_its_review_is_settled(database: Target) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        await actor.push_blob("a", b"a")
        await actor.value("DELETE FROM blobs")
        await actor.fall_due()
        outcome = await actor.collect_blobs()
        assert (outcome.reviewed, outcome.deleted, outcome.put_off) == (1, 0, 0)
        assert await s.count("gc_blob_review_queue") == 0

    play(database, scene)


@pytest.mark.parametrize("kind", ["blob", "manifest"])
def test_collect_when_the_suspect_is_held_then_its_review_is_put_off_longer_each_time_and_the_others_are_done(
    database: Target, kind: str
) -> None:
    async def scene(s: Stage) -> None:
        actor, holder = await s.actors(2)
        table, queue = f"{kind}s", f"gc_{kind}_review_queue"
        collect = actor.collect_blobs if kind == "blob" else actor.collect_manifests
        await actor.push("a", ONE)
        if kind == "blob":
            await actor.push_blob("a", b"other")
            held = A
        else:
            await actor.push("a", index())
            held = ONE_DIGEST
        await actor.value("DELETE FROM gc_blob_review_queue WHERE digest = $1", C.packed)
        waited: list[timedelta] = []
        async with holder.transaction():
            await holder.value(f"SELECT 1 FROM {table} WHERE digest = $1 FOR KEY SHARE", held.packed)
            for times in range(1, 15):
                await actor.value(f"UPDATE {queue} SET review_after = now()")
                outcome = await collect()
                assert (outcome.put_off, outcome.deleted) == (1, 1 if times == 1 else 0)
                (delay,) = await delays(actor, queue)
                waited.append(delay)
                assert await actor.value(f"SELECT review_count FROM {queue}") == times
        assert waited[0] <= timedelta(seconds=5 * 1.25)
        assert waited[5] >= timedelta(seconds=5 * 2**5 * 0.7)
        assert all(wait <= NEVER_LONGER for wait in waited)
        assert waited[-1] >= HOUR * 0.7

    play(database, scene)


# Manifests


def test_collect_manifests_when_untagged_then_it_goes_and_what_it_needed_becomes_suspect(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        repository = await actor.push("a", ONE, "t")
        await actor.fall_due()
        assert (await actor.collect_manifests()).deleted == 0
        await actor.collect_blobs()
        await untag(actor, repository, "t")
        await actor.fall_due()
        suspected = await actor.value("SELECT created_at FROM gc_manifest_review_queue")
        outcome = await actor.collect_manifests()
        assert (outcome.reviewed, outcome.deleted, outcome.bytes) == (1, 1, len(ONE.payload))
        columns = ("kind", "digest", "repository_id", "repository", "event", "suspected_at", "bytes")
        assert await receipts(actor, *columns, "storage_key", "removed_at = deleted_at") == [
            (
                "manifest",
                ONE_DIGEST.packed,
                repository,
                "a",
                "tag_delete",
                suspected,
                len(ONE.payload),
                None,
                True,
            )
        ]
        suspects = await actor.raw.fetch("SELECT digest, event FROM gc_blob_review_queue ORDER BY event")
        assert [tuple(row) for row in suspects] == [(A.packed, "layer_delete"), (C.packed, "manifest_delete")]

    play(database, scene)


def test_collect_manifests_when_untagged_are_kept_then_nothing_goes_and_the_reviews_are_settled(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        await actor.push("a", ONE)
        await actor.fall_due()
        outcome = await actor.collect_manifests(keep_untagged=True)
        assert (outcome.reviewed, outcome.deleted, outcome.put_off, outcome.bytes) == (1, 0, 0, 0)
        assert (await s.count("manifests"), await s.count("gc_manifest_review_queue")) == (1, 0)
        await actor.collect_everything()
        assert await s.count("blobs") == 2

    play(database, scene)


def test_collect_manifests_when_a_later_review_is_pending_then_the_manifest_stays(database: Target) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        repository = await actor.push("a", ONE)
        await actor.fall_due()
        manifest = await actor.manifest_id(ONE)
        assert manifest is not None
        assert await manifests.keep(actor.c, repository, manifest)
        assert (await actor.collect_manifests()).deleted == 0
        assert await actor.value("SELECT array_agg(event) FROM gc_manifest_review_queue") == ["touch"]

    play(database, scene)


def test_collect_when_an_index_and_its_children_go_then_each_gets_its_turn_and_nothing_is_left(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        signature = image(b"about", config=b"{}", subject=descriptor(ONE.payload, ONE.media_type))
        await actor.push("a", ONE)
        await actor.push("a", signature)
        repository = await actor.push("a", index(ONE), "t")
        await actor.fall_due()
        await actor.collect_everything()
        assert (await s.count("manifests"), await s.count("blobs")) == (3, 4)
        await untag(actor, repository, "t")
        await actor.collect_everything()
        for table in ("manifests", "blobs", "repository_blobs", "gc_storage_deletions"):
            assert await s.count(table) == 0
        rows = await actor.raw.fetch("SELECT event FROM gc_receipts WHERE kind = 'manifest' ORDER BY id")
        assert [row[0] for row in rows] == ["tag_delete", "manifest_list_delete", "subject_delete"]
        assert await actor.value("SELECT count(*) FROM gc_receipts WHERE removed_at IS NULL") == 0

    play(database, scene)


# The pause


def test_pause_when_set_then_no_deletion_begins_until_it_ends(database: Target) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        await actor.push("a", ONE)
        await actor.session("a")
        await actor.fall_due()
        assert await collecting.set_paused(actor.c, is_paused=True, reason="moving house")
        assert await collecting.is_paused(actor.c)
        assert not await collecting.set_paused(actor.c, is_paused=True, reason="again")
        assert await actor.value("SELECT reason FROM gc_control") == "moving house"
        assert await collecting.collect_blobs(actor.c, 10, None, HOUR) is None
        assert await collecting.collect_manifests(actor.c, 10, None, keep_untagged=False) is None
        assert await collecting.expire_uploads(actor.c, 10, -HOUR, HOUR) is None
        await actor.value(
            "INSERT INTO gc_storage_deletions (storage_key, reason, not_before) VALUES ('k', 'orphan', now())"
        )
        assert await collecting.take_tombstones(actor.c, 10, HOUR) == []
        assert await collecting.set_paused(actor.c, is_paused=False)
        assert not await collecting.is_paused(actor.c)
        assert [t.storage_key for t in await collecting.take_tombstones(actor.c, 10, HOUR)] == ["k"]
        assert (await actor.collect_manifests()).deleted == 1
        assert await collecting.expire_uploads(actor.c, 10, -HOUR, HOUR) == 1

    play(database, scene)


def test_pause_when_it_changes_then_the_workers_are_told(database: Target) -> None:
    async def scene(s: Stage) -> None:
        actor, worker = await s.actors(2)
        heard: asyncio.Queue[str] = asyncio.Queue()

        def hear(*message: Any) -> None:
            heard.put_nowait(message[-1])

        await worker.raw.add_listener(collecting.CHANNEL, hear)
        await collecting.set_paused(actor.c, is_paused=True, reason="why")
        assert await asyncio.wait_for(heard.get(), PATIENCE_SECONDS) == "control"
        await worker.raw.remove_listener(collecting.CHANNEL, hear)

    play(database, scene)


# Tombstones


async def bury(actor: Actor, *keys: str, size: int | None = 7, reason: str = "upload_cancelled") -> None:
    for key in keys:
        await actor.value(
            "INSERT INTO gc_storage_deletions (storage_key, size, reason, not_before)"
            " VALUES ($1, $2, $3, now())",
            key,
            size,
            reason,
        )


def test_tombstones_when_taken_then_nobody_gets_them_again_before_the_lease_is_over(database: Target) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        await bury(actor, "x", "y", "z")
        first = await collecting.take_tombstones(actor.c, 2, HOUR)
        assert [(t.size, t.attempts) for t in first] == [(7, 1)] * 2
        second = await collecting.take_tombstones(actor.c, 2, HOUR)
        assert {t.storage_key for t in (*first, *second)} == {"x", "y", "z"}
        assert len(second) == 1
        assert await collecting.take_tombstones(actor.c, 2, HOUR) == []
        await actor.fall_due()
        assert {t.attempts for t in await collecting.take_tombstones(actor.c, 9, HOUR)} == {2}

    play(database, scene)


def test_tombstones_when_settled_then_they_are_gone_and_the_receipts_say_so(database: Target) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        await bury(actor, "x", "y")
        await actor.push_blob("a", b"blob")
        key = await s.key_of(Digest.of(b"blob"))
        await actor.fall_due()
        await actor.collect_blobs()
        assert key is not None
        assert await collecting.settle_tombstones(actor.c, ["x", key, "never heard of"]) == 2
        assert await collecting.settle_tombstones(actor.c, ["x", key]) == 0
        assert set(await s.tombstones()) == {"y"}
        columns = ("kind", "event", "bytes", "storage_key", "removed_at IS NOT NULL")
        assert sorted(await receipts(actor, *columns)) == [
            ("blob", "blob_upload", 4, key, True),
            ("object", "upload_cancelled", 7, "x", True),
        ]

    play(database, scene)


def test_tombstones_when_put_off_then_longer_each_time(database: Target) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        await bury(actor, "x")
        waited: list[timedelta] = []
        for _ in range(12):
            await actor.value("UPDATE gc_storage_deletions SET not_before = now()")
            (taken,) = await collecting.take_tombstones(actor.c, 10, HOUR)
            await collecting.put_off_tombstones(actor.c, [taken.storage_key])
            waited.append(await actor.value("SELECT not_before - now() FROM gc_storage_deletions"))
        assert waited[0] <= timedelta(seconds=10 * 1.25)
        assert waited[4] >= timedelta(seconds=5 * 2**5 * 0.7)
        assert all(wait <= NEVER_LONGER for wait in waited)

    play(database, scene)


# Sessions, receipts, settings


def test_expire_uploads_when_untouched_for_the_age_then_they_become_tombstones_for_the_grace(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        old = [await actor.session("a") for _ in range(3)]
        young = await actor.session("a")
        await actor.value(
            "UPDATE blob_uploads SET updated_at = now() - interval '8 days', size = 9 WHERE id <> $1",
            young.id,
        )
        assert await collecting.expire_uploads(actor.c, 2, timedelta(days=7), HOUR) == 2
        assert await collecting.expire_uploads(actor.c, 2, timedelta(days=7), HOUR) == 1
        assert await collecting.expire_uploads(actor.c, 2, timedelta(days=7), HOUR) == 0
        assert await s.tombstones() == {session.storage_key: "upload_expired" for session in old}
        assert await s.count("blob_uploads") == 1
        rows = await actor.raw.fetch("SELECT size, not_before - created_at FROM gc_storage_deletions")
        assert [tuple(row) for row in rows] == [(9, HOUR)] * 3

    play(database, scene)


def test_prune_receipts_when_older_than_the_age_then_they_are_forgotten_in_batches(database: Target) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        await actor.value(
            "INSERT INTO gc_receipts (kind, event, suspected_at, deleted_at)"
            " SELECT 'object', 'orphan', now(), now() - n * interval '1 day' FROM generate_series(1, 7) AS n"
        )
        age = timedelta(days=2, hours=12)
        assert await collecting.prune_receipts(actor.c, 3, age) == 3
        assert (
            await actor.value("SELECT max(deleted_at) < now() - interval '3 days' FROM gc_receipts") is False
        )
        assert await collecting.prune_receipts(actor.c, 3, age) == 2
        assert await collecting.prune_receipts(actor.c, 3, age) == 0
        assert await s.count("gc_receipts") == 2

    play(database, scene)


@pytest.mark.parametrize("kind", ["blob", "manifest"])
def test_put_off_one_review_when_called_then_the_oldest_due_one_goes_behind(
    database: Target, kind: str
) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        queue = f"gc_{kind}_review_queue"
        statement = collecting.PUT_OFF_BLOB_REVIEW if kind == "blob" else collecting.PUT_OFF_MANIFEST_REVIEW
        await actor.push("a", ONE)
        await actor.push("a", index())
        assert await actor.c.value(statement) is None
        await actor.fall_due()
        oldest = await actor.value(f"SELECT id FROM {queue} ORDER BY review_after LIMIT 1")
        assert await actor.c.value(statement) == oldest
        row = await actor.raw.fetchrow(
            f"SELECT review_after > now(), review_count FROM {queue} WHERE id = $1", oldest
        )
        assert tuple(row) == (True, 1)
        assert await actor.value(f"SELECT count(*) FROM {queue} WHERE review_after <= now()") == 1

    play(database, scene)


def test_review_after_when_set_then_the_kinds_that_changed_come_back(database: Target) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        changed = await collecting.set_review_after(actor.c, HOUR)
        assert len(changed) == len(set(changed)) == await s.count("gc_review_after_defaults")
        assert await collecting.set_review_after(actor.c, HOUR) == []
        await actor.push_blob("a", b"a")
        (delay,) = await delays(actor, "gc_blob_review_queue")
        assert HOUR * 0.9 < delay < HOUR * 1.1

    play(database, scene)


NEXT: Final = (
    collecting.NEXT_BLOB,
    collecting.NEXT_MANIFEST,
    collecting.NEXT_TOMBSTONE,
    collecting.OLDEST_UPLOAD,
    collecting.OLDEST_RECEIPT,
)


def test_seconds_until_when_asked_then_the_first_of_the_queue_is_meant_or_none(database: Target) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        assert [await collecting.seconds_until(actor.c, one) for one in NEXT] == [None] * 5
        await actor.push("a", ONE)
        await actor.session("a")
        await bury(actor, "x")
        await actor.value(
            "INSERT INTO gc_receipts (kind, event, suspected_at) VALUES ('object', 'orphan', now())"
        )
        found = [await collecting.seconds_until(actor.c, one) for one in NEXT]
        blob, manifest, *others = (value for value in found if value is not None)
        assert 86_000 < blob < 87_000
        assert 86_000 < manifest < 87_000
        assert len(others) == 3
        assert all(-60 < value <= 0 for value in others)
        await actor.fall_due()
        overdue = await collecting.seconds_until(actor.c, collecting.NEXT_BLOB)
        assert overdue is not None
        assert -3_700 < overdue < -3_500

    play(database, scene)
