"""For each rule of the locking protocol: a schedule that it survives, and what the same schedule loses without it.

`README.md` has the table of races. A twin is the database's function with the rule cut out of its own text; a cut whose
text is not there fails, so that no twin outlives its rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

from tests.interleavings.theatre import Cut, Directed

if TYPE_CHECKING:
    from tests.interleavings.play import Playhouse

Part = tuple[int, str | None]


@dataclass(frozen=True)
class Twin:
    """A rule, and how it is missed: who plays, in which order, on what, and what is found then."""

    rule: str
    cuts: tuple[Cut, ...]
    actors: tuple[str, ...]
    parts: tuple[Part, ...]
    state: str
    found: str
    grace: bool = True


BLOBS, MANIFESTS = "gc_collect_blobs", "gc_collect_manifests"
UNLOCKED_BLOBS: Final = Cut(BLOBS, "FOR UPDATE SKIP LOCKED) AS held", ") AS held")
UNLOCKED_MANIFESTS: Final = Cut(MANIFESTS, "FOR UPDATE SKIP LOCKED) AS held", ") AS held")
DELETES = "WITH gone AS"
LOOKS_AT_BLOBS, LOOKS_AT_MANIFESTS = "v_unused := gc_unused_blobs", "SELECT unused.repositories"
NO_LATER_BLOB: Final = Cut(
    "gc_unused_blobs",
    "q.digest = d AND q.review_after > now()",
    "q.digest = d AND false AND q.review_after > now()",
)
NO_LATER_MANIFEST: Final = Cut(
    "gc_unused_manifests", "AND q.review_after > now() OFFSET 0", "AND false OFFSET 0"
)
SETTLES: Final = "DELETE FROM gc_manifest_review_queue AS q WHERE q.id = ANY (v_tasks || v_settled)"
SETTLED_LAST: Final = Cut(
    MANIFESTS,
    SETTLES,
    "SELECT array_agg(q.id) INTO v_settled FROM gc_manifest_review_queue AS q WHERE q.review_after <= now();\n"
    + SETTLES,
)

TWINS: Final = (
    # The collector's locks
    Twin(
        "a collector holds the blobs that it looks at",
        (UNLOCKED_BLOBS,),
        ("collect_blobs", "head"),
        ((0, DELETES), (1, None)),
        "blobs",
        "promised and is gone",
    ),
    Twin(
        "a collector holds the blobs that it looks at: re-push",
        (UNLOCKED_BLOBS,),
        ("collect_blobs", "push_blob"),
        ((0, DELETES), (1, None)),
        "blobs",
        "promised and is gone",
    ),
    Twin(
        "a collector holds the blobs that it looks at: the textbook race, where a foreign key is left to say no",
        (UNLOCKED_BLOBS,),
        ("collect_blobs", "put_manifest"),
        ((0, DELETES), (1, None)),
        "blobs",
        "ForeignKeyViolation",
    ),
    Twin(
        "a collector holds the manifests that it looks at",
        (UNLOCKED_MANIFESTS,),
        ("collect_manifests", "tag"),
        ((0, DELETES), (1, None)),
        "untagged",
        "promised and is gone",
    ),
    Twin(
        "a collector holds the manifests that it looks at: an index comes",
        (UNLOCKED_MANIFESTS,),
        ("collect_manifests", "put_index"),
        ((0, DELETES), (1, None)),
        "untagged",
        "ForeignKeyViolation",
    ),
    # The order of looking and locking
    Twin(
        "what needs a blob is looked at after the lock",
        (
            Cut(
                BLOBS,
                "SELECT coalesce(array_agg(held.digest)",
                "v_unused := gc_unused_blobs(v_digests);\nSELECT coalesce(array_agg(held.digest)",
            ),
            Cut(
                BLOBS,
                "v_unused := gc_unused_blobs(v_held);",
                "v_unused := array(SELECT d FROM unnest(v_unused) AS d WHERE d = ANY (v_held));",
            ),
        ),
        ("collect_blobs", "head"),
        ((0, "SELECT coalesce(array_agg(held.digest)"), (1, None)),
        "blobs",
        "promised and is gone",
    ),
    Twin(
        "what needs a manifest is looked at after the lock",
        (
            Cut(
                MANIFESTS,
                "SELECT coalesce(array_agg(held.repository_id)",
                "SELECT unused.repositories, unused.manifests INTO v_unused_repositories, v_unused\n"
                "FROM gc_unused_manifests(v_repositories, v_manifests) AS unused;\n"
                "SELECT coalesce(array_agg(held.repository_id)",
            ),
            Cut(
                MANIFESTS,
                "FROM gc_unused_manifests(v_held_repositories, v_held) AS unused",
                "FROM (SELECT v_unused_repositories AS repositories, v_unused AS manifests) AS unused",
            ),
        ),
        ("collect_manifests", "tag"),
        ((0, "SELECT coalesce(array_agg(held.repository_id)"), (1, None)),
        "untagged",
        "promised and is gone",
    ),
    Twin(
        "the reviews of a blob that are answered are chosen before the look",
        (
            Cut(BLOBS, "v_unused := gc_unused_blobs(v_held);", ""),
            Cut(
                BLOBS,
                "SELECT coalesce(array_agg(other.id), '{}') INTO v_settled",
                "v_unused := gc_unused_blobs(v_held);\nSELECT coalesce(array_agg(other.id), '{}') INTO v_settled",
            ),
        ),
        ("delete_manifest", "collect_blobs"),
        ((1, "INTO v_settled"), (0, None)),
        "tagged",
        "leaked",
        grace=False,
    ),
    Twin(
        "the reviews of a manifest that are answered are chosen before the look",
        (
            Cut(
                MANIFESTS,
                "SELECT coalesce(array_agg(other.id), '{}') INTO v_settled",
                "IF NOT p_keep_untagged THEN\n"
                "SELECT unused.repositories, unused.manifests INTO v_unused_repositories, v_unused\n"
                "FROM gc_unused_manifests(v_held_repositories, v_held) AS unused;\nEND IF;\n"
                "SELECT coalesce(array_agg(other.id), '{}') INTO v_settled",
            ),
            Cut(
                MANIFESTS,
                "FROM gc_unused_manifests(v_held_repositories, v_held) AS unused;\n    END IF;\n    IF",
                "FROM (SELECT v_unused_repositories AS repositories, v_unused AS manifests) AS unused;\nEND IF;\nIF",
            ),
        ),
        ("untag", "collect_manifests"),
        ((1, "INTO v_settled"), (0, None)),
        "tagged",
        "leaked",
        grace=False,
    ),
    *(
        Twin(
            f"the reviews that are settled do not include those of the batch's own making: {state}",
            (SETTLED_LAST,),
            ("collect_manifests",),
            (),
            state,
            "leaked",
            grace=False,
        )
        for state in ("indexed", "signed")
    ),
    # A later review
    Twin(
        "a later review of a blob keeps it",
        (NO_LATER_BLOB,),
        ("head", "collect_blobs"),
        ((0, None),),
        "blobs",
        "promised and is gone",
    ),
    Twin(
        "a later review of a manifest keeps it",
        (NO_LATER_MANIFEST,),
        ("head_manifest", "collect_manifests"),
        ((0, None),),
        "untagged",
        "promised and is gone",
    ),
    # The clients' locks
    Twin(
        "HEAD holds the blob",
        (Cut("keep_blob", " FOR KEY SHARE"),),
        ("head", "collect_blobs"),
        ((0, "PERFORM gc_touch_blob"), (1, None)),
        "blobs",
        "promised and is gone",
    ),
    Twin(
        "HEAD holds the manifest",
        (Cut("keep_manifest", " FOR KEY SHARE"),),
        ("head_manifest", "collect_manifests"),
        ((0, "PERFORM gc_touch_manifest"), (1, None)),
        "untagged",
        "promised and is gone",
    ),
    Twin(
        "a re-push holds the blob that is there",
        (Cut("finish_upload", " FOR KEY SHARE"),),
        ("push_blob", "collect_blobs"),
        ((0, "RETURN true"), (1, None)),
        "blobs",
        "promised and is gone",
    ),
    Twin(
        "a mount holds the blob",
        (Cut("mount_blob", " FOR KEY SHARE"),),
        ("mount", "collect_blobs"),
        ((0, "INSERT INTO repository_blobs"), (1, None)),
        "blobs",
        "ForeignKeyViolation",
    ),
    Twin(
        "a manifest PUT holds its blobs before it looks at their links",
        (Cut("put_manifest", "WHERE b.digest = wanted.d FOR KEY SHARE", "WHERE b.digest = wanted.d"),),
        ("put_manifest", "collect_blobs"),
        ((0, "INSERT INTO manifests"), (1, None)),
        "blobs",
        "ForeignKeyViolation",
    ),
    Twin(
        "a manifest PUT holds its blobs against an unlink",
        (Cut("put_manifest", "WHERE b.digest = wanted.d FOR KEY SHARE", "WHERE b.digest = wanted.d"),),
        ("tag", "unlink"),
        ((0, "INSERT INTO manifests"), (1, None)),
        "blobs",
        "has no link",
    ),
    Twin(
        "an unlink holds the blob",
        (Cut("unlink_blob", " FOR UPDATE"),),
        ("unlink", "tag"),
        ((0, "DELETE FROM repository_blobs"), (1, None)),
        "blobs",
        "has no link",
    ),
    Twin(
        "an index PUT holds its children",
        (
            Cut(
                "put_manifest",
                "p_digest || p_subject_digest)\n        ORDER BY id FOR KEY SHARE",
                "p_digest || p_subject_digest)",
            ),
        ),
        ("put_index", "collect_manifests"),
        ((0, "INSERT INTO manifests"), (1, None)),
        "untagged",
        "not what its bytes say",
    ),
    Twin(
        "a referrer's PUT holds its subject",
        (Cut("put_manifest", "p_digest || p_subject_digest)", "p_digest)"),),
        ("delete_manifest", "put_signature", "collect_manifests"),
        ((0, "END"), (1, None), (2, None)),
        "untagged",
        "leaked",
        grace=False,
    ),
    Twin(
        "a manifest's deletion holds it against an index that comes",
        (Cut("delete_manifest", "AND digest = p_digest FOR UPDATE", "AND digest = p_digest"),),
        ("delete_manifest", "put_index"),
        ((0, "PERFORM 1 FROM tags"), (1, None)),
        "untagged",
        "ForeignKeyViolation",
    ),
    Twin(
        "a manifest PUT holds the manifest that is there",
        (
            Cut(
                "put_manifest",
                "p_digest || p_subject_digest)\n        ORDER BY id FOR KEY SHARE",
                "p_digest || p_subject_digest)",
            ),
            Cut("put_manifest", "AND digest = p_digest FOR KEY SHARE", "AND digest = p_digest"),
        ),
        ("put_manifest", "collect_manifests"),
        ((0, "END"), (1, None)),
        "untagged",
        "promised and is gone",
    ),
    # Immutable tags
    Twin(
        "a push does not move an immutable tag that has come meanwhile",
        (Cut("put_manifest", " AND t.name <> ALL (p_immutable)"),),
        ("put_fixed", "put_fixed_two"),
        ((0, "INSERT INTO manifests"), (1, None), (0, None)),
        "blobs",
        "promised and is gone",
    ),
    Twin(
        "a push whose immutable tag has come meanwhile is undone",
        (Cut("put_manifest", "v_new < cardinality(p_immutable)", "false"),),
        ("put_fixed", "put_fixed_two"),
        ((0, "INSERT INTO manifests"), (1, None), (0, None)),
        "blobs",
        "promised and is gone",
    ),
    Twin(
        "a push looks for its immutable tags before it writes",
        (Cut("put_manifest", "immutable_tags IS NOT NULL", "false"),),
        ("put_fixed_two",),
        ((0, None),),
        "tagged",
        "SerializationError",
    ),
    # Touches
    Twin(
        "HEAD touches the blob",
        (Cut("keep_blob", "PERFORM gc_touch_blob(p_digest);"),),
        ("head", "collect_blobs"),
        ((0, None),),
        "blobs",
        "promised and is gone",
    ),
    Twin(
        "HEAD touches the manifest",
        (Cut("keep_manifest", "PERFORM gc_touch_manifest(p_repository, p_manifest);"),),
        ("head_manifest", "collect_manifests"),
        ((0, None),),
        "untagged",
        "promised and is gone",
    ),
    Twin(
        "a mount touches the blob",
        (Cut("mount_blob", "PERFORM gc_touch_blob(p_digest);"),),
        ("mount", "collect_blobs"),
        ((0, None),),
        "blobs",
        "promised and is gone",
    ),
    Twin(
        "a re-push touches the blob",
        (Cut("finish_upload", "PERFORM gc_touch_blob(p_digest);"),),
        ("push_blob", "collect_blobs"),
        ((0, None),),
        "blobs",
        "promised and is gone",
    ),
    Twin(
        "a manifest PUT touches the manifest that is there",
        (Cut("put_manifest", "PERFORM gc_touch_manifest(v_repository, v_manifest);", "NULL;"),),
        ("put_manifest", "collect_manifests"),
        ((0, None),),
        "untagged",
        "promised and is gone",
    ),
    # Waiting for nobody
    Twin(
        "a collector of blobs waits for nobody",
        (Cut(BLOBS, "FOR UPDATE SKIP LOCKED) AS held", "FOR UPDATE) AS held"),),
        ("head", "collect_blobs"),
        ((0, "RETURN true"), (1, None)),
        "blobs",
        "collect_blobs waited for head",
    ),
    Twin(
        "a collector of manifests waits for nobody",
        (Cut(MANIFESTS, "FOR UPDATE SKIP LOCKED) AS held", "FOR UPDATE) AS held"),),
        ("head_manifest", "collect_manifests"),
        ((0, "RETURN true"), (1, None)),
        "untagged",
        "collect_manifests waited for head_manifest",
    ),
    Twin(
        "a collector takes the reviews that nobody has",
        (
            Cut(
                BLOBS,
                "ORDER BY q.review_after LIMIT p_limit FOR UPDATE SKIP LOCKED",
                "ORDER BY q.review_after LIMIT p_limit FOR UPDATE",
            ),
        ),
        ("collect_blobs", "collect_blobs"),
        ((0, DELETES), (1, None)),
        "blobs",
        "collect_blobs waited for collect_blobs",
    ),
    Twin(
        "a collector holds the reviews that it takes",
        (
            Cut(
                BLOBS,
                "ORDER BY q.review_after LIMIT p_limit FOR UPDATE SKIP LOCKED",
                "ORDER BY q.review_after LIMIT p_limit",
            ),
        ),
        ("collect_blobs", "collect_blobs"),
        ((0, DELETES), (1, None)),
        "blobs",
        "collect_blobs waited for collect_blobs",
    ),
    Twin(
        "collectors that share a blob through two reviews pass each other over",
        (
            Cut(BLOBS, "FOR UPDATE SKIP LOCKED) AS held", "FOR UPDATE) AS held"),
            Cut(BLOBS, "FOR UPDATE SKIP LOCKED) AS other", "FOR UPDATE) AS other"),
        ),
        ("collect_one_blob", "collect_one_blob"),
        ((0, "array_agg(held"), (1, "array_agg(held"), (0, "INTO v_settled"), (1, None)),
        "suspected twice",
        "DeadlockDetected",
    ),
    Twin(
        "a pause waits for the batches that are under way",
        (
            Cut(
                "gc_may_delete",
                "NOT pg_try_advisory_xact_lock_shared(hashtext('registry gc_control'))",
                "false",
            ),
        ),
        ("collect_blobs", "pause"),
        ((0, DELETES), (1, None), (0, None)),
        "blobs",
        "promised and is gone",
    ),
    # Sessions
    Twin(
        "an upload's row goes first",
        (
            Cut(
                "finish_upload",
                "DELETE FROM blob_uploads WHERE id = p_upload AND repository_id = p_repository AND writer = p_writer\n"
                "    RETURNING storage_key INTO v_key;",
                "SELECT storage_key INTO v_key FROM blob_uploads\n"
                "WHERE id = p_upload AND repository_id = p_repository AND writer = p_writer;",
            ),
            Cut(
                "finish_upload", "RETURN true;", "DELETE FROM blob_uploads WHERE id = p_upload;\nRETURN true;"
            ),
        ),
        ("push_blob", "purge_upload", "remove_objects"),
        ((0, "INSERT INTO repository_blobs"), (1, None), (2, None), (0, None)),
        "nothing",
        "removed, and still named",
    ),
    Twin(
        "an expirer waits for nobody",
        (Cut("gc_expire_uploads", "FOR UPDATE SKIP LOCKED"),),
        ("push_blob", "purge_upload"),
        ((0, "INSERT INTO repository_blobs"), (1, None)),
        "nothing",
        "purge_upload waited for push_blob",
    ),
)


@pytest.mark.parametrize("twin", [pytest.param(twin, id=twin.rule) for twin in TWINS])
def test_schedule_when_the_rule_holds_then_all_is_right(playhouse: Playhouse, twin: Twin) -> None:
    playhouse.play(twin.actors, Directed(*twin.parts), state=twin.state, grace=twin.grace)


@pytest.mark.parametrize("twin", [pytest.param(twin, id=twin.rule) for twin in TWINS])
def test_schedule_when_the_rule_is_cut_out_then_the_loss_is_found(playhouse: Playhouse, twin: Twin) -> None:
    with pytest.raises(AssertionError, match=twin.found):
        playhouse.play(twin.actors, Directed(*twin.parts), *twin.cuts, state=twin.state, grace=twin.grace)
