"""`registry gc plan`: exactly what the next pass deletes, told without touching anything."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from app.domain.errors import Unavailable
from app.services.gc_plan import Plan, PlanRules
from app.store.observing import observing
from app.store.statements import Statement
from tests.gcview.support import collect, scene, shelve
from tests.server.test_cli import environment
from tests.support.postgres import connected, rows

if TYPE_CHECKING:
    from pathlib import Path

    from app.services.gc_plan import Going
    from app.store.engine import Target

# Of this database: in others of the server somebody may well wait.
WAITING_LOCKS = """
    SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE datname = current_database() AND NOT granted
"""
UPLOADS = """
    UPDATE blob_uploads SET size = 7, updated_at = now() - interval '8 days'
    WHERE id = (SELECT id FROM blob_uploads LIMIT 1)
"""


def things(documents: list[Any]) -> dict[str, Any]:
    return {one["name"]: one for one in documents[:-1]}


def test_plan_when_reviews_are_due_then_it_lists_exactly_what_the_next_pass_deletes(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    shelf = shelve(s)
    before = asyncio.run(rows(database))
    *found, total = s.gc("plan", "--json").documents
    assert asyncio.run(rows(database)) == before
    names = [one["name"] for one in found]
    assert len(names) == len(set(names))
    assert set(names) == shelf.goes
    assert collect(s) == set(names)
    # Of several reviews of one thing the first is told, as the receipt has it.
    receipts = s.rows(
        "SELECT coalesce(repository || '@', '') || digest AS name, event, suspected_at FROM gc_recent"
    )
    for receipt in receipts:
        [told] = [one for one in found if one["name"] == receipt["name"]]
        assert (told["event"], told["since"]) == (receipt["event"], receipt["suspected_at"].isoformat())
    assert total["kind"] == "sum"
    assert total["count"] == 4
    assert total["bytes"] == sum(one["bytes"] for one in found)


def test_plan_when_asked_for_text_then_lines_tell_what_and_the_end_sums_up(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    shelf = shelve(s)
    ran = s.gc("plan")
    assert (ran.code, ran.errors) == (0, "")
    squeezed = [" ".join(line.split()) for line in ran.lines]
    assert squeezed[0] == "KIND SIZE WHY SINCE NAME"
    assert {line.split()[-1] for line in squeezed[1:5]} == shelf.goes
    assert squeezed[5:8] == ["", "KIND WHY COUNT SIZE", "manifest manifest_upload 2 <0.1 MiB"]
    # What these manifests need and something else does not becomes suspect only when they are gone.
    assert any(line.startswith("later: up to <0.1 MiB of blobs") for line in ran.lines)
    needless = (
        len(s.rows("SELECT FROM gc_blob_review_queue WHERE review_after <= now()"))
        + len(s.rows("SELECT FROM gc_manifest_review_queue WHERE review_after <= now()"))
        - len(shelf.goes)
    )
    assert f"{needless} due reviews will find nothing to delete" in ran.lines


def test_plan_when_nothing_is_due_then_it_says_so(tmp_path: Path, database: Target) -> None:
    s = scene(tmp_path, database)
    s.act(lambda actor: actor.push_blob("a", b"free"))
    assert s.gc("plan").lines == ["nothing would be deleted now"]
    assert s.gc("plan", "--json").documents[0]["count"] == 0


def test_plan_when_objects_and_uploads_are_due_then_they_are_listed_with_their_reasons(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    s.act(lambda actor: actor.session("up/a"))
    s.act(lambda actor: actor.session("up/b"))
    s.sql(
        UPLOADS,
        "INSERT INTO gc_storage_deletions (storage_key, size, reason, not_before) VALUES"
        " ('k1', 5, 'blob_unused', now()), ('k2', NULL, 'orphan', now()), ('k3', 9, 'orphan', now() + interval '1 h')",
    )
    documents = s.gc("plan", "--json").documents
    found = things(documents)
    [upload] = [name for name in found if name.startswith("up/")]
    assert {name: (one["kind"], one["event"], one["bytes"]) for name, one in found.items()} == {
        "k1": ("object", "blob_unused", 5),
        "k2": ("object", "orphan", 0),
        upload: ("upload", "upload_expired", 7),
    }
    assert documents[-1]["bytes"] == 12

    for variable in ("DRYRUN", "ENABLED"):
        setting = {
            f"REGISTRY_STORAGE_MAINTENANCE_UPLOADPURGING_{variable}": str(variable == "DRYRUN").lower()
        }
        lines = s.gc("plan", **setting).lines
        assert not any(upload in line for line in lines)
        assert lines[-1] == "storage.maintenance.uploadpurging is off: no upload is given up"
    old = s.gc("plan", "--json", REGISTRY_STORAGE_MAINTENANCE_UPLOADPURGING_AGE="192h1m").documents
    assert upload not in things(old)


def test_plan_when_an_object_was_lost_then_its_blob_frees_nothing(tmp_path: Path, database: Target) -> None:
    s = scene(tmp_path, database)
    shelf = shelve(s)
    freed = {one["name"]: one["bytes"] for one in s.gc("plan", "--json").documents[:-1]}
    by_size = {name: size for name, size in freed.items() if name.startswith("sha256:")}
    assert sorted(by_size.values()) == [0, len(shelf.free)]


def test_plan_when_untagged_manifests_are_kept_then_blobs_alone_go(tmp_path: Path, database: Target) -> None:
    s = scene(tmp_path, database)
    shelf = shelve(s)
    keep = {"REGISTRY_GC_MANIFESTS_KEEPUNTAGGED": "true"}
    *found, total = s.gc("plan", "--json", **keep).documents
    assert {one["name"] for one in found} == {name for name in shelf.goes if name.startswith("sha256:")}
    assert total["keep_untagged"] is True
    assert "gc.manifests.keepuntagged is set: no manifest is deleted" in s.gc("plan", **keep).lines
    assert collect(s, keep_untagged=True) == {one["name"] for one in found}


def test_plan_when_it_is_limited_then_it_stops_there_and_says_so(tmp_path: Path, database: Target) -> None:
    s = scene(tmp_path, database)
    shelf = shelve(s)
    *found, total = s.gc("plan", "--json", "--limit", "1").documents
    assert [one["kind"] for one in found] == ["manifest", "blob"]
    assert {one["name"] for one in found} < shelf.goes
    assert (total["is_cut"], total["count"]) == (True, 2)
    assert "stopped at --limit: there is more" in s.gc("plan", "--limit", "1").lines
    assert not s.gc("plan", "--json", "--limit", "2").documents[-1]["is_cut"]
    code, _, errors = (ran := s.gc("plan", "--limit", "-1")).code, ran.output, ran.errors
    assert code == 2
    assert errors.count("\n") == 1


def test_plan_when_deletions_are_held_up_then_notes_say_by_what(tmp_path: Path, database: Target) -> None:
    s = scene(tmp_path, database)
    s.gc("pause", "--reason", "backup")
    lines = s.gc("plan", REGISTRY_STORAGE_MAINTENANCE_READONLY='{"enabled": true}').lines
    assert lines[0] == "nothing would be deleted now"
    assert lines[1].startswith("note: deletions are paused since ")
    assert lines[1].endswith(": backup")
    assert lines[2] == "note: storage.maintenance.readonly is enabled: nothing is deleted"


def planned(target: Target, page: int, limit: int | None = None) -> tuple[list[Going], Plan]:
    async def run() -> tuple[list[Going], Plan]:
        async with observing(target) as observer:
            plan = Plan(observer, PlanRules(keep_untagged=False, upload_age=None), limit, page)
            return [one async for one in plan.going()], plan

    return asyncio.run(run())


@pytest.mark.parametrize("is_tied", [True, False])
def test_plan_when_pages_are_small_then_it_is_the_same(
    tmp_path: Path, database: Target, is_tied: bool
) -> None:
    s = scene(tmp_path, database)
    shelf = shelve(s)
    s.sql(
        "INSERT INTO gc_storage_deletions (storage_key, reason, not_before)"
        " SELECT 'k' || n, 'orphan', now() FROM generate_series(1, 7) n"
    )
    if not is_tied:
        for table in ("gc_blob_review_queue", "gc_manifest_review_queue"):
            s.sql(f"UPDATE {table} SET review_after = review_after - id * interval '1 second'")
        s.sql("UPDATE gc_storage_deletions SET not_before = '-infinity' WHERE storage_key IN ('k3', 'k5')")
    whole, plan = planned(database, 5_000)
    assert {one.name for one in whole} == shelf.goes | {f"k{n}" for n in range(1, 8)}
    for page in (1, 2, 3):
        found, again = planned(database, page)
        assert found == whole
        assert (again.needless, again.sums) == (plan.needless, plan.sums)
        # Blobs that manifests of two pages need count twice: it is an upper bound.
        assert again.later_bytes >= plan.later_bytes


def test_plan_when_others_hold_locks_then_it_waits_for_nobody(tmp_path: Path, database: Target) -> None:
    s = scene(tmp_path, database)
    shelf = shelve(s)

    async def scenario() -> None:
        async with connected(database) as other, other.transaction():
            for table in ("gc_blob_review_queue", "gc_manifest_review_queue", "manifests", "blobs"):
                await other.execute(f"SELECT FROM {table} FOR UPDATE")
            found = await asyncio.to_thread(planned, database, 5_000)
            assert {one.name for one in found[0]} == shelf.goes
            # And nobody waits for it.
            assert await other.fetchval(WAITING_LOCKS) == 0

    asyncio.run(scenario())


def test_observer_when_a_statement_would_write_then_it_is_refused(database: Target) -> None:
    async def scenario() -> None:
        async with observing(database) as observer:
            with pytest.raises(Unavailable, match="read-only"):
                await observer.look(lambda c: c.all(Statement("x", text("DELETE FROM gc_receipts"))))
            # The connection is as good as before.
            assert await observer.look(lambda c: c.value(Statement("y", text("SELECT 1")))) == 1

    asyncio.run(scenario())


def test_plan_when_its_reader_goes_away_then_it_ends_without_complaint(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    shelve(s)
    s.sql(
        "INSERT INTO gc_storage_deletions (storage_key, reason, not_before)"
        " SELECT 'k' || n, 'orphan', now() FROM generate_series(1, 3000) n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "gc", "plan", s.config],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("KIND")
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(20) == 1
    process.stderr.close()
    assert errors == ""
