"""The races that have names, each in the one order that matters. `README.md` says which lock closes which."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest

from app.blobs.keys import new_key
from app.domain.digest import Digest
from app.store import collecting, manifests, uploads
from tests.store.scenes import manifest_digest, name_of, play
from tests.support.registry import descriptor, image, index

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.store.engine import Target
    from app.store.uploads import Claim
    from tests.store.scenes import Actor, Stage

HOUR: Final = timedelta(hours=1)
WEEK: Final = timedelta(days=7)
NOW: Final = timedelta(0)
CONTENT = b"a layer"
DIGEST = Digest.of(CONTENT)
ONE = image(CONTENT, config=b"{}")


async def expire(actor: Actor) -> int | None:
    return await collecting.expire_uploads(actor.c, 100, WEEK, HOUR)


async def old_session(actor: Actor) -> Claim:
    session = await actor.session("a")
    await actor.value("UPDATE blob_uploads SET updated_at = now() - interval '8 days'")
    return session


async def take(actor: Actor) -> list[str]:
    return [t.storage_key for t in await collecting.take_tombstones(actor.c, 100, HOUR)]


# Two of one batch


@pytest.mark.parametrize("kind", ["index and child", "subject and referrer"])
def test_batch_when_one_of_it_keeps_the_other_alive_then_the_other_gets_a_review_that_survives_the_batch(
    database: Target, kind: str
) -> None:
    """Without any delay, so that the new suspicion is due at once and of the batch's own moment."""
    keeper, kept = (
        (index(ONE), ONE)
        if kind == "index and child"
        else (ONE, image(b"signature", config=b"{}", subject=descriptor(ONE.payload, ONE.media_type)))
    )

    async def scene(s: Stage) -> None:
        actor = await s.actor()
        await collecting.set_review_after(actor.c, NOW)
        for stored in dict.fromkeys((ONE, keeper, kept)):
            await actor.push("a", stored)
        first = await actor.collect_manifests()
        assert (first.reviewed, first.deleted) == (2, 1)
        assert await actor.value("SELECT digest FROM manifests") == manifest_digest(kept).packed
        assert await s.count("gc_manifest_review_queue") == 1
        assert (await actor.collect_manifests()).deleted == 1
        await actor.collect_everything()
        assert await s.count("blobs") == await s.count("gc_storage_deletions") == 0

    play(database, scene)


def test_empty_descriptor_when_it_is_config_and_layer_then_it_goes_once_and_only_with_its_last_manifest(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        first, second = (image(b"{}", b"{}", config=b"{}", annotations={"n": n}) for n in "12")
        await actor.push("a", first)
        repository = await actor.push("a", second)
        for stored, gone in ((first, 0), (second, 1)):
            assert (await manifests.delete(actor.c, repository, manifest_digest(stored)))[0] == "deleted"
            await actor.fall_due()
            events = {row[0] for row in await actor.raw.fetch("SELECT event FROM gc_blob_review_queue")}
            assert events >= {"layer_delete", "manifest_delete"}
            assert (await actor.collect_blobs()).deleted == gone
            assert await s.count("gc_blob_review_queue") == 0
        assert list((await s.tombstones()).values()).count("blob_unused") == 1

    play(database, scene)


def test_collectors_when_their_batches_overlap_then_neither_waits_and_each_blob_goes_once(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        one, two = await s.actors(2)
        for n in range(5):
            await one.push_blob("a", b"%d" % n)
        await one.value(
            "INSERT INTO gc_blob_review_queue (digest, review_after, event)"
            " SELECT digest, review_after + n * interval '1 second', 'layer_delete'"
            " FROM gc_blob_review_queue, generate_series(1, 2) AS n"
        )
        await one.fall_due()
        async with one.transaction():
            first = await one.collect_blobs(limit=2)
            second = await two.collect_blobs()
            assert second.deleted + first.deleted == 5
            third = await two.collect_blobs()
            assert (third.deleted, third.put_off) == (0, 0)
        await one.collect_everything()
        assert await s.count("gc_receipts") == 5
        assert await s.count("gc_storage_deletions") == await s.count("blobs") == 0

    play(database, scene)


# Sessions that expire


LATE: Final[dict[str, Callable[[Actor, Claim], Awaitable[object]]]] = {
    "save": lambda actor, session: uploads.save(actor.c, session, 1, None),
    "finish": lambda actor, session: uploads.finish(actor.c, session, DIGEST, len(CONTENT)),
    "claim": lambda actor, session: actor.claim(session),
    "cancel": lambda actor, session: uploads.drop(
        actor.c, session.id, name_of("a"), writer=None, reason="upload_cancelled", grace=NOW
    ),
}


@pytest.mark.parametrize("request_of", LATE)
def test_request_when_its_session_is_expiring_then_it_waits_and_is_told_that_there_is_none(
    database: Target, request_of: str
) -> None:
    async def scene(s: Stage) -> None:
        client, collector = await s.actors(2)
        session = await old_session(client)
        async with collector.transaction():
            assert await expire(collector) == 1
            asking = s.start(client, as_coroutine(LATE[request_of](client, session)))
            await s.waits(asking)
        assert not await asking
        assert await s.tombstones() == {session.storage_key: "upload_expired"}
        assert await s.key_of(DIGEST) is None

    play(database, scene)


@pytest.mark.parametrize("request_of", LATE)
def test_expiry_when_a_request_of_the_session_is_under_way_then_it_passes_it_over(
    database: Target, request_of: str
) -> None:
    async def scene(s: Stage) -> None:
        client, collector = await s.actors(2)
        session = await old_session(client)
        async with client.transaction():
            assert await LATE[request_of](client, session)
            assert await expire(collector) == 0
        assert await expire(collector) == 0
        assert "upload_expired" not in (await s.tombstones()).values()

    play(database, scene)


async def as_coroutine(awaitable: Awaitable[object]) -> object:
    return await awaitable


def test_adopt_when_the_session_is_expiring_then_it_waits_and_both_objects_have_tombstones(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        client, collector = await s.actors(2)
        session, key = await old_session(client), new_key()
        await uploads.intend(client.c, key, HOUR)
        async with collector.transaction():
            assert await expire(collector) == 1
            adopting = s.start(client, uploads.adopt(client.c, session, key))
            await s.waits(adopting)
        assert await adopting is False
        assert await s.tombstones() == {session.storage_key: "upload_expired", key: "upload_taken_over"}

    play(database, scene)


def test_expiry_when_the_session_is_adopting_another_key_then_it_passes_it_over(database: Target) -> None:
    async def scene(s: Stage) -> None:
        client, collector = await s.actors(2)
        session, key = await old_session(client), new_key()
        await uploads.intend(client.c, key, HOUR)
        async with client.transaction():
            assert await uploads.adopt(client.c, session, key)
            assert await expire(collector) == 0
        assert await expire(collector) == 1
        assert await s.tombstones() == {session.storage_key: "upload_taken_over", key: "upload_expired"}

    play(database, scene)


# Tombstones


@pytest.mark.parametrize("rule", ["as it is", "cut out"])
def test_adopt_when_a_remover_has_taken_the_tombstone_then_the_session_must_keep_its_key(
    database: Target, rule: str
) -> None:
    """The copy took longer than its object's grace. Without the rule the session names what is removed."""
    condition = " AND gc_storage_deletions.attempts = 0"
    assert condition in uploads.ADOPT.text

    async def adopt(actor: Actor, session: Claim, key: str) -> bool:
        if rule == "as it is":
            return await uploads.adopt(actor.c, session, key)
        values = {"upload": session.id, "mine": session.writer, "key": key, "old_size": 0}
        arguments = uploads.ADOPT.arguments({**values, "old_key": session.storage_key})
        return await actor.value(uploads.ADOPT.text.replace(condition, ""), *arguments) is not None

    async def scene(s: Stage) -> None:
        client, remover = await s.actors(2)
        session, key = await client.session("a"), new_key()
        await uploads.intend(client.c, key, NOW)
        async with remover.transaction():
            assert await take(remover) == [key]
            adopting = s.start(client, adopt(client, session, key))
            await s.waits(adopting)
        adopted = await adopting
        assert adopted is (rule == "cut out")
        named = (await s.upload(session.id))["storage_key"]
        assert (named == key) is (rule == "cut out")

    play(database, scene)


def test_remover_when_a_session_is_adopting_the_key_then_it_passes_it_over(database: Target) -> None:
    async def scene(s: Stage) -> None:
        client, remover = await s.actors(2)
        session, key = await client.session("a"), new_key()
        await uploads.intend(client.c, key, NOW)
        async with client.transaction():
            assert await uploads.adopt(client.c, session, key)
            assert await take(remover) == []
        assert await take(remover) == [session.storage_key]

    play(database, scene)


def test_push_again_when_the_object_of_the_digest_is_being_removed_then_it_has_a_key_of_its_own(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        client, remover = await s.actors(2)
        await client.push_blob("a", CONTENT)
        old = await s.key_of(DIGEST)
        assert old is not None
        await client.fall_due()
        assert (await remover.collect_blobs()).deleted == 1
        assert await take(remover) == [old]
        await client.push_blob("a", CONTENT)
        assert await collecting.settle_tombstones(remover.c, [old]) == 1
        assert await s.key_of(DIGEST) not in (None, old)
        assert await s.tombstones() == {}

    play(database, scene)


def test_removers_when_a_lease_ends_too_early_then_both_remove_and_settle_and_nothing_else_is_touched(
    database: Target,
) -> None:
    """To remove an object twice is harmless, since its key is never used again: the lease only saves work."""

    async def scene(s: Stage) -> None:
        client, slow, fast = await s.actors(3)
        await client.push_blob("a", CONTENT)
        old = await s.key_of(DIGEST)
        assert old is not None
        await client.fall_due()
        await slow.collect_blobs()
        assert await take(slow) == [old]
        assert await take(fast) == []
        await client.fall_due()
        assert await take(fast) == [old]
        assert await collecting.settle_tombstones(fast.c, [old]) == 1
        await client.push_blob("a", CONTENT)
        await collecting.put_off_tombstones(slow.c, [old])
        assert await collecting.settle_tombstones(slow.c, [old]) == 0
        assert await s.tombstones() == {}
        assert await s.key_of(DIGEST) not in (None, old)

    play(database, scene)


def test_removers_when_both_take_at_once_then_neither_waits_and_each_tombstone_is_taken_once(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        client, one, two = await s.actors(3)
        sessions = [await client.session("a") for _ in range(4)]
        for session in sessions:
            await LATE["cancel"](client, session)
        async with one.transaction():
            first = await collecting.take_tombstones(one.c, 3, HOUR)
            second = await take(two)
        assert sorted([*(t.storage_key for t in first), *second]) == sorted(x.storage_key for x in sessions)

    play(database, scene)


# A lost object


def test_finish_when_two_uploads_bring_a_lost_blob_back_then_one_key_is_named_and_the_other_is_a_tombstone(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        one, two, collector = await s.actors(3)
        await one.push_blob("a", CONTENT)
        await one.value("UPDATE blobs SET storage_key = NULL")
        await one.fall_due()
        first, second = await one.session("a"), await two.session("a")
        async with one.transaction():
            assert await uploads.finish(one.c, first, DIGEST, len(CONTENT))
            assert (await collector.collect_blobs()).put_off == 1
            finishing = s.start(two, uploads.finish(two.c, second, DIGEST, len(CONTENT)))
            await s.waits(finishing)
        assert await finishing
        assert await s.key_of(DIGEST) == first.storage_key
        assert await s.tombstones() == {second.storage_key: "upload_duplicate"}
        assert (await collector.collect_blobs()).deleted == 0

    play(database, scene)


# The pause


def test_pause_when_a_batch_is_under_way_then_it_waits_for_it_and_no_other_begins(database: Target) -> None:
    async def scene(s: Stage) -> None:
        operator, one, two = await s.actors(3)
        await one.push_blob("a", CONTENT)
        await one.fall_due()
        async with one.transaction():
            assert (await one.collect_blobs()).deleted == 1
            pausing = s.start(operator, collecting.set_paused(operator.c, is_paused=True, reason=""))
            await s.waits(pausing)
            assert await collecting.collect_blobs(two.c, 100, None, NOW) is None
            assert await take(two) == []
        assert await pausing
        assert await collecting.collect_blobs(two.c, 100, None, NOW) is None

    play(database, scene)
