"""What the actors of the interleavings do, on which data, and what must be true when they are done.

All of them work on the same two blobs and the same few manifests of repository `a`, so that they meet. A script returns
what the client was told, as promises: (kind, what) pairs that must still hold at the end, unless an actor took part
whose business it is to end them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from app.domain.digest import Digest
from app.domain.errors import ImmutableTag
from app.domain.limits import DEADLOCK_TRIES
from app.domain.manifests import parse_manifest
from app.domain.names import Tag
from app.store import blobs, collecting, lookups, manifests, repositories, uploads
from app.store.lookups import DigestKey
from app.store.manifests import Missing
from tests.store.scenes import digests, manifest_digest, name_of
from tests.support.invariants import assert_invariants
from tests.support.registry import Image, descriptor, image, index

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.store.uploads import Claim
    from tests.interleavings.theatre import Outcome, Theatre
    from tests.store.scenes import Actor

    Script = Callable[[Actor], Awaitable[Any]]

LAYER, CONFIG = b"a layer", b"{}"
# `{}` is a layer and the config at once.
ONE = image(LAYER, CONFIG, config=CONFIG)
TWO = image(LAYER, CONFIG, config=CONFIG, annotations={"which": "two"})
PARENT = index(ONE)
SIGNATURE = image(CONFIG, config=CONFIG, subject=descriptor(ONE.payload, ONE.media_type))
LAYER_DIGEST = Digest.of(LAYER)
HOUR: Final = timedelta(hours=1)
NAMED: Final = "SELECT storage_key FROM blobs UNION ALL SELECT storage_key FROM blob_uploads"
Promise = tuple[str, str]


def blob_promise(path: str, digest: Digest) -> Promise:
    return f"blob of {path}", str(digest)


def manifest_promise(stored: Image) -> Promise:
    return "manifest", str(manifest_digest(stored))


def tag_promise(tag: str, stored: Image) -> Promise:
    return f"tag {tag}", str(manifest_digest(stored))


async def put_immutable(actor: Actor, stored: Image, *tags: str) -> int | Missing:
    """Put the manifest under tags that must be new."""
    manifest, names = parse_manifest(stored.payload, stored.media_type), [Tag(tag) for tag in tags]
    return await manifests.put(
        actor.c, name_of("a"), manifest, manifest_digest(stored), names, immutable=names
    )


@dataclass
class World:
    """One example's data, and what the actors do with it."""

    theatre: Theatre
    # Without it whatever becomes suspect is due at once, and only what a tag needs must stay.
    grace: bool = True
    # The kinds of promises that an actor of this cast may end.
    ended: set[str] = field(default_factory=set[str])
    repository: int = 0
    session: Claim | None = None
    # Keys whose objects a remover has deleted.
    removed: set[str] = field(default_factory=set[str])

    # Before

    async def prepare(self, state: str) -> None:
        """Everything that is there is due for review."""
        crew = self.theatre.crew
        await collecting.set_review_after(crew.c, timedelta(hours=24))
        self.repository = await repositories.ensure(crew.c, name_of("a"))
        await repositories.ensure(crew.c, name_of("b"))
        if state not in ("nothing", "suspected twice"):
            await crew.push_blobs("a", ONE)
        if state not in ("nothing", "suspected twice", "blobs"):
            await crew.put("a", ONE, *(["t"] if state == "tagged" else []))
        if state == "indexed":
            await crew.put("a", PARENT)
        if state == "signed":
            await crew.put("a", SIGNATURE)
        if state == "suspected twice":
            await crew.push_blob("a", LAYER)
            await crew.value(
                "INSERT INTO gc_blob_review_queue (digest, review_after, event)"
                " SELECT digest, review_after, 'layer_delete' FROM gc_blob_review_queue"
            )
        self.session = await crew.session("a")
        await crew.value("UPDATE blob_uploads SET updated_at = now() - interval '8 days'")
        await crew.fall_due()
        if not self.grace:
            await collecting.set_review_after(crew.c, timedelta(0))

    # Scripts

    async def push_blob(self, actor: Actor) -> list[Promise]:
        """Finish an upload of a blob: a re-push where the blob is there."""
        assert self.session is not None
        if not await uploads.finish(actor.c, self.session, LAYER_DIGEST, len(LAYER)):
            return []
        return [blob_promise("a", LAYER_DIGEST)]

    async def mount(self, actor: Actor) -> list[Promise]:
        target = await actor.value("SELECT id FROM repositories WHERE path = 'b'")
        mounted = await blobs.mount(actor.c, self.repository, target, LAYER_DIGEST)
        return [blob_promise("b", LAYER_DIGEST)] if mounted else []

    async def put_manifest(self, actor: Actor) -> list[Promise]:
        return await self._put(actor, ONE)

    async def tag(self, actor: Actor) -> list[Promise]:
        return await self._put(actor, ONE, "u")

    async def retag(self, actor: Actor) -> list[Promise]:
        """The tag of ONE goes to TWO."""
        return await self._put(actor, TWO, "t")

    async def put_fixed(self, actor: Actor) -> list[Promise]:
        """ONE under a tag that is immutable to this caller, and so must be new."""
        return await self._put_fixed(actor, ONE)

    async def put_fixed_two(self, actor: Actor) -> list[Promise]:
        """TWO under the same tag."""
        return await self._put_fixed(actor, TWO)

    async def put_index(self, actor: Actor) -> list[Promise]:
        return await self._put(actor, PARENT, "i")

    async def put_signature(self, actor: Actor) -> list[Promise]:
        return await self._put(actor, SIGNATURE)

    async def untag(self, actor: Actor) -> list[Promise]:
        await manifests.untag(actor.c, self.repository, Tag("t"))
        return []

    async def delete_manifest(self, actor: Actor) -> list[Promise]:
        await manifests.delete(actor.c, self.repository, manifest_digest(ONE))
        await repositories.settle_has_tags(actor.c, self.repository)
        return []

    async def unlink(self, actor: Actor) -> list[Promise]:
        await blobs.unlink(actor.c, self.repository, LAYER_DIGEST)
        return []

    async def head(self, actor: Actor) -> list[Promise]:
        """HEAD of the layer."""
        return [blob_promise("a", LAYER_DIGEST)] if await self._exists(actor, LAYER_DIGEST) else []

    async def head_manifest(self, actor: Actor) -> list[Promise]:
        key = DigestKey(self.repository, name_of("a"), manifest_digest(ONE).packed)
        found = (await lookups.manifests_by_digest(actor.c, [key])).get(key)
        if found is None or (found.due and not await manifests.keep(actor.c, self.repository, found.id)):
            return []
        return [manifest_promise(ONE)]

    async def head_then_put(self, actor: Actor) -> list[Promise]:
        """As clients push: ask for each blob, upload what is missing, put the manifest, which must succeed."""
        for content in dict.fromkeys(ONE.blobs):
            if not await self._exists(actor, Digest.of(content)):
                await actor.push_blob("a", content)
            await self.theatre.pause(actor, "HEAD answered")
        promises = await self._put(actor, ONE, "h")
        may_be_missing = not self.grace or "blob" in self.ended
        assert promises or may_be_missing, "what HEAD said exists is missing"
        return promises

    async def collect_manifests(self, actor: Actor) -> list[Promise]:
        await actor.collect_manifests()
        return []

    async def collect_blobs(self, actor: Actor) -> list[Promise]:
        await actor.collect_blobs()
        return []

    async def collect_one_blob(self, actor: Actor) -> list[Promise]:
        """One review, as if the batch were that small."""
        await actor.collect_blobs(limit=1)
        return []

    async def remove_objects(self, actor: Actor) -> list[Promise]:
        taken = [t.storage_key for t in await collecting.take_tombstones(actor.c, 100, HOUR)]
        self.removed.update(taken)
        await self.theatre.pause(actor, "objects removed")
        await collecting.settle_tombstones(actor.c, taken)
        return []

    async def purge_upload(self, actor: Actor) -> list[Promise]:
        await collecting.expire_uploads(actor.c, 100, timedelta(days=7), timedelta(0))
        return []

    async def pause(self, actor: Actor) -> list[Promise]:
        """Whoever has paused the collectors finds the same number of blobs ever after."""
        await collecting.set_paused(actor.c, is_paused=True, reason="")
        return [("count", await actor.value("SELECT count(*)::text FROM blobs"))]

    async def _put(self, actor: Actor, stored: Image, *tags: str) -> list[Promise]:
        if isinstance(await actor.put("a", stored, *tags), Missing):
            return []
        return self._put_promises(stored, *tags)

    async def _put_fixed(self, actor: Actor, stored: Image) -> list[Promise]:
        """Tried again as `Database.write` does."""
        for left in reversed(range(DEADLOCK_TRIES)):
            try:
                put = await put_immutable(actor, stored, "t")
                return [] if isinstance(put, Missing) else self._put_promises(stored, "t")
            except ImmutableTag:
                return []
            except asyncpg.SerializationError:
                if not left:
                    raise
        raise AssertionError

    def _put_promises(self, stored: Image, *tags: str) -> list[Promise]:
        return [
            manifest_promise(stored),
            *(tag_promise(tag, stored) for tag in tags),
            *(blob_promise("a", digest) for digest in digests(stored)),
        ]

    async def _exists(self, actor: Actor, digest: Digest) -> bool:
        key = DigestKey(self.repository, name_of("a"), digest.packed)
        found = (await lookups.blobs_by_digest(actor.c, [key])).get(key)
        return found is not None and (not found.due or await blobs.keep(actor.c, digest))

    # After

    async def assert_right(self, outcome: Outcome) -> None:
        """Nobody saw an error, nothing promised is gone, nothing needed is damaged, nothing unused stays."""
        crew = self.theatre.crew
        assert not outcome.errors, outcome.errors
        there = await self._there(crew)
        promises: set[Promise] = {promise for promises in outcome.results for promise in promises}
        for promise in promises:
            if self.grace and promise[0].split()[0] not in self.ended:
                assert promise in there, f"{promise} was promised and is gone"
        await self._assert_objects_are_there(crew)
        # A manifest that lacks a part by now lacks it after the last pass, too.
        await collecting.set_paused(crew.c, is_paused=False)
        self.removed.update(await crew.collect_everything())
        await self._assert_sound(crew)
        leaked = await crew.leaked()
        assert not leaked, f"leaked: {leaked}"

    async def _assert_sound(self, crew: Actor) -> None:
        await self._assert_objects_are_there(crew)
        try:
            await assert_invariants(self.theatre.target)
        except AssertionError as error:
            raise AssertionError(str(error) or "the rows of a manifest are not what its bytes say") from error

    async def _assert_objects_are_there(self, crew: Actor) -> None:
        """What a blob or a session names was not removed, and will not be."""
        named = {row[0] for row in await crew.raw.fetch(NAMED)}
        buried = {row[0] for row in await crew.raw.fetch("SELECT storage_key FROM gc_storage_deletions")}
        assert not named & self.removed, f"removed, and still named: {named & self.removed}"
        assert not named & buried, f"to be removed, and still named: {named & buried}"

    async def _there(self, crew: Actor) -> set[Promise]:
        found: set[Promise] = {("count", await crew.value("SELECT count(*)::text FROM blobs"))}
        for path, digest in await crew.raw.fetch(
            "SELECT r.path, b.digest FROM blobs AS b JOIN repository_blobs AS l ON l.blob_digest = b.digest"
            " JOIN repositories AS r ON r.id = l.repository_id"
        ):
            found.add(blob_promise(path, Digest.unpack(digest)))
        for (digest,) in await crew.raw.fetch("SELECT digest FROM manifests"):
            found.add(("manifest", str(Digest.unpack(digest))))
        found |= {(f"tag {tag}", digest) for tag, digest in (await crew.tags()).items()}
        return found


# What an actor may end: the first words of promises.
ENDS: Final = {"unlink": {"blob"}, "untag": {"tag"}, "delete_manifest": {"manifest", "tag"}, "retag": {"tag"}}
STATES: Final = ("nothing", "suspected twice", "blobs", "untagged", "tagged", "indexed", "signed")
COLLECTORS: Final = ("collect_manifests", "collect_blobs", "remove_objects", "purge_upload")
CLIENTS: Final = (
    "push_blob", "mount", "put_manifest", "tag", "retag", "put_fixed", "put_fixed_two", "put_index", "put_signature",
    "untag", "delete_manifest", "unlink", "head", "head_manifest", "head_then_put",
)  # fmt: skip
# They take what nobody holds, and so never wait.
NEVER_WAIT: Final = ("collect_manifests", "collect_blobs", "purge_upload")
