"""`registry gc explain`: why something is kept, when it goes, what became of it. The collectors do what it says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from app.domain.digest import Digest
from app.domain.names import RepositoryName
from app.services import gc_explain
from app.store.observing import observing
from tests.gcview.support import collect, packed, scene, shelve
from tests.server.test_cli import call
from tests.support.registry import digest_of, image, index

if TYPE_CHECKING:
    from pathlib import Path

    from app.store.engine import Target

KEEP = {"REGISTRY_GC_MANIFESTS_KEEPUNTAGGED": "true"}
ALL_DUE = """
    UPDATE gc_blob_review_queue SET review_after = now() - interval '1 minute';
    UPDATE gc_manifest_review_queue SET review_after = now() - interval '1 minute'
"""


def verdict(found: Any, kind: str = "manifest") -> dict[str, Any]:
    [one] = found["manifests"] if kind == "manifest" else [found["blob"]]
    return one["verdict"]


def test_explain_when_a_manifest_is_kept_then_it_says_what_holds_it(tmp_path: Path, database: Target) -> None:
    s = scene(tmp_path, database)
    shelf = shelve(s)
    expected = {
        "a/b:multi": "kept: tag `multi` names it.",
        f"a/b@{shelf.tagged.digest()}": "kept: 3 tags name it, `moved` among them.",
        f"a/b@{shelf.child.digest()}": f"kept: index {shelf.index.digest()} has it as a child.",
        f"a/b@{shelf.referrer.digest()}": f"kept: its subject {shelf.tagged.digest()} is there.",
    }
    for what, sentence in expected.items():
        ran = s.gc("explain", what)
        assert (ran.code, ran.errors) == (0, ""), what
        assert ran.lines[-1] == sentence
    lines = s.gc("explain", "a/b:v1").lines
    assert lines[0] == f"manifest a/b@{shelf.tagged.digest()}"
    assert "  tags       moved, v1, v2" in lines
    assert f"  referrers  {shelf.referrer.digest()}" in lines
    assert any(line.startswith("  reviews    manifest_upload, due ") for line in lines)


def test_explain_when_a_manifest_is_unused_then_it_says_when_it_goes(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    shelf = shelve(s)
    ran = s.gc("explain", f"a/b@{shelf.untagged.digest()}")
    assert ran.code == 0
    assert ran.lines[-1].startswith("goes at its next review, due since ")
    assert ran.lines[-1].endswith(" (2 h ago): nothing needs it.")
    # A later review decides.
    touched = s.gc("explain", f"a/b@{shelf.touched.digest()}").lines
    assert touched[-1].startswith("goes at its next review, due 2")
    assert "(in 2 h 59 min)" in touched[-1] or "(in 3 h)" in touched[-1]
    orphan = s.gc("explain", f"a/b@{shelf.orphan.digest()}").lines
    assert f"  subject    {digest_of(b'nothing')}, which is not there" in orphan
    s.gc("pause")
    paused = s.gc("explain", f"a/b@{shelf.untagged.digest()}", REGISTRY_GC_DISABLED="true").lines
    assert paused[-2].startswith("note: deletions are paused since ")
    assert paused[-1].startswith("note: gc.disabled is set")


def test_explain_when_untagged_manifests_are_kept_then_the_setting_is_the_reason(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    shelf = shelve(s)
    what = f"a/b@{shelf.untagged.digest()}"
    assert s.gc("explain", what, **KEEP).lines[-1] == (
        "kept: gc.manifests.keepuntagged keeps what nothing names."
    )
    # It is one reason where there is none else, and none for a blob.
    assert s.gc("explain", "a/b:multi", **KEEP).lines[-1] == "kept: tag `multi` names it."
    assert s.gc("explain", digest_of(shelf.free), **KEEP).lines[-1].startswith("goes ")
    collect(s, keep_untagged=True)
    assert s.gc("explain", what, **KEEP).code == 0
    assert s.gc("explain", what).code == 3


def test_explain_when_a_blob_is_asked_for_then_it_says_who_needs_and_links_it(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    shelf = shelve(s)
    s.act(lambda actor: actor.push("other", image(b"shared", config=b"shared"), "t"))
    found = s.gc("explain", "--json", digest_of(b"shared")).json
    assert found["blob"]["links"] == {"shown": ["a/b", "other"], "count": 2, "is_least": False}
    users = found["blob"]["manifests"]
    # Once each, though the last has it as layer and as config.
    assert users["count"] == 4
    assert {(user["repository"], user["digest"]) for user in users["shown"]} == {
        ("a/b", shelf.tagged.digest()),
        ("a/b", shelf.child.digest()),
        ("a/b", shelf.untagged.digest()),
        ("other", image(b"shared", config=b"shared").digest()),
    }
    assert verdict(found, "blob")["outcome"] == "kept"
    lines = s.gc("explain", digest_of(b"signature")).lines
    assert lines[0] == f"blob {digest_of(b'signature')}"
    assert lines[-1] == f"kept: a/b@{shelf.referrer.digest()} needs it."
    assert s.gc("explain", f"a/b@{digest_of(b'signature')}").lines[-1] == lines[-1]

    elsewhere = s.gc("explain", f"other@{digest_of(shelf.free)}").lines
    assert elsewhere[-2] == "other has no link to it, so that there it does not exist."
    assert elsewhere[-1].startswith("goes at its next review")
    lost = s.gc("explain", digest_of(shelf.lost)).lines
    assert "  object     lost: the blob counts as absent until somebody pushes it again" in lost


def test_explain_when_there_are_many_then_ten_are_told_and_how_many_there_are(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    tags = [f"v{n:02}" for n in range(12)]
    pushed = image(b"one")
    s.act(lambda actor: actor.push("a", pushed, *tags))
    s.sql(
        "INSERT INTO gc_manifest_review_queue (repository_id, manifest_id, review_after, event)"
        " SELECT repository_id, id, now() - n * interval '1 hour', 'touch' FROM manifests, generate_series(1, 30) n"
    )
    ran = s.gc("explain", "a:v03")
    shown = ", ".join(tags[:10])
    assert f"  tags       {shown}, and more: 12 in all" in ran.lines
    assert "             and more: 31 in all" in ran.lines
    assert ran.lines[-1] == "kept: 12 tags name it, `v00` among them."
    found = s.gc("explain", "--json", "a:v03").json
    assert found["manifests"][0]["tags"] == {"shown": tags[:10], "count": 12, "is_least": False}
    assert len(found["manifests"][0]["reviews"]["pending"]["shown"]) == 10


def test_explain_when_every_thing_is_asked_for_then_the_collectors_do_what_it_said(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    shelf = shelve(s)
    s.sql(ALL_DUE)
    blobs = [Digest.parse(row["text"]) for row in s.rows("SELECT gc_digest_text(digest) AS text FROM blobs")]

    async def look() -> dict[str, str]:
        outcomes: dict[str, str] = {}
        async with observing(database) as observer:
            for one in shelf.manifests:
                name, digest = RepositoryName("a/b"), Digest.parse(one.digest())
                found = await gc_explain.explain(observer, name, digest, keep_untagged=False)
                outcomes[f"a/b@{digest}"] = found.manifests[0].verdict.outcome
            for digest in blobs:
                found = await gc_explain.explain(observer, None, digest, keep_untagged=False)
                assert found.blob is not None
                outcomes[str(digest)] = found.blob.verdict.outcome
        return outcomes

    outcomes = asyncio.run(look())
    assert set(outcomes.values()) == {"kept", "goes"}
    gone = collect(s)
    assert {what for what, outcome in outcomes.items() if outcome == "goes"} == gone
    assert len(gone) == 6


def test_explain_when_something_unused_has_no_review_then_the_exit_code_says_so(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    shelf = shelve(s)
    s.sql("DELETE FROM gc_blob_review_queue", "DELETE FROM gc_manifest_review_queue")
    for what in (f"a/b@{shelf.untagged.digest()}", digest_of(shelf.free)):
        ran = s.gc("explain", what)
        assert ran.code == 3
        assert "unused, but no review is pending: it will not go by itself." in ran.lines
        assert s.gc("explain", "--json", what).code == 3
    assert s.gc("explain", "a/b:v1").code == 0


def test_explain_when_something_is_gone_then_its_receipt_tells_when_and_why(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    shelf = shelve(s)
    collect(s)
    manifest = s.gc("explain", f"a/b@{shelf.untagged.digest()}")
    assert manifest.code == 0
    assert manifest.lines[1] == "deleted:"
    assert manifest.lines[2].startswith("  manifest of a/b, 2")
    assert manifest.lines[3].startswith("    why        manifest_upload 2")
    blob = s.gc("explain", digest_of(shelf.free)).lines
    assert ", not yet removed: due 2" in blob[-1]
    assert "    object     had been lost" in s.gc("explain", digest_of(shelf.lost)).lines
    # Another repository's receipt is none of this one's.
    s.act(lambda actor: actor.push("other", image(b"x"), "t"))
    assert s.gc("explain", f"other@{shelf.untagged.digest()}").code == 1

    s.sql("SELECT gc_settle_tombstones((SELECT array_agg(storage_key) FROM gc_storage_deletions))")
    assert ", removed 2" in s.gc("explain", digest_of(shelf.free)).lines[-1]
    [receipt] = s.gc("explain", "--json", digest_of(shelf.free)).json["receipts"]
    assert receipt["bytes"] == len(shelf.free)
    assert receipt["removed_at"] is not None
    # Pushed again, it is there, and what was before is told all the same.
    s.act(lambda actor: actor.push_blob("a/b", shelf.free))
    again = s.gc("explain", digest_of(shelf.free)).lines
    assert again[0] == f"blob {digest_of(shelf.free)}"
    assert "deleted before:" in again


def test_explain_when_a_digest_is_in_several_repositories_then_each_is_explained(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    pushed = image(b"same")
    for name in ("one", "two"):
        s.act(lambda actor, name=name: actor.push(name, pushed, *(["t"] if name == "one" else [])))
    found = s.gc("explain", "--json", pushed.digest()).json
    assert {one["repository"]: one["verdict"]["outcome"] for one in found["manifests"]} == {
        "one": "kept",
        "two": "goes",
    }
    for n in range(10):
        s.act(lambda actor, n=n: actor.push(f"more/{n}", pushed, "t"))
    lines = s.gc("explain", pushed.digest()).lines
    assert sum(line.startswith("manifest ") for line in lines) == 10
    assert "12 repositories have this manifest, of which these are some" in lines


def test_explain_when_there_is_no_such_thing_then_one_sentence_says_so(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    s.act(lambda actor: actor.push("a", image(b"x"), "t"))
    nothing = digest_of(b"nothing")
    expected = {
        "b:t": "there is no repository b",
        f"b@{nothing}": "there is no repository b",
        "a:u": "a has no tag u",
        f"a@{nothing}": f"a has no manifest {nothing}, and there is no such blob",
        nothing: f"there is no manifest and no blob {nothing}",
        "sha1:x": "there is no repository sha1",
    }
    for what, sentence in expected.items():
        ran = s.gc("explain", what)
        assert (ran.code, ran.lines, ran.errors) == (1, [sentence], ""), what


@pytest.mark.parametrize(
    "what",
    [
        "", "a", "/", ":", "@", "a@", "@sha256:" + "0" * 64, ":tag", "A:tag", "a/:tag", "../a:tag", "a:.tag",
        "a: b", "a:" + "t" * 129, "a" * 256 + ":t", "a@sha256:12", "a@sha256:" + "G" * 64, "a@md5:00", "sha256:",
        "sha256:" + "0" * 63, "sha512:" + "0" * 64, "a:t@sha256:" + "0" * 64, "a\x1b[31m:t", "a:t\n", "a:\u202et",
        "a\x00:t", "a'; DROP TABLE blobs; --:t", "ä:t", "a@sha256:" + "\u0660" * 64, "--", "a:t\udcff",
    ],
)  # fmt: skip
def test_explain_when_the_name_is_none_then_one_printable_sentence_says_so(what: str) -> None:
    arguments = ("--", what) if what.startswith("-") else (what,)
    code, output, errors = call("gc", "explain", *arguments)
    assert (code, output) == (2, "")
    assert errors.startswith("registry: Invalid value for 'WHAT': ")
    assert errors.endswith("\n")
    assert errors[:-1].isprintable()


def test_index_when_an_index_has_no_children_left_then_explain_still_answers(
    tmp_path: Path, database: Target
) -> None:
    """An index names no blobs at all."""
    s = scene(tmp_path, database)
    child = image(b"child")
    s.act(lambda actor: actor.push("a", child))
    s.act(lambda actor: actor.put("a", index(child)))
    s.sql(f"UPDATE manifests SET created_at = '-infinity' WHERE digest <> {packed(child.payload)}")
    lines = s.gc("explain", f"a@{index(child).digest()}").lines
    assert "  pushed     -infinity (-infinity)" in lines
    assert any("it names 0.0 MiB" in line for line in lines)
