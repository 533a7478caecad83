"""Upload sessions under real concurrency: one token, one writer, every storage key named by exactly one row."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from app.blobs.keys import new_key
from app.domain.digest import Digest
from app.store import uploads
from tests.store.scenes import name_of, play

if TYPE_CHECKING:
    from app.store.engine import Target
    from app.store.uploads import Claim
    from tests.store.scenes import Actor, Stage

CONTENT = b"the same bytes"
DIGEST = Digest.of(CONTENT)
SIZE = len(CONTENT)
GRACE = timedelta(days=1)


async def finish(actor: Actor, claim: Claim) -> bool:
    return await uploads.finish(actor.c, claim, DIGEST, SIZE)


async def cancel(actor: Actor, claim: Claim) -> bool:
    return await uploads.drop(
        actor.c, claim.id, name_of("a"), writer=None, reason="upload_cancelled", grace=timedelta(0)
    )


async def take_over(actor: Actor, claim: Claim) -> tuple[bool, str]:
    key = new_key()
    await uploads.intend(actor.c, key, GRACE)
    return await uploads.adopt(actor.c, claim, key), key


def test_finish_when_two_uploads_have_one_digest_then_the_second_waits_and_its_object_becomes_a_tombstone(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        one, two = await s.actors(2)
        first, second = await one.session("a"), await two.session("b")
        async with one.transaction():
            assert await finish(one, first)
            finishing = s.start(two, finish(two, second))
            await s.waits(finishing)
        assert await finishing
        assert await s.key_of(DIGEST) == first.storage_key
        assert await s.tombstones() == {second.storage_key: "upload_duplicate"}
        assert await s.links() == {("a", DIGEST.packed), ("b", DIGEST.packed)}
        assert await s.count("blob_uploads") == 0

    play(database, scene)


def test_finish_when_the_other_upload_of_the_digest_rolls_back_then_the_waiting_one_names_its_own_object(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        one, two = await s.actors(2)
        first, second = await one.session("a"), await two.session("b")
        held = one.transaction()
        await held.start()
        assert await finish(one, first)
        finishing = s.start(two, finish(two, second))
        await s.waits(finishing)
        await held.rollback()
        assert await finishing
        assert await s.key_of(DIGEST) == second.storage_key
        assert await s.tombstones() == {}
        assert (await s.upload(first.id))["storage_key"] == first.storage_key

    play(database, scene)


def test_finish_when_the_blob_is_being_deleted_then_it_waits_and_the_new_object_takes_the_name(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        collector, pusher = await s.actors(2)
        await collector.push_blob("a", CONTENT)
        old_key, session = await s.key_of(DIGEST), await pusher.session("b")
        async with collector.transaction():
            await collector.value("SELECT 1 FROM blobs WHERE digest = $1 FOR UPDATE", DIGEST.packed)
            await collector.value("DELETE FROM blobs WHERE digest = $1", DIGEST.packed)
            await collector.value(
                "INSERT INTO gc_storage_deletions (storage_key, reason, not_before)"
                " VALUES ($1, 'blob_unused', now())",
                old_key,
            )
            finishing = s.start(pusher, finish(pusher, session))
            await s.waits(finishing)
        assert await finishing
        assert await s.key_of(DIGEST) == session.storage_key
        assert await s.tombstones() == {old_key: "blob_unused"}
        assert await s.links() == {("b", DIGEST.packed)}

    play(database, scene)


def test_finish_when_the_blob_is_locked_for_deletion_but_kept_then_the_duplicate_waits_and_is_a_tombstone(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        collector, pusher = await s.actors(2)
        await collector.push_blob("a", CONTENT)
        session = await pusher.session("b")
        async with collector.transaction():
            await collector.value("SELECT 1 FROM blobs WHERE digest = $1 FOR UPDATE", DIGEST.packed)
            finishing = s.start(pusher, finish(pusher, session))
            await s.waits(finishing)
        assert await finishing
        assert await s.tombstones() == {session.storage_key: "upload_duplicate"}

    play(database, scene)


def test_finish_when_the_session_is_cancelled_meanwhile_then_it_waits_and_says_no(database: Target) -> None:
    async def scene(s: Stage) -> None:
        canceller, pusher = await s.actors(2)
        session = await pusher.session("a")
        async with canceller.transaction():
            assert await cancel(canceller, session)
            finishing = s.start(pusher, finish(pusher, session))
            await s.waits(finishing)
        assert await finishing is False
        assert await s.key_of(DIGEST) is None
        assert await s.tombstones() == {session.storage_key: "upload_cancelled"}
        assert await s.links() == set()

    play(database, scene)


def test_cancel_when_the_session_is_finished_meanwhile_then_it_waits_and_says_no(database: Target) -> None:
    async def scene(s: Stage) -> None:
        canceller, pusher = await s.actors(2)
        session = await pusher.session("a")
        async with pusher.transaction():
            assert await finish(pusher, session)
            cancelling = s.start(canceller, cancel(canceller, session))
            await s.waits(cancelling)
        assert await cancelling is False
        assert await s.key_of(DIGEST) == session.storage_key
        assert await s.tombstones() == {}

    play(database, scene)


def test_finish_when_another_writer_claims_meanwhile_then_it_waits_and_says_no(database: Target) -> None:
    async def scene(s: Stage) -> None:
        old, new = await s.actors(2)
        session = await old.session("a")
        async with new.transaction():
            claim = await new.claim(session)
            assert claim is not None
            assert claim.overtaken
            finishing = s.start(old, finish(old, session))
            await s.waits(finishing)
        assert await finishing is False
        assert await s.key_of(DIGEST) is None
        assert await s.tombstones() == {}
        assert await finish(new, claim)

    play(database, scene)


def test_finish_when_the_writer_or_the_repository_is_another_one_then_nothing_changes(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        pusher = await s.actor()
        session, other = await pusher.session("a"), await pusher.session("b")
        statement = "SELECT finish_upload($1, $2, $3, $4, $5)"
        for repository, writer in (
            (session.repository_id, uuid4()),
            (session.repository_id, None),
            (other.repository_id, session.writer),
        ):
            done = await pusher.value(statement, session.id, repository, writer, DIGEST.packed, SIZE)
            assert done is False
        assert await s.count("blobs") == await s.count("repository_blobs") == 0
        assert await s.tombstones() == {}
        assert (await s.upload(session.id))["writer"] == session.writer

    play(database, scene)


def test_finish_when_nobody_holds_the_session_then_it_says_no(database: Target) -> None:
    async def scene(s: Stage) -> None:
        pusher = await s.actor()
        session = await pusher.session("a", writer=False)
        assert await finish(pusher, session) is False
        assert (
            await pusher.value(
                "SELECT finish_upload($1, $2, NULL, $3, $4)",
                session.id,
                session.repository_id,
                DIGEST.packed,
                SIZE,
            )
            is False
        )

    play(database, scene)


def test_claim_when_two_claim_at_once_then_the_second_waits_and_sees_that_it_has_overtaken(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        one, two = await s.actors(2)
        session = await one.session("a", writer=False)
        async with one.transaction():
            first = await one.claim(session, start=0)
            assert first is not None
            assert not first.overtaken
            claiming = s.start(two, two.claim(session, start=0))
            await s.waits(claiming)
        second = await claiming
        assert second is not None
        assert second.overtaken
        assert (await s.upload(session.id))["writer"] == second.writer
        assert not await uploads.save(one.c, first, 10, None)
        assert await uploads.save(two.c, second, 20, b"state")
        row = await s.upload(session.id)
        assert (row["size"], row["hash_state"], row["writer"]) == (20, b"state", None)

    play(database, scene)


def test_claim_when_the_holder_saves_meanwhile_then_only_the_right_offset_gets_it(database: Target) -> None:
    async def scene(s: Stage) -> None:
        holder, stale, right = await s.actors(3)
        session = await holder.session("a")
        async with holder.transaction():
            assert await uploads.save(holder.c, session, 10, b"state")
            too_early = s.start(stale, stale.claim(session, start=0))
            await s.waits(too_early)
        assert await too_early is None
        assert (await s.upload(session.id))["writer"] is None
        assert await right.claim(session, start=10) is not None

    play(database, scene)


def test_claim_without_an_offset_when_the_holder_saves_meanwhile_then_it_has_the_saved_bytes(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        holder, next_one = await s.actors(2)
        session = await holder.session("a")
        async with holder.transaction():
            assert await uploads.save(holder.c, session, 10, b"state")
            claiming = s.start(next_one, next_one.claim(session))
            await s.waits(claiming)
        claim = await claiming
        assert claim is not None
        assert (claim.size, claim.hash_state, claim.overtaken) == (10, b"state", False)
        assert claim.storage_key == session.storage_key

    play(database, scene)


def test_claim_when_the_session_is_another_repositorys_then_there_is_none(database: Target) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        session = await actor.session("a")
        await actor.session("b")
        assert await actor.claim(session, path="b") is None
        assert await actor.claim(session, path="nowhere") is None
        assert await uploads.find(actor.c, session.id, name_of("b")) is None
        assert not await uploads.drop(
            actor.c, session.id, name_of("b"), writer=None, reason="upload_cancelled", grace=GRACE
        )
        assert (await s.upload(session.id))["writer"] == session.writer

    play(database, scene)


def test_adopt_when_nobody_interferes_then_the_old_key_is_the_tombstone(database: Target) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        session = await actor.session("a")
        await uploads.save(actor.c, session, 10, None)
        await actor.claim(session)
        claim = await actor.claim(session)
        assert claim is not None
        assert claim.overtaken
        adopted, key = await take_over(actor, claim)
        assert adopted
        assert await s.tombstones() == {session.storage_key: "upload_taken_over"}
        assert (await s.upload(session.id))["storage_key"] == key
        assert await s.observer.value("SELECT size FROM gc_storage_deletions") == 10

    play(database, scene)


def test_adopt_when_another_claims_meanwhile_then_it_waits_and_says_no_and_its_key_stays_a_tombstone(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        first, second, third = await s.actors(3)
        session = await first.session("a")
        claim = await second.claim(session)
        assert claim is not None
        async with third.transaction():
            later = await third.claim(session)
            assert later is not None
            adopting = s.start(second, take_over(second, claim))
            await s.waits(adopting)
        adopted, lost_key = await adopting
        assert not adopted
        adopted, key = await take_over(third, later)
        assert adopted
        assert await s.tombstones() == {
            lost_key: "upload_taken_over",
            session.storage_key: "upload_taken_over",
        }
        assert (await s.upload(session.id))["storage_key"] == key
        assert not await uploads.save(first.c, session, 1, None)
        assert not await uploads.save(second.c, claim, 1, None)

    play(database, scene)


def test_adopt_when_the_session_is_cancelled_meanwhile_then_each_key_is_a_tombstone_once(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        canceller, taker = await s.actors(2)
        session = await taker.session("a")
        claim = await taker.claim(session)
        assert claim is not None
        async with canceller.transaction():
            assert await cancel(canceller, session)
            adopting = s.start(taker, take_over(taker, claim))
            await s.waits(adopting)
        adopted, key = await adopting
        assert not adopted
        assert await s.tombstones() == {key: "upload_taken_over", session.storage_key: "upload_cancelled"}

    play(database, scene)


def test_cancel_when_the_session_moves_to_another_key_meanwhile_then_it_waits_and_buries_the_new_key(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        canceller, taker = await s.actors(2)
        session = await taker.session("a")
        claim = await taker.claim(session)
        assert claim is not None
        async with taker.transaction():
            adopted, key = await take_over(taker, claim)
            assert adopted
            cancelling = s.start(canceller, cancel(canceller, session))
            await s.waits(cancelling)
        assert await cancelling
        assert await s.tombstones() == {session.storage_key: "upload_taken_over", key: "upload_cancelled"}

    play(database, scene)


def test_adopt_when_the_intended_objects_tombstone_was_carried_out_then_the_session_keeps_its_old_key(
    database: Target,
) -> None:
    """A copy may take longer than the grace of its tombstone; then its object is gone."""

    async def scene(s: Stage) -> None:
        taker, remover = await s.actors(2)
        session = await taker.session("a")
        claim = await taker.claim(session)
        assert claim is not None
        key = new_key()
        await uploads.intend(taker.c, key, timedelta(0))
        async with remover.transaction():
            await remover.value("DELETE FROM gc_storage_deletions WHERE storage_key = $1", key)
            adopting = s.start(taker, uploads.adopt(taker.c, claim, key))
            await s.waits(adopting)
        assert await adopting is False
        assert (await s.upload(session.id))["storage_key"] == session.storage_key

    play(database, scene)


def test_drop_when_the_session_is_anothers_meanwhile_then_it_says_no(database: Target) -> None:
    async def scene(s: Stage) -> None:
        old, new = await s.actors(2)
        session = await old.session("a")
        async with new.transaction():
            claim = await new.claim(session)
            assert claim is not None
            dropping = s.start(
                old,
                uploads.drop(
                    old.c,
                    session.id,
                    name_of("a"),
                    writer=session.writer,
                    reason="upload_rejected",
                    grace=timedelta(0),
                ),
            )
            await s.waits(dropping)
        assert await dropping is False
        assert await s.tombstones() == {}
        assert (await s.upload(session.id))["writer"] == claim.writer

    play(database, scene)
