"""`registry gc status`: what waits, what is late, what was deleted, and whether anything may be deleted."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from app.cli.gc import status as command
from app.services import gc_status
from app.store.observing import observing
from tests.gcview.support import DUE, collect, scene, shelve

if TYPE_CHECKING:
    from pathlib import Path

    from app.services.gc_status import Status
    from app.store.engine import Target


def test_status_when_nothing_was_ever_pushed_then_it_says_so(tmp_path: Path, database: Target) -> None:
    ran = scene(tmp_path, database).gc("status")
    assert (ran.code, ran.errors) == (0, "")
    assert ran.lines == [
        "deletions are not paused",
        "",
        "reviews of manifests: 0",
        "",
        "reviews of blobs: 0",
        "",
        "objects to delete from storage: 0",
        "",
        "deleted in the last 24 hours: 0",
        "",
        "reviews fall due 1 d after the event",
    ]


def test_status_when_things_wait_then_columns_tell_how_many_of_which_event(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    shelve(s)
    s.sql(
        "UPDATE gc_blob_review_queue SET review_count = 11 WHERE event = 'touch'",
        "UPDATE gc_manifest_review_queue SET review_after = now() - interval '49 hours' WHERE event = 'tag_switch'",
        "INSERT INTO gc_storage_deletions (storage_key, size, reason, not_before, attempts)"
        " VALUES ('k', 5242880, 'upload_duplicate', now() - interval '3 hours 80 seconds', 3)",
        "UPDATE gc_review_after_defaults SET value = interval '90 minutes' WHERE event = 'touch'",
    )
    lines = s.gc("status").lines
    assert "1 review overdue for more than 24 hours; the view gc_overdue lists them" in lines
    assert "reviews of manifests: 9" in lines
    squeezed = [" ".join(line.split()) for line in lines]
    head = squeezed.index("EVENT REVIEWS DUE OVERDUE STUCK NEXT DUE")
    assert squeezed[head + 1] == "manifest_upload 7 7 0 0 2 h ago"
    assert squeezed[head + 2] == "tag_switch 1 1 1 0 2 d 1 h ago"
    assert re.fullmatch(r"touch 1 0 0 0 in (2 h 59 min|3 h)", squeezed[head + 3])
    assert re.search(r"^touch 1 0 0 1 in (2 h 59 min|3 h)$", "\n".join(squeezed[head + 4 :]), re.MULTILINE)
    assert "upload_duplicate 1 1 5.0 MiB 3 3 h 1 min ago" in squeezed
    assert "touch 1 h 30 min" in squeezed
    # Every line of a table is as wide as its heading, or ends where its last column does.
    width = len(lines[head])
    assert {len(line) for line in lines[head : head + 4]} == {width}


def test_status_when_something_was_deleted_then_it_tells_bytes_and_what_is_still_in_storage(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    shelf = shelve(s)
    collect(s)
    s.sql("UPDATE gc_receipts SET bytes = 3145728 WHERE kind = 'blob' AND storage_key IS NOT NULL")
    squeezed = [" ".join(line.split()) for line in s.gc("status").lines]
    assert "deleted in the last 24 hours: 4" in squeezed
    assert "blob 2 3.0 MiB 3.0 MiB" in squeezed
    found = {group["kind"]: group for group in s.gc("status", "--json").json["deleted_24h"]["groups"]}
    assert found["blob"] == {
        "kind": "blob",
        "deleted": 2,
        "bytes": 3145728,
        "pending": 1,
        "pending_bytes": 3145728,
    }
    assert found["manifest"]["bytes"] == len(shelf.untagged.payload) + len(shelf.orphan.payload)
    s.sql("UPDATE gc_receipts SET deleted_at = now() - interval '25 hours'")
    assert "deleted in the last 24 hours: 0" in s.gc("status").lines


def test_status_when_asked_for_json_then_it_has_the_same_facts_exactly(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    shelve(s)
    s.sql("UPDATE gc_manifest_review_queue SET review_after = now() - interval '25 hours'")
    s.gc("pause", "--reason", "the disk is being moved")
    found = s.gc("status", "--json").json
    assert found["paused"] is True
    assert found["paused_reason"] == "the disk is being moved"
    assert found["paused_since"] <= found["now"]
    assert found["overdue"] == found["manifests"]["total"] == 9
    assert found["manifests"]["is_partial"] is False
    assert found["review_delays_seconds"]["tag_delete"] == 86400
    [upload] = [group for group in found["manifests"]["groups"] if group["event"] == "manifest_upload"]
    assert (upload["reviews"], upload["due"], upload["overdue"], upload["stuck"]) == (7, 7, 7, 0)
    assert found["objects"] == {"groups": [], "total": 0, "is_partial": False}


def test_status_when_deletions_are_held_up_then_the_first_lines_say_by_what(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    s.sql("SELECT gc_set_paused(true, E'a \\x1b[2J trick')")
    lines = s.gc("status", REGISTRY_GC_DISABLED="true", REGISTRY_GC_BLOBS_DISABLED="true").lines
    assert re.fullmatch(
        r"deletions are paused since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC \(.+ ago\): a \\x1b\[2J trick",
        lines[0],
    )
    assert lines[1].startswith("gc.disabled is set")
    assert lines[2].startswith("gc.blobs.disabled is set")
    assert lines[3] == ""


def test_status_when_a_queue_is_longer_than_is_counted_then_the_first_due_are_and_the_total_is_estimated(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    shelve(s)
    s.sql(
        DUE,
        "INSERT INTO gc_blob_review_queue (digest, review_after, event)"
        " SELECT sha256(n::text::bytea), now() + interval '1 hour', 'touch' FROM generate_series(1, 5000) n",
        "UPDATE gc_blob_review_queue SET review_after = now() - interval '25 hours'"
        " WHERE id IN (SELECT id FROM gc_blob_review_queue WHERE event = 'blob_upload' LIMIT 3)",
        "ANALYZE gc_blob_review_queue",
    )

    async def look() -> Status:
        async with observing(database) as observer:
            return await gc_status.status(observer, 20)

    found = asyncio.run(look())
    assert found.blobs.is_partial
    assert sum(group.reviews for group in found.blobs.groups) == 20
    assert found.overdue == 3  # whatever is late comes first
    assert 4000 < found.blobs.total < 6500
    assert not found.manifests.is_partial
    text = "\n".join(command.lines(found, ()))
    assert re.search(
        r"^reviews of blobs: ~\d,\d{3} \(the 20 that fall due first are counted\)$", text, re.MULTILINE
    )
