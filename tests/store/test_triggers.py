"""Who becomes suspect, and when: the story that opens db/schema/40_gc_triggers.sql, event by event.

Every event has a delay of its own here, so that a row with the wrong event or the wrong delay is seen.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

from app.domain.digest import Digest
from app.domain.names import Tag
from app.store import blobs, manifests, repositories
from tests.store.scenes import Actor, digests, manifest_digest, name_of, play
from tests.support.postgres import connected
from tests.support.registry import descriptor, image, index

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from app.store.engine import Target
    from tests.store.scenes import Stage
    from tests.support.registry import Image

EVENTS: Final = (
    "blob_upload", "manifest_upload", "manifest_delete", "layer_delete", "manifest_list_delete", "tag_delete",
    "tag_switch", "subject_delete", "touch", "sweep",
)  # fmt: skip
DELAYS: Final = {event: timedelta(hours=hours) for hours, event in enumerate(EVENTS, start=20)}
JITTER: Final = timedelta(minutes=1)
ONE = image(b"a", b"b", b"a", config=b"{}")
TWO = image(b"b", config=b"{}")

Expected = set[tuple[str, Any]]


@asynccontextmanager
async def suspects(actor: Actor, *expected: tuple[str, Any]) -> AsyncGenerator[None]:
    """What happens inside enqueues exactly these (event, blob's content or manifest), due when it should be."""
    for queue in ("gc_blob_review_queue", "gc_manifest_review_queue"):
        await actor.value(f"DELETE FROM {queue}")
    wanted = sorted([(event, await subject_of(actor, subject)) for event, subject in expected], key=repr)
    yield
    rows = await actor.raw.fetch(
        "SELECT event, digest AS subject, review_after - created_at AS delay, review_count FROM gc_blob_review_queue"
    ) + await actor.raw.fetch(
        "SELECT event, manifest_id AS subject, review_after - created_at AS delay, review_count,"
        " repository_id FROM gc_manifest_review_queue"
    )
    assert sorted([(row["event"], row["subject"]) for row in rows], key=repr) == wanted
    for row in rows:
        assert timedelta(0) <= row["delay"] - DELAYS[row["event"]] <= JITTER, row
        assert row["review_count"] == 0
    queued = {row["repository_id"] for row in rows if isinstance(row["subject"], int)}
    assert queued <= {await actor.value("SELECT id FROM repositories WHERE path = 'a'")}


async def subject_of(actor: Actor, subject: Any) -> Any:
    if isinstance(subject, bytes):
        return Digest.of(subject).packed
    return subject if isinstance(subject, int) else await actor.manifest_id(subject)


def follow(database: Target, story: Callable[[Actor, Stage], Awaitable[None]]) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        await set_delays(actor)
        await story(actor, s)

    play(database, scene)


async def set_delays(actor: Actor) -> None:
    for event, delay in DELAYS.items():
        await actor.value("UPDATE gc_review_after_defaults SET value = $2 WHERE event = $1", event, delay)


async def repository(actor: Actor) -> int:
    return await actor.value("SELECT id FROM repositories WHERE path = 'a'")


async def delete(actor: Actor, pushed: Image) -> None:
    outcome, _ = await manifests.delete(actor.c, await repository(actor), manifest_digest(pushed))
    assert outcome == "deleted"
    await repositories.settle_has_tags(actor.c, await repository(actor))


def with_subject(subject: Image, name: str) -> Image:
    return image(
        config=b"{}", subject=descriptor(subject.payload, subject.media_type), annotations={"name": name}
    )


def test_defaults_when_the_schema_is_new_then_every_event_waits_a_day(database: Target) -> None:
    async def scenario() -> None:
        async with connected(database) as connection:
            rows = await connection.fetch("SELECT event, value FROM gc_review_after_defaults")
            assert {row[0]: row[1] for row in rows} == dict.fromkeys(EVENTS, timedelta(hours=24))

    asyncio.run(scenario())


# Blobs


def test_blob_when_it_appears_then_it_is_suspect_once(database: Target) -> None:
    async def story(actor: Actor, s: Stage) -> None:
        async with suspects(actor, ("blob_upload", b"a")):
            await actor.push_blob("a", b"a")
        async with suspects(actor):  # nothing pends: the first queue row was removed by the check above
            await actor.push_blob("b", b"a")

    follow(database, story)


def test_blobs_when_several_appear_in_one_statement_then_each_is_suspect_once(database: Target) -> None:
    async def story(actor: Actor, s: Stage) -> None:
        contents = (b"a", b"b", b"c")
        async with suspects(actor, *(("blob_upload", content) for content in contents)):
            await actor.value(
                "INSERT INTO blobs (digest, size, storage_key)"
                " SELECT d, 1, encode(d, 'hex') FROM unnest($1::bytea[]) AS d",
                [Digest.of(content).packed for content in contents],
            )

    follow(database, story)


def test_blob_when_its_link_goes_then_nobody_is_suspect(database: Target) -> None:
    """It was suspect since its upload, or is when the last layer goes; a link alone keeps nothing alive."""

    async def story(actor: Actor, s: Stage) -> None:
        digest = await actor.push_blob("a", b"a")
        async with suspects(actor):
            assert await blobs.unlink(actor.c, await repository(actor), digest) == "removed"

    follow(database, story)


# Manifests


def test_manifest_when_it_appears_then_it_is_suspect_and_its_blobs_are_not(database: Target) -> None:
    async def story(actor: Actor, s: Stage) -> None:
        await actor.push_blobs("a", ONE)
        await actor.value("DELETE FROM gc_blob_review_queue")
        await actor.put("a", ONE, "t")
        manifest_id = await actor.manifest_id(ONE)
        rows = await actor.raw.fetch("SELECT event, manifest_id FROM gc_manifest_review_queue")
        assert [tuple(row) for row in rows] == [("manifest_upload", manifest_id)]
        assert await s.count("gc_blob_review_queue") == 0
        # Once more, and nothing pends: nothing to enqueue.
        async with suspects(actor):
            await actor.put("a", ONE, "t")

    follow(database, story)


def test_manifest_when_it_is_deleted_then_its_config_and_each_layer_are_suspect_once(
    database: Target,
) -> None:
    async def story(actor: Actor, s: Stage) -> None:
        await actor.push("a", ONE)
        async with suspects(
            actor, ("layer_delete", b"a"), ("layer_delete", b"b"), ("manifest_delete", b"{}")
        ):
            await delete(actor, ONE)

    follow(database, story)


def test_manifests_when_several_are_deleted_in_one_statement_then_what_they_shared_is_suspect_once(
    database: Target,
) -> None:
    async def story(actor: Actor, s: Stage) -> None:
        await actor.push("a", ONE)
        await actor.push("a", TWO)
        async with suspects(
            actor, ("layer_delete", b"a"), ("layer_delete", b"b"), ("manifest_delete", b"{}")
        ):
            await actor.value("DELETE FROM manifests")

    follow(database, story)


def test_layers_when_they_are_deleted_in_one_statement_then_each_digest_is_suspect_once(
    database: Target,
) -> None:
    async def story(actor: Actor, s: Stage) -> None:
        await actor.push("a", ONE)
        await actor.push("a", TWO)
        async with actor.transaction(), suspects(actor, ("layer_delete", b"a"), ("layer_delete", b"b")):
            await actor.value("DELETE FROM layers")
        await actor.value("DELETE FROM manifests")

    follow(database, story)


def test_config_when_it_is_a_layer_as_well_then_it_is_suspect_for_both_reasons(database: Target) -> None:
    async def story(actor: Actor, s: Stage) -> None:
        artifact = image(b"{}", config=b"{}")
        await actor.push("a", artifact)
        async with suspects(actor, ("layer_delete", b"{}"), ("manifest_delete", b"{}")):
            await delete(actor, artifact)

    follow(database, story)


def test_index_when_it_is_deleted_then_each_child_is_suspect_once(database: Target) -> None:
    async def story(actor: Actor, s: Stage) -> None:
        await actor.push("a", ONE)
        await actor.push("a", TWO)
        parent = index(ONE, TWO, ONE)
        await actor.push("a", parent)
        async with suspects(actor, ("manifest_list_delete", ONE), ("manifest_list_delete", TWO)):
            await delete(actor, parent)

    follow(database, story)


def test_index_with_blobs_when_it_is_deleted_then_the_blobs_are_suspect(database: Target) -> None:
    """BuildKit's cache index lists blobs as if they were manifests."""

    async def story(actor: Actor, s: Stage) -> None:
        cache = index(manifests=[descriptor(b"a", "application/vnd.buildkit.cacheconfig.v0")])
        await actor.push_blob("a", b"a")
        await actor.push("a", cache, "t")
        async with suspects(actor, ("layer_delete", b"a"), ("tag_delete", cache)):
            await delete(actor, cache)

    follow(database, story)


def test_subject_when_it_is_deleted_then_each_referrer_of_that_repository_is_suspect(
    database: Target,
) -> None:
    async def story(actor: Actor, s: Stage) -> None:
        signature, report, elsewhere = (
            with_subject(TWO, name) for name in ("signature", "report", "elsewhere")
        )
        await actor.push("b", TWO)
        await actor.push("b", elsewhere)
        for pushed in (TWO, signature, report):
            await actor.push("a", pushed)
        async with suspects(
            actor,
            ("subject_delete", signature),
            ("subject_delete", report),
            ("layer_delete", b"b"),
            ("manifest_delete", b"{}"),
        ):
            await delete(actor, TWO)

    follow(database, story)


def test_referrer_when_it_goes_in_the_same_statement_as_its_subject_then_it_is_not_suspect(
    database: Target,
) -> None:
    async def story(actor: Actor, s: Stage) -> None:
        signature = with_subject(TWO, "signature")
        await actor.push("a", TWO)
        await actor.push("a", signature)
        async with suspects(actor, ("layer_delete", b"b"), ("manifest_delete", b"{}")):
            await actor.value("DELETE FROM manifests")

    follow(database, story)


# Tags


def test_tag_when_it_is_deleted_then_its_manifest_is_suspect(database: Target) -> None:
    async def story(actor: Actor, s: Stage) -> None:
        await actor.push("a", ONE, "t", "u")
        async with suspects(actor, ("tag_delete", ONE)):
            assert await manifests.untag(actor.c, await repository(actor), Tag("t"))

    follow(database, story)


def test_tags_when_several_of_one_manifest_go_in_one_statement_then_it_is_suspect_once(
    database: Target,
) -> None:
    async def story(actor: Actor, s: Stage) -> None:
        await actor.push("a", ONE, "t", "u", "v")
        await actor.push("a", TWO, "w")
        async with suspects(actor, ("tag_delete", ONE), ("tag_delete", TWO)):
            await actor.value("DELETE FROM tags")
        await actor.value("UPDATE repositories SET has_tags = false")

    follow(database, story)


def test_manifest_when_it_is_deleted_under_its_tags_then_the_cascade_names_it_once_more(
    database: Target,
) -> None:
    """A suspicion of a manifest that is gone is settled by the first look at it."""

    async def story(actor: Actor, s: Stage) -> None:
        await actor.push("a", TWO, "t")
        expected = [("tag_delete", TWO), ("layer_delete", b"b"), ("manifest_delete", b"{}")]
        async with suspects(actor, *expected):
            await actor.value("DELETE FROM manifests")
        await actor.push("a", TWO, "t")
        async with suspects(actor, ("tag_delete", TWO), *expected[1:]):
            await delete(actor, TWO)

    follow(database, story)


def test_tag_when_it_moves_then_the_manifest_that_it_leaves_is_suspect(database: Target) -> None:
    async def story(actor: Actor, s: Stage) -> None:
        await actor.push("a", ONE, "t", "u")
        await actor.push("a", TWO)
        # Both tags leave ONE in one statement; TWO's own review is not pending, so no touch either.
        async with suspects(actor, ("tag_switch", ONE)):
            await actor.put("a", TWO, "t", "u")

    follow(database, story)


def test_tag_when_it_is_put_again_on_the_same_manifest_then_nothing_is_enqueued_or_written(
    database: Target,
) -> None:
    async def story(actor: Actor, s: Stage) -> None:
        await actor.push("a", ONE, "t")
        before = await actor.raw.fetchrow("SELECT *, xmin FROM tags")
        async with suspects(actor):
            await actor.put("a", ONE, "t")
            await actor.value("UPDATE tags SET updated_at = updated_at")
        assert (await actor.raw.fetchrow("SELECT updated_at FROM tags"))[0] is None
        assert before["updated_at"] is None

    follow(database, story)


def test_tag_when_it_moves_then_it_says_when(database: Target) -> None:
    async def story(actor: Actor, s: Stage) -> None:
        await actor.push("a", ONE, "t")
        await actor.push("a", TWO, "t")
        created, updated = await actor.raw.fetchrow("SELECT created_at, updated_at FROM tags")
        assert created < updated

    follow(database, story)


# A whole repository


def test_repository_when_it_is_deleted_then_its_blobs_are_suspect_and_its_manifests_do_no_harm(
    database: Target,
) -> None:
    """The cascade goes through every table, in whatever order its manifests stand."""

    async def story(actor: Actor, s: Stage) -> None:
        for path in ("a", "b"):
            await actor.push(path, ONE)
            await actor.push(path, index(ONE), "t")
        for queue in ("gc_blob_review_queue", "gc_manifest_review_queue"):
            await actor.value(f"DELETE FROM {queue}")
        await actor.value("DELETE FROM repositories WHERE path = 'a'")
        rows = await actor.raw.fetch("SELECT event, digest FROM gc_blob_review_queue")
        assert {tuple(row) for row in rows} == {
            ("layer_delete", Digest.of(b"a").packed),
            ("layer_delete", Digest.of(b"b").packed),
            ("manifest_delete", Digest.of(b"{}").packed),
        }
        assert await s.count("repositories") == 1
        assert {path for path, _ in await s.links()} == {"b"}

    follow(database, story)


# Touch


@asynccontextmanager
async def pending(actor: Actor, kind: str, due: timedelta) -> AsyncGenerator[None]:
    """One review that falls due in `due`; afterwards the queue is looked at by the test."""
    await actor.push("a", TWO, "t")
    for queue in ("gc_blob_review_queue", "gc_manifest_review_queue"):
        await actor.value(f"DELETE FROM {queue}")
    if kind == "blob":
        await actor.value(
            "INSERT INTO gc_blob_review_queue (digest, review_after, event)"
            " VALUES ($1, now() + $2::interval, 'blob_upload')",
            Digest.of(b"b").packed,
            due,
        )
    else:
        await actor.value(
            "INSERT INTO gc_manifest_review_queue (repository_id, manifest_id, review_after, event)"
            " VALUES ($1, $2, now() + $3::interval, 'manifest_upload')",
            await repository(actor),
            await actor.manifest_id(TWO),
            due,
        )
    yield


async def keep(actor: Actor, kind: str) -> bool:
    if kind == "blob":
        return await blobs.keep(actor.c, Digest.of(b"b"))
    manifest_id = await actor.manifest_id(TWO)
    assert manifest_id is not None
    return await manifests.keep(actor.c, await repository(actor), manifest_id)


async def touches(actor: Actor, kind: str) -> list[timedelta]:
    """The delays of the touch rows."""
    rows = await actor.raw.fetch(
        f"SELECT review_after - created_at FROM gc_{kind}_review_queue WHERE event = 'touch'"
    )
    return [row[0] for row in rows]


each_kind = pytest.mark.parametrize("kind", ["blob", "manifest"])


@each_kind
def test_touch_when_no_review_is_pending_then_nothing_is_written(database: Target, kind: str) -> None:
    async def story(actor: Actor, s: Stage) -> None:
        await actor.push("a", TWO, "t")
        async with suspects(actor):
            assert await keep(actor, kind)

    follow(database, story)


@each_kind
@pytest.mark.parametrize(
    "due", [timedelta(0), timedelta(hours=-30), DELAYS["touch"] / 2 - timedelta(minutes=5)]
)
def test_touch_when_a_review_falls_due_soon_then_one_row_gives_grace_however_often(
    database: Target, kind: str, due: timedelta
) -> None:
    async def story(actor: Actor, s: Stage) -> None:
        async with pending(actor, kind, due):
            for _ in range(5):
                assert await keep(actor, kind)
        (delay,) = await touches(actor, kind)
        assert timedelta(0) <= delay - DELAYS["touch"] <= JITTER

    follow(database, story)


@each_kind
def test_touch_when_a_later_review_gives_grace_then_nothing_is_written(database: Target, kind: str) -> None:
    async def story(actor: Actor, s: Stage) -> None:
        async with pending(actor, kind, DELAYS["touch"] / 2 + timedelta(minutes=5)):
            await keep(actor, kind)
        assert await touches(actor, kind) == []
        # One that falls due earlier beside it changes nothing: the later one counts as alive.
        async with actor.transaction():
            await actor.value(
                "INSERT INTO gc_blob_review_queue (digest, review_after, event)"
                " SELECT digest, now(), event FROM gc_blob_review_queue"
            )
            await actor.value(
                "INSERT INTO gc_manifest_review_queue (repository_id, manifest_id, review_after, event)"
                " SELECT repository_id, manifest_id, now(), event FROM gc_manifest_review_queue"
            )
        assert await keep(actor, kind)
        assert await touches(actor, kind) == []

    follow(database, story)


@each_kind
def test_keep_when_it_is_gone_then_it_says_no_and_writes_nothing(database: Target, kind: str) -> None:
    async def story(actor: Actor, s: Stage) -> None:
        await actor.push("a", TWO)
        repository_id, manifest_id = await repository(actor), await actor.manifest_id(TWO)
        assert manifest_id is not None
        await delete(actor, TWO)
        if kind == "blob":
            await actor.value("DELETE FROM blobs")
            assert not await blobs.keep(actor.c, Digest.of(b"b"))
        else:
            assert not await manifests.keep(actor.c, repository_id, manifest_id)
        assert await touches(actor, kind) == []

    follow(database, story)


def test_push_again_when_a_review_of_the_manifest_is_due_then_it_is_touched(database: Target) -> None:
    async def story(actor: Actor, s: Stage) -> None:
        async with pending(actor, "manifest", timedelta(0)):
            await actor.put("a", TWO, "t")
        assert len(await touches(actor, "manifest")) == 1

    follow(database, story)


def test_push_again_or_mount_when_a_review_of_the_blob_is_due_then_it_is_touched(database: Target) -> None:
    async def story(actor: Actor, s: Stage) -> None:
        async with pending(actor, "blob", timedelta(0)):
            await actor.push_blob("b", b"b")
        assert len(await touches(actor, "blob")) == 1
        await actor.value("DELETE FROM gc_blob_review_queue WHERE event = 'touch'")
        target = await repositories.ensure(actor.c, name_of("c"))
        assert await blobs.mount(actor.c, await repository(actor), target, Digest.of(b"b"))
        assert len(await touches(actor, "blob")) == 1

    follow(database, story)


@each_kind
def test_keep_when_a_collector_holds_it_then_the_touch_comes_after_its_verdict(
    database: Target, kind: str
) -> None:
    """KEY SHARE first, then the look at the queue: a collector either sees the touch or has deleted the object."""

    async def story(actor: Actor, s: Stage) -> None:
        reader = await s.actor()
        async with pending(actor, kind, timedelta(0)):
            table = "blobs" if kind == "blob" else "manifests"
            async with actor.transaction():
                await actor.value(f"SELECT count(*) FROM (SELECT FROM {table} FOR UPDATE) AS locked")
                keeping = s.start(reader, keep(reader, kind))
                await s.waits(keeping)
                assert await touches(s.observer, kind) == []
        assert await keeping
        assert len(await touches(actor, kind)) == 1

    follow(database, story)


def test_review_after_when_the_delay_is_a_minute_or_less_then_there_is_no_jitter(database: Target) -> None:
    async def story(actor: Actor, s: Stage) -> None:
        await actor.value(
            "UPDATE gc_review_after_defaults SET value = interval '250 ms' WHERE event = 'blob_upload'"
        )
        await actor.push_blob("a", b"a")
        delay = await actor.value("SELECT review_after - created_at FROM gc_blob_review_queue")
        assert delay == timedelta(milliseconds=250)

    follow(database, story)


def test_digests_of_an_image_when_listed_then_each_stands_once() -> None:
    assert digests(ONE) == [Digest.of(b"{}"), Digest.of(b"a"), Digest.of(b"b")]
