"""Tags that are immutable to whoever pushes them: one push wins, and who is refused has changed nothing.

Other callers may have no such rules. They move and delete the tag as ever, and what a push with rules then finds is
what is committed by the time it writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

from app.domain.errors import ImmutableTag
from app.domain.names import Tag
from app.store import manifests
from tests.interleavings.theatre import Directed
from tests.interleavings.world import ONE, TWO, put_immutable
from tests.store.scenes import manifest_digest, play

if TYPE_CHECKING:
    from app.store.engine import Target
    from tests.interleavings.play import Playhouse
    from tests.interleavings.world import Promise, World
    from tests.store.scenes import Actor, Stage
    from tests.support.registry import Image

T = Tag("t")


@pytest.mark.parametrize("late", [ONE, TWO], ids=["the same manifest", "another manifest"])
def test_pushes_when_of_one_immutable_tag_then_the_late_one_waits_and_is_undone_and_then_refused(
    database: Target, late: Image
) -> None:
    async def scene(s: Stage) -> None:
        early, other = await s.actors(2)
        await early.push_blobs("a", ONE)
        async with early.transaction():
            assert isinstance(await put_immutable(early, ONE, "t"), int)
            # Its own tag `a` and its manifest are written by the time it comes to `t`.
            pushing = s.start(other, put_immutable(other, late, "a", "t"))
            await s.waits(pushing)
        with pytest.raises(asyncpg.SerializationError):
            await pushing
        with pytest.raises(ImmutableTag) as refused:
            await put_immutable(other, late, "a", "t")
        assert refused.value.detail == 'tag "t" is immutable'
        assert await early.tags() == {"t": str(manifest_digest(ONE))}
        assert await s.count("manifests") == 1

    play(database, scene)


def test_pushes_when_the_early_one_is_undone_then_the_late_one_has_the_immutable_tag(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        early, other = await s.actors(2)
        await early.push_blobs("a", ONE)
        undone = early.transaction()
        await undone.start()
        assert isinstance(await put_immutable(early, ONE, "t"), int)
        pushing = s.start(other, put_immutable(other, TWO, "t"))
        await s.waits(pushing)
        await undone.rollback()
        assert isinstance(await pushing, int)
        assert await other.tags() == {"t": str(manifest_digest(TWO))}

    play(database, scene)


def test_pushes_when_their_immutable_tags_come_in_any_order_then_neither_waits_for_the_other_in_a_circle(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        one, two = await s.actors(2)
        await one.push_blobs("a", ONE)
        async with one.transaction():
            assert isinstance(await put_immutable(one, ONE, "a", "c"), int)
            pushing = s.start(two, put_immutable(two, TWO, "d", "c", "b"))
            await s.waits(pushing)
            # Were `d` held by now, this would be a deadlock.
            assert isinstance(await put_immutable(one, ONE, "d"), int)
        with pytest.raises(asyncpg.SerializationError):
            await pushing
        assert set(await one.tags()) == {"a", "c", "d"}

    play(database, scene)


def test_push_when_its_immutable_tag_is_being_deleted_then_it_is_refused_until_that_is_committed(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        pusher, remover = await s.actors(2)
        repository = await pusher.push("a", ONE, "t", "another")
        async with remover.transaction():
            assert await manifests.untag(remover.c, repository, T)
            with pytest.raises(ImmutableTag):
                await put_immutable(pusher, TWO, "t")
        assert isinstance(await put_immutable(pusher, TWO, "t"), int)
        assert (await pusher.tags())["t"] == str(manifest_digest(TWO))

    play(database, scene)


def test_push_when_its_immutable_tag_is_being_deleted_and_is_the_last_then_it_waits_and_has_the_tag(
    database: Target,
) -> None:
    """A repository whose last tag goes is held until that is done (`settle_has_tags`)."""

    async def scene(s: Stage) -> None:
        pusher, remover = await s.actors(2)
        repository = await pusher.push("a", ONE, "t")
        async with remover.transaction():
            assert await manifests.untag(remover.c, repository, T)
            pushing = s.start(pusher, put_immutable(pusher, TWO, "t"))
            await s.waits(pushing)
        assert isinstance(await pushing, int)
        assert await pusher.tags() == {"t": str(manifest_digest(TWO))}

    play(database, scene)


def test_delete_when_the_immutable_tag_is_being_pushed_then_there_is_none_to_delete(
    database: Target,
) -> None:
    async def scene(s: Stage) -> None:
        pusher, remover = await s.actors(2)
        repository = await pusher.push("a", ONE)
        async with pusher.transaction():
            assert await put_immutable(pusher, ONE, "t") == repository
            assert not await manifests.untag(remover.c, repository, T)
        assert await pusher.tags() == {"t": str(manifest_digest(ONE))}

    play(database, scene)


def test_push_when_its_immutable_tag_has_come_and_is_being_deleted_then_it_waits_and_has_the_tag(
    playhouse: Playhouse,
) -> None:
    """The push has looked before the tag came; somebody without rules has moved it there, and takes it away again."""

    async def scene(world: World) -> None:
        async def untag(actor: Actor) -> list[Promise]:
            await world.theatre.pause(actor, "deletes")
            return await world.untag(actor)

        await world.prepare("blobs")
        parts = ((0, "INSERT INTO manifests"), (1, None), (2, "IF EXISTS"), (0, None))
        outcome = await world.theatre.perform((world.put_fixed, world.retag, untag), Directed(*parts))
        assert not outcome.errors, outcome.errors
        assert (0, 2) in outcome.waited
        assert ("tag t", str(manifest_digest(ONE))) in outcome.results[0]
        assert await world.theatre.crew.tags() == {"t": str(manifest_digest(ONE))}

    playhouse.run(scene)
