"""Manifests, tags, links under real concurrency: whatever is decided is decided on what is there under the locks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import asyncpg
import pytest

from app.domain.digest import Digest
from app.domain.manifests import parse_manifest
from app.domain.names import Tag
from app.store import blobs, lookups, manifests, repositories
from app.store.lookups import DigestKey
from app.store.manifests import Missing
from tests.store.scenes import digests, manifest_digest, name_of, play
from tests.support.registry import Image, descriptor, encoded, image, index

if TYPE_CHECKING:
    from app.store.engine import Target
    from tests.store.scenes import Actor, Stage

LAYER, CONFIG, OTHER = b"a layer", b"{}", b"another layer"
ONE = image(LAYER, config=CONFIG)
TWO = image(LAYER, OTHER, config=CONFIG)
ONE_DIGEST = manifest_digest(ONE)


async def repository(actor: Actor, path: str = "a") -> int:
    return await actor.value("SELECT id FROM repositories WHERE path = $1", path)


async def delete(actor: Actor, pushed: Image) -> tuple[str, list[Tag]]:
    """Delete as the API does: one transaction, then another one for the catalog."""
    outcome, tags = await manifests.delete(actor.c, await repository(actor), manifest_digest(pushed))
    await repositories.settle_has_tags(actor.c, await repository(actor))
    return outcome, sorted(tags)


async def unlink(actor: Actor, content: bytes, path: str = "a") -> str:
    return await blobs.unlink(actor.c, await repository(actor, path), Digest.of(content))


# Manifest PUT and a blob's link


@pytest.mark.parametrize("needed", [LAYER, CONFIG], ids=["layer", "config"])
def test_unlink_when_a_manifest_is_being_put_then_it_waits_and_finds_the_blob_in_use(
    database: Target, needed: bytes
) -> None:
    async def scene(s: Stage) -> None:
        pusher, remover = await s.actors(2)
        await pusher.push_blobs("a", ONE)
        async with pusher.transaction():
            assert isinstance(await pusher.put("a", ONE, "t"), int)
            removing = s.start(remover, unlink(remover, needed))
            await s.waits(removing)
        assert await removing == "in_use"

    play(database, scene)


def test_put_when_a_blob_is_being_unlinked_then_it_waits_and_names_the_missing_blob(database: Target) -> None:
    async def scene(s: Stage) -> None:
        pusher, remover = await s.actors(2)
        await pusher.push_blobs("a", ONE)
        async with remover.transaction():
            assert await unlink(remover, LAYER) == "removed"
            putting = s.start(pusher, pusher.put("a", ONE, "t"))
            await s.waits(putting)
        assert await putting == Missing([Digest.of(LAYER)], [])
        assert await s.count("manifests") == await s.count("tags") == await s.count("layers") == 0

    play(database, scene)


def test_unlink_when_a_put_has_seen_the_link_and_waits_for_the_next_blob_then_the_put_wins(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        pusher, remover, gate = await s.actors(3)
        await pusher.push_blobs("a", TWO)
        first, *_, last = sorted(digests(TWO), key=lambda d: d.packed)
        async with gate.transaction():
            await gate.value("SELECT 1 FROM blobs WHERE digest = $1 FOR UPDATE", last.packed)
            putting = s.start(pusher, pusher.put("a", TWO, "t"))
            await s.waits(putting)
            removing = s.start(remover, blobs.unlink(remover.c, await repository(s.observer), first))
            await s.waits(removing)
        assert isinstance(await putting, int)
        assert await removing == "in_use"

    play(database, scene)


def test_put_when_a_blob_is_being_deleted_with_its_link_then_it_waits_and_names_the_missing_blob(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        pusher, collector = await s.actors(2)
        await pusher.push_blobs("a", ONE)
        async with collector.transaction():
            await collector.value("DELETE FROM blobs WHERE digest = $1", Digest.of(CONFIG).packed)
            putting = s.start(pusher, pusher.put("a", ONE, "t"))
            await s.waits(putting)
        assert await putting == Missing([Digest.of(CONFIG)], [])

    play(database, scene)


def test_collector_when_a_manifest_is_being_put_then_it_skips_the_blobs_that_the_manifest_needs(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        pusher, collector = await s.actors(2)
        await pusher.push_blobs("a", TWO)
        async with pusher.transaction():
            assert isinstance(await pusher.put("a", ONE), int)
            free = await collector.raw.fetch("SELECT digest FROM blobs FOR UPDATE SKIP LOCKED")
        assert [row[0] for row in free] == [Digest.of(OTHER).packed]

    play(database, scene)


# Manifest PUT and a child's deletion


def test_put_of_an_index_when_its_child_is_being_deleted_then_it_waits_and_names_the_missing_child(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        pusher, remover = await s.actors(2)
        await pusher.push("a", ONE)
        async with remover.transaction():
            assert await delete(remover, ONE) == ("deleted", [])
            putting = s.start(pusher, pusher.put("a", index(ONE), "t"))
            await s.waits(putting)
        assert await putting == Missing([], [ONE_DIGEST])
        assert await s.count("manifests") == await s.count("tags") == 0

    play(database, scene)


def test_delete_of_a_child_when_an_index_is_being_put_then_it_waits_and_finds_it_referenced(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        pusher, remover = await s.actors(2)
        await pusher.push("a", ONE, "child")
        async with pusher.transaction():
            assert isinstance(await pusher.put("a", index(ONE), "t"), int)
            deleting = s.start(remover, delete(remover, ONE))
            await s.waits(deleting)
        assert await deleting == ("referenced", [])
        assert set(await remover.tags()) == {"child", "t"}

    play(database, scene)


def test_delete_of_an_index_and_its_child_at_once_then_neither_is_half_done(database: Target) -> None:
    async def scene(s: Stage) -> None:
        one, two = await s.actors(2)
        parent = index(ONE)
        await one.push("a", ONE)
        await one.push("a", parent, "t")
        async with one.transaction():
            assert await delete(one, parent) == ("deleted", ["t"])
            deleting = s.start(two, delete(two, ONE))
            # Nothing locks the child: who deletes it while the index is going is told that an index needs it.
            assert await deleting == ("referenced", [])
        assert await delete(two, ONE) == ("deleted", [])
        assert await s.count("manifests") == 0

    play(database, scene)


def test_child_when_deleted_past_the_functions_then_the_foreign_key_still_holds_it(database: Target) -> None:
    async def scene(s: Stage) -> None:
        actor, child_first = await s.actor(), "DELETE FROM manifests WHERE digest = $1"
        await actor.push("a", ONE)
        await actor.push("a", index(ONE), "t")
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await actor.value(child_first, ONE_DIGEST.packed)
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            async with actor.transaction():
                await actor.value(child_first, ONE_DIGEST.packed)
        # With its index in one statement it goes.
        await actor.value("DELETE FROM manifests")
        await actor.value("UPDATE repositories SET has_tags = false")
        assert await s.count("manifest_references") == 0

    play(database, scene)


def test_blob_when_deleted_past_the_collector_then_the_foreign_keys_still_hold_it(database: Target) -> None:
    async def scene(s: Stage) -> None:
        actor = await s.actor()
        await actor.push("a", ONE, "t")
        for digest in digests(ONE):
            with pytest.raises(asyncpg.ForeignKeyViolationError):
                await actor.value("DELETE FROM blobs WHERE digest = $1", digest.packed)

    play(database, scene)


# Two PUTs of one manifest


def test_put_of_one_manifest_by_two_at_once_then_the_second_waits_and_adds_its_tag(database: Target) -> None:
    async def scene(s: Stage) -> None:
        one, two = await s.actors(2)
        await one.push_blobs("a", ONE)
        async with one.transaction():
            assert isinstance(await one.put("a", ONE, "x"), int)
            putting = s.start(two, two.put("a", ONE, "y"))
            await s.waits(putting)
        assert isinstance(await putting, int)
        assert await two.tags() == {"x": str(ONE_DIGEST), "y": str(ONE_DIGEST)}
        assert (await s.count("manifests"), await s.count("layers")) == (1, 1)

    play(database, scene)


def test_put_of_one_manifest_when_another_has_just_stored_it_then_a_collector_finds_it_locked(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        one, two, collector = await s.actors(3)
        await one.push_blobs("a", ONE)
        async with two.transaction():
            async with one.transaction():
                assert isinstance(await one.put("a", ONE), int)
                putting = s.start(two, two.put("a", ONE))
                await s.waits(putting)
            assert isinstance(await putting, int)
            assert await collector.raw.fetch("SELECT id FROM manifests FOR UPDATE SKIP LOCKED") == []

    play(database, scene)


def test_put_of_one_manifest_when_the_other_put_rolls_back_then_the_waiting_one_stores_it(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        one, two = await s.actors(2)
        await one.push_blobs("a", ONE)
        held = one.transaction()
        await held.start()
        assert isinstance(await one.put("a", ONE, "x"), int)
        putting = s.start(two, two.put("a", ONE, "y"))
        await s.waits(putting)
        await held.rollback()
        assert isinstance(await putting, int)
        assert await two.tags() == {"y": str(ONE_DIGEST)}
        assert (await s.count("manifests"), await s.count("layers")) == (1, 1)

    play(database, scene)


def test_put_of_one_manifest_while_it_is_being_deleted_then_it_waits_and_stores_it_anew(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        remover, pusher = await s.actors(2)
        await pusher.push("a", ONE, "old")
        before = await pusher.manifest_id(ONE)
        async with remover.transaction():
            assert await delete(remover, ONE) == ("deleted", ["old"])
            putting = s.start(pusher, pusher.put("a", ONE, "new"))
            await s.waits(putting)
        assert isinstance(await putting, int)
        assert await pusher.tags() == {"new": str(ONE_DIGEST)}
        assert await pusher.manifest_id(ONE) not in (None, before)

    play(database, scene)


def test_first_push_of_a_repository_by_two_at_once_then_it_is_made_once(database: Target) -> None:
    async def scene(s: Stage) -> None:
        one, two = await s.actors(2)
        async with one.transaction():
            first = await one.put("a", index(), "x")
            putting = s.start(two, two.put("a", index(), "y"))
            await s.waits(putting)
        assert await putting == first
        assert await s.count("repositories") == 1
        assert set(await two.tags()) == {"x", "y"}

    play(database, scene)


def test_put_when_the_repository_is_being_renamed_then_it_waits_and_goes_to_the_one_that_has_the_name(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        renamer, pusher = await s.actors(2)
        await pusher.push("a", ONE, "t")
        async with renamer.transaction():
            await renamer.value("UPDATE repositories SET path = 'b' WHERE path = 'a'")
            putting = s.start(pusher, pusher.put("a", ONE, "u"))
            await s.waits(putting)
        assert await putting == Missing(sorted(digests(ONE), key=lambda d: d.packed), [])
        assert await pusher.tags("b") == {"t": str(ONE_DIGEST)}

    play(database, scene)


# Deleting a manifest and moving its tags


def test_retag_away_when_the_old_manifest_is_being_deleted_then_the_tag_names_the_new_one(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        remover, pusher = await s.actors(2)
        await pusher.push("a", ONE, "t")
        await pusher.push("a", TWO)
        async with remover.transaction():
            assert await manifests.delete(remover.c, await repository(remover), ONE_DIGEST) == (
                "deleted",
                ["t"],
            )
            putting = s.start(pusher, pusher.put("a", TWO, "t"))
            await s.waits(putting)
        assert isinstance(await putting, int)
        await repositories.settle_has_tags(remover.c, await repository(remover))
        assert await pusher.tags() == {"t": str(manifest_digest(TWO))}
        assert await s.has_tags()

    play(database, scene)


def test_delete_when_its_tag_is_being_moved_away_then_the_tag_stays(database: Target) -> None:
    async def scene(s: Stage) -> None:
        remover, pusher = await s.actors(2)
        await pusher.push("a", ONE, "t", "u")
        await pusher.push("a", TWO)
        async with pusher.transaction():
            assert isinstance(await pusher.put("a", TWO, "t"), int)
            deleting = s.start(remover, delete(remover, ONE))
            await s.waits(deleting)
        assert await deleting == ("deleted", ["u"])
        assert await pusher.tags() == {"t": str(manifest_digest(TWO))}

    play(database, scene)


def test_delete_when_the_manifest_is_being_tagged_then_it_waits_and_takes_the_new_tag_along(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        remover, pusher = await s.actors(2)
        await pusher.push("a", ONE, "t")
        async with pusher.transaction():
            assert isinstance(await pusher.put("a", ONE, "u"), int)
            deleting = s.start(remover, delete(remover, ONE))
            await s.waits(deleting)
        assert await deleting == ("deleted", ["t", "u"])
        assert await pusher.tags() == {}
        assert not await s.has_tags()

    play(database, scene)


def test_delete_and_retag_of_several_tags_when_they_meet_then_neither_is_a_deadlocks_victim(
    database: Target,
) -> None:
    """The manifest's tags stand in the table in the opposite order of their names; both sides go by name."""

    async def scene(s: Stage) -> None:
        remover, pusher, gate = await s.actors(3)
        await pusher.push("a", ONE)
        await pusher.push("a", TWO)
        for tag in ("z", "m", "b"):
            await pusher.put("a", ONE, tag)
        async with gate.transaction():
            await gate.value("SELECT 1 FROM tags WHERE name = 'm' FOR UPDATE")
            deleting = s.start(remover, delete(remover, ONE))
            await s.waits(deleting)
            putting = s.start(pusher, pusher.put("a", TWO, "b", "m", "z"))
            await s.waits(putting)
            assert await s.observer.value("SELECT pg_blocking_pids($1)", pusher.pid) == [remover.pid]
        assert await deleting == ("deleted", ["b", "m", "z"])
        assert isinstance(await putting, int)
        assert await pusher.tags() == dict.fromkeys(("b", "m", "z"), str(manifest_digest(TWO)))

    play(database, scene)


def test_untag_when_the_tag_is_being_moved_then_the_tag_is_gone_and_the_manifests_stay(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        remover, pusher = await s.actors(2)
        await pusher.push("a", ONE, "t")
        await pusher.push("a", TWO)
        async with pusher.transaction():
            assert isinstance(await pusher.put("a", TWO, "t"), int)
            untagging = s.start(remover, manifests.untag(remover.c, await repository(s.observer), Tag("t")))
            await s.waits(untagging)
        assert await untagging
        await repositories.settle_has_tags(remover.c, await repository(remover))
        assert await pusher.tags() == {}
        assert await s.count("manifests") == 2

    play(database, scene)


# The catalog's flag


async def untag(actor: Actor, tag: str = "t") -> None:
    assert await manifests.untag(actor.c, await repository(actor), Tag(tag))


async def settle(actor: Actor) -> None:
    await repositories.settle_has_tags(actor.c, await repository(actor))


def test_settle_when_a_push_is_about_to_tag_then_it_waits_and_the_repository_stays_listed(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        remover, pusher = await s.actors(2)
        await pusher.push("a", ONE, "t")
        await untag(remover)
        async with pusher.transaction():
            assert isinstance(await pusher.put("a", ONE, "u"), int)
            settling = s.start(remover, settle(remover))
            await s.waits(settling)
        await settling
        assert await s.has_tags()

    play(database, scene)


def test_settle_when_a_push_waits_for_a_blob_before_it_tags_then_the_repository_stays_listed(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        remover, pusher, gate = await s.actors(3)
        await pusher.push("a", ONE, "t")
        async with gate.transaction():
            await gate.value("SELECT 1 FROM blobs WHERE digest = $1 FOR UPDATE", Digest.of(LAYER).packed)
            putting = s.start(pusher, pusher.put("a", ONE, "u"))
            await s.waits(putting)
            await untag(remover)
            settling = s.start(remover, settle(remover))
            await s.waits(settling)
        await putting
        await settling
        assert await s.has_tags()

    play(database, scene)


def test_push_when_the_last_tag_is_being_settled_then_it_waits_and_lists_the_repository_again(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        remover, pusher = await s.actors(2)
        await pusher.push("a", ONE, "t")
        await untag(remover)
        async with remover.transaction():
            await settle(remover)
            putting = s.start(pusher, pusher.put("a", ONE, "u"))
            await s.waits(putting)
        await putting
        assert await s.has_tags()

    play(database, scene)


def test_settle_when_two_untag_the_last_two_tags_then_the_repository_leaves_the_catalog(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        one, two = await s.actors(2)
        await one.push("a", ONE, "t", "u")
        async with one.transaction():
            await untag(one, "t")
            await untag(two, "u")
            await settle(two)
            assert await s.has_tags()
        await settle(one)
        assert not await s.has_tags()

    play(database, scene)


def test_settle_when_pushes_update_the_repository_at_the_same_time_then_nobody_is_a_deadlocks_victim(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        first, second, remover = await s.actors(3)
        await first.push("a", ONE, "t")
        await untag(remover)
        await settle(remover)
        async with first.transaction():
            await first.put("a", ONE, "u")  # has written the repository's row
            putting = s.start(second, second.put("a", ONE, "v"))  # wants to write it too
            await s.waits(putting)
            untagging = s.start(remover, settle_without_looking(remover))  # wants it for itself
            await s.waits(untagging)
        await putting
        await untagging
        assert await s.has_tags()

    async def settle_without_looking(actor: Actor) -> None:
        await actor.value("SELECT 1 FROM repositories WHERE path = 'a' FOR UPDATE")
        await settle(actor)

    play(database, scene)


# Mount


def test_mount_when_the_source_is_being_unlinked_then_it_waits_and_says_no(database: Target) -> None:
    async def scene(s: Stage) -> None:
        remover, mounter = await s.actors(2)
        digest = await remover.push_blob("a", LAYER)
        source, target = await repository(remover), await repositories.ensure(mounter.c, name_of("b"))
        async with remover.transaction():
            assert await unlink(remover, LAYER) == "removed"
            mounting = s.start(mounter, blobs.mount(mounter.c, source, target, digest))
            await s.waits(mounting)
        assert await mounting is False
        assert await s.links() == set()

    play(database, scene)


def test_unlink_of_the_source_when_a_mount_is_under_way_then_it_waits_and_the_mounted_link_stays(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        remover, mounter = await s.actors(2)
        digest = await remover.push_blob("a", LAYER)
        source, target = await repository(remover), await repositories.ensure(mounter.c, name_of("b"))
        async with mounter.transaction():
            assert await blobs.mount(mounter.c, source, target, digest)
            removing = s.start(remover, unlink(remover, LAYER))
            await s.waits(removing)
        assert await removing == "removed"
        assert await s.links() == {("b", digest.packed)}

    play(database, scene)


def test_mount_when_the_target_is_being_unlinked_then_it_waits_and_links_again(database: Target) -> None:
    async def scene(s: Stage) -> None:
        remover, mounter = await s.actors(2)
        digest = await remover.push_blob("a", LAYER)
        await remover.push_blob("b", LAYER)
        source, target = await repository(remover, "a"), await repository(remover, "b")
        async with remover.transaction():
            assert await unlink(remover, LAYER, "b") == "removed"
            mounting = s.start(mounter, blobs.mount(mounter.c, source, target, digest))
            await s.waits(mounting)
        assert await mounting is True
        assert await s.links() == {("a", digest.packed), ("b", digest.packed)}

    play(database, scene)


def test_mount_when_the_blob_is_being_deleted_then_it_waits_and_says_no(database: Target) -> None:
    async def scene(s: Stage) -> None:
        collector, mounter = await s.actors(2)
        digest = await collector.push_blob("a", LAYER)
        target = await repositories.ensure(mounter.c, name_of("b"))
        async with collector.transaction():
            await collector.value("DELETE FROM blobs WHERE digest = $1", digest.packed)
            mounting = s.start(mounter, blobs.mount(mounter.c, None, target, digest))
            keeping_actor = await s.actor()
            keeping = s.start(keeping_actor, blobs.keep(keeping_actor.c, digest))
            await s.waits(mounting)
            await s.waits(keeping)
        assert await mounting is False
        assert await keeping is False

    play(database, scene)


def test_keep_when_the_manifest_is_being_deleted_then_it_waits_and_says_no(database: Target) -> None:
    async def scene(s: Stage) -> None:
        remover, reader = await s.actors(2)
        repository_id = await remover.push("a", ONE, "t")
        key = DigestKey(repository_id, name_of("a"), ONE_DIGEST.packed)
        found = (await lookups.manifests_by_digest(reader.c, [key]))[key]
        async with remover.transaction():
            await delete(remover, ONE)
            keeping = s.start(reader, manifests.keep(reader.c, repository_id, found.id))
            await s.waits(keeping)
        assert await keeping is False

    play(database, scene)


# Shapes of manifests


def test_put_when_the_empty_descriptor_is_config_and_layer_then_two_at_once_both_succeed(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        one, two = await s.actors(2)
        first = image(b"{}", config=b"{}", annotations={"which": "first"})
        second = image(b"{}", b"{}", config=b"{}", annotations={"which": "second"})
        await one.push_blobs("a", first)
        await one.push("a", index(), "published")
        async with one.transaction():
            assert isinstance(await one.put("a", first, "x"), int)
            # Readers of one blob do not wait for each other.
            assert isinstance(await two.put("a", second, "y"), int)
        assert await s.count("layers") == 3

    play(database, scene)


def test_put_when_a_layer_stands_twice_then_both_rows_are_there_in_order(database: Target) -> None:
    async def scene(s: Stage) -> None:
        pusher = await s.actor()
        await pusher.push("a", image(LAYER, OTHER, LAYER), "t")
        rows = await pusher.raw.fetch("SELECT ordinal, digest FROM layers ORDER BY ordinal")
        assert [tuple(row) for row in rows] == [
            (n, Digest.of(layer).packed) for n, layer in enumerate((LAYER, OTHER, LAYER), start=1)
        ]

    play(database, scene)


def test_put_when_an_index_lists_a_child_twice_then_it_has_one_reference(database: Target) -> None:
    async def scene(s: Stage) -> None:
        pusher = await s.actor()
        await pusher.push("a", ONE)
        await pusher.push("a", index(ONE, ONE), "t")
        assert await s.count("manifest_references") == 1
        assert await delete(pusher, ONE) == ("referenced", [])

    play(database, scene)


def test_put_when_an_optional_child_comes_later_then_the_index_pushed_again_refers_to_it(
    database: Target,
) -> None:
    """With `validation.manifests.indexes.platforms: none` children may be missing; once there, they must stay."""

    async def scene(s: Stage) -> None:
        pusher = await s.actor()
        parent = index(ONE)

        async def put_parent() -> None:
            stored = await manifests.put(
                pusher.c,
                name_of("a"),
                parse_manifest(parent.payload, parent.media_type),
                manifest_digest(parent),
                [Tag("t")],
                optional_children=frozenset({ONE_DIGEST}),
            )
            assert isinstance(stored, int)

        await put_parent()
        await pusher.push("a", ONE)
        await put_parent()
        assert await s.count("manifest_references") == 1
        assert await delete(pusher, ONE) == ("referenced", [])

    play(database, scene)


def test_put_when_blobs_and_children_are_missing_then_all_are_named_and_nothing_is_written(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        pusher = await s.actor()
        await pusher.push_blob("a", LAYER)
        assert await pusher.put("a", TWO, "t") == Missing(
            sorted((Digest.of(OTHER), Digest.of(CONFIG)), key=lambda d: d.packed), []
        )
        entry = replace(
            index(ONE),
            payload=encoded(
                {
                    "schemaVersion": 2,
                    "mediaType": index().media_type,
                    "manifests": [
                        descriptor(ONE.payload, ONE.media_type),
                        descriptor(OTHER, "application/vnd.example.cache"),
                    ],
                }
            ),
        )
        assert await pusher.put("a", entry, "t") == Missing([Digest.of(OTHER)], [ONE_DIGEST])
        assert await pusher.put("nowhere", entry, "t") == Missing([Digest.of(OTHER)], [ONE_DIGEST])
        assert await s.count("manifests") == await s.count("tags") == 0
        assert await s.count("repositories") == 1

    play(database, scene)


def test_put_when_the_blob_belongs_to_another_repository_then_it_is_missing(database: Target) -> None:
    async def scene(s: Stage) -> None:
        pusher = await s.actor()
        await pusher.push("a", ONE, "t")
        await pusher.push_blob("b", CONFIG)
        assert await pusher.put("b", ONE, "t") == Missing([Digest.of(LAYER)], [])

    play(database, scene)
