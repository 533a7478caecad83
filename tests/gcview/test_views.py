"""The views for a person at psql: digests, paths, counts and lengths of time as people read them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from tests.gcview.support import scene
from tests.support.registry import digest_of, image

if TYPE_CHECKING:
    from pathlib import Path

    from app.store.engine import Target

DIGEST = "decode('01' || repeat('ab', 32), 'hex')"
TEXT = "sha256:" + "ab" * 32
VIEWS = ("gc_overdue", "gc_pending_storage", "gc_queue_status", "gc_recent")


def test_views_when_described_then_they_and_every_column_say_what_they_mean(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    found = s.rows(
        "SELECT c.relname, obj_description(c.oid, 'pg_class') AS view,"
        " array_agg(a.attname::text) FILTER (WHERE col_description(c.oid, a.attnum) IS NULL) AS silent"
        " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0"
        " WHERE c.relkind = 'v' AND c.relnamespace = current_schema()::regnamespace GROUP BY c.oid ORDER BY 1"
    )
    assert [row["relname"] for row in found] == list(VIEWS)
    for row in found:
        assert row["view"], row
        assert row["silent"] is None, row


def test_digest_text_when_given_both_algorithms_and_none_then_it_is_what_people_know(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    [row] = s.rows(
        f"SELECT gc_digest_text({DIGEST}) AS sha256, gc_digest_text('\\x02ff') AS sha512,"
        " gc_digest_text(NULL) AS nothing"
    )
    assert row == {"sha256": TEXT, "sha512": "sha512:ff", "nothing": None}


def test_queue_status_when_reviews_wait_then_each_event_has_its_counts(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    assert s.rows("SELECT * FROM gc_queue_status") == []
    s.sql(
        f"""INSERT INTO gc_blob_review_queue (digest, review_after, review_count, event) VALUES
            ({DIGEST}, now() - interval '3 days', 11, 'layer_delete'),
            ({DIGEST}, now() - interval '1 hour', 10, 'layer_delete'),
            ({DIGEST}, now() + interval '1 hour', 0, 'layer_delete'),
            ({DIGEST}, now() + interval '90 minutes', 0, 'touch')""",
        """INSERT INTO gc_manifest_review_queue (repository_id, manifest_id, review_after, event)
           VALUES (1, 1, now() - interval '25 hours', 'tag_delete')""",
    )
    found = s.rows("SELECT * FROM gc_queue_status")
    counts = ("queue", "event", "reviews", "due", "overdue", "stuck")
    assert [tuple(row[column] for column in counts) for row in found] == [
        ("blobs", "layer_delete", 3, 2, 1, 1),
        ("blobs", "touch", 1, 0, 0, 0),
        ("manifests", "tag_delete", 1, 1, 1, 0),
    ]
    late, early, _ = (row["due_in"] for row in found)
    assert timedelta(days=-3, minutes=-5) < late <= timedelta(days=-3)
    assert timedelta(minutes=80) < early <= timedelta(minutes=90)
    assert all(row["due_in"].microseconds == 0 for row in found)


def test_overdue_when_reviews_are_late_or_stuck_then_they_are_told_by_name_the_oldest_first(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    pushed = image(b"a layer")
    s.act(lambda actor: actor.push("a/b", pushed))
    s.sql(
        "DELETE FROM gc_blob_review_queue",
        f"""INSERT INTO gc_blob_review_queue (digest, review_after, review_count, event) VALUES
            ({DIGEST}, now() - interval '23 hours', 10, 'blob_upload'),
            ({DIGEST}, now() + interval '1 hour', 11, 'touch'),
            ({DIGEST}, now() - interval '2 days', 0, 'layer_delete')""",
        "UPDATE gc_manifest_review_queue SET review_after = now() - interval '3 days'",
        """INSERT INTO gc_manifest_review_queue (repository_id, manifest_id, review_after, event)
           VALUES (0, 999999, now() - interval '4 days', 'tag_delete')""",
    )
    found = s.rows("SELECT queue, digest, repository, event, review_count, due_for FROM gc_overdue")
    assert [tuple(row.values())[:5] for row in found] == [
        ("manifests", None, None, "tag_delete", 0),
        ("manifests", pushed.digest(), "a/b", "manifest_upload", 0),
        ("blobs", TEXT, None, "layer_delete", 0),
        ("blobs", TEXT, None, "touch", 11),
    ]
    assert found[2]["due_for"] >= timedelta(days=2)
    assert found[3]["due_for"] < timedelta()


def test_pending_storage_when_objects_wait_then_each_reason_has_its_counts(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    s.sql(
        """INSERT INTO gc_storage_deletions (storage_key, size, reason, not_before, attempts) VALUES
           ('a', 3145728, 'blob_unused', now() - interval '1 minute', 2),
           ('b', 1048576, 'blob_unused', now() + interval '1 hour', 7),
           ('c', NULL, 'orphan', now() + interval '1 hour', 0)"""
    )
    found = s.rows("SELECT reason, objects, due, bytes, size, attempts FROM gc_pending_storage")
    assert [tuple(row.values()) for row in found] == [
        ("blob_unused", 2, 1, 4194304, "4096 kB", 7),
        ("orphan", 1, 0, 0, "0 bytes", 0),
    ]


def test_recent_when_something_was_collected_then_it_says_what_and_why_the_latest_first(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    s.act(lambda actor: actor.push_blob("a", b"free"))
    s.sql("UPDATE gc_blob_review_queue SET review_after = now()")
    s.sql("SELECT gc_collect_blobs(10, NULL, interval '0')")
    s.sql(
        "INSERT INTO gc_receipts (kind, event, suspected_at, deleted_at)"
        " VALUES ('object', 'upload_expired', now(), now() - interval '1 day')"
    )
    blob, upload = s.rows("SELECT kind, digest, event, bytes, size, removed_at FROM gc_recent")
    assert blob == {
        "kind": "blob",
        "digest": digest_of(b"free"),
        "event": "blob_upload",
        "bytes": 4,
        "size": "4 bytes",
        "removed_at": None,
    }
    assert (upload["kind"], upload["digest"], upload["bytes"]) == ("object", None, None)
