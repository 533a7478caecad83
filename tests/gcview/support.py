"""A registry's rows, made by its own statements, and the command line that looks at them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.domain.digest import Digest
from tests.server.test_cli import call, configuration
from tests.store.scenes import Actor
from tests.support.postgres import connected
from tests.support.registry import digest_of, image, index

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from app.store.engine import Target
    from tests.support.registry import Image

# Everything that is pending is due, and was for a while.
DUE = """
    UPDATE gc_blob_review_queue SET review_after = now() - interval '2 hours';
    UPDATE gc_manifest_review_queue SET review_after = now() - interval '2 hours'
"""


@dataclass(frozen=True)
class Ran:
    """What a command printed, and its exit code."""

    code: int
    output: str
    errors: str

    @property
    def lines(self) -> list[str]:
        return self.output.splitlines()

    @property
    def json(self) -> Any:
        return json.loads(self.output)

    @property
    def documents(self) -> list[Any]:
        return [json.loads(line) for line in self.lines]


@dataclass(frozen=True)
class Scene:
    """A database and a configuration that names it."""

    target: Target
    config: Path

    def act(self, work: Callable[[Actor], Awaitable[Any]]) -> Any:
        """Do something to the database as the API does it."""

        async def run() -> Any:
            async with connected(self.target) as raw:
                return await work(Actor(raw))

        return asyncio.run(run())

    def sql(self, *statements: str) -> None:
        async def run(actor: Actor) -> None:
            for statement in statements:
                await actor.raw.execute(statement)

        self.act(run)

    def rows(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        return [dict(row) for row in self.act(lambda actor: actor.raw.fetch(sql, *arguments))]

    def gc(self, *arguments: str, **variables: str) -> Ran:
        """Run `registry gc` with these arguments and the configuration."""
        return Ran(*call("gc", *arguments, self.config, **variables))


def scene(tmp_path: Path, target: Target) -> Scene:
    return Scene(target, configuration(tmp_path, target))


@dataclass(frozen=True)
class Shelf:
    """A repository `a/b` with one of each: what is kept for every reason there is, and what goes.

    Of everything a review is due, but a later one is pending of `touched` and of the blob `awaited`.
    """

    tagged: Image
    child: Image
    index: Image
    referrer: Image
    untagged: Image
    orphan: Image
    touched: Image
    free: bytes = b"free" * 1000
    awaited: bytes = b"awaited"
    lost: bytes = b"lost"

    @property
    def goes(self) -> set[str]:
        """What one pass deletes, by name."""
        manifests = {f"a/b@{one.digest()}" for one in (self.untagged, self.orphan)}
        return manifests | {digest_of(self.free), digest_of(self.lost)}

    @property
    def manifests(self) -> tuple[Image, ...]:
        return (
            self.tagged, self.child, self.index, self.referrer, self.untagged, self.orphan, self.touched,
        )  # fmt: skip


def shelve(s: Scene) -> Shelf:
    """Fill the empty database."""
    tagged, child = image(b"tagged", b"shared"), image(b"child", b"shared")
    subject = {"mediaType": tagged.media_type, "digest": tagged.digest(), "size": len(tagged.payload)}
    shelf = Shelf(
        tagged=tagged,
        child=child,
        index=index(child),
        referrer=image(b"signature", subject=subject),
        untagged=image(b"untagged", b"shared"),
        orphan=image(b"of nothing", subject={**subject, "digest": digest_of(b"nothing")}),
        touched=image(b"touched"),
    )

    async def push(actor: Actor) -> None:
        await actor.push("a/b", shelf.tagged, "v1", "v2")
        await actor.push("a/b", shelf.child)
        await actor.put("a/b", shelf.index, "multi")
        for one in (shelf.referrer, shelf.untagged, shelf.orphan, shelf.touched):
            await actor.push("a/b", one)
        for blob in (shelf.free, shelf.awaited, shelf.lost):
            await actor.push_blob("a/b", blob)
        # More than one review of the same thing.
        await actor.put("a/b", shelf.untagged, "moved")
        await actor.put("a/b", shelf.tagged, "moved")

    s.act(push)
    s.sql(
        DUE,
        "DELETE FROM gc_storage_deletions",
        f"UPDATE blobs SET storage_key = NULL WHERE digest = {packed(shelf.lost)}",
        "INSERT INTO gc_blob_review_queue (digest, review_after, event)"
        f" VALUES ({packed(shelf.awaited)}, now() + interval '3 hours', 'touch')",
        "INSERT INTO gc_manifest_review_queue (repository_id, manifest_id, review_after, event)"
        " SELECT repository_id, id, now() + interval '3 hours', 'touch' FROM manifests"
        f" WHERE digest = {packed(shelf.touched.payload)}",
    )
    return shelf


def packed(content: bytes) -> str:
    """The digest of the content, as SQL."""
    return f"'\\x{Digest.of(content).packed.hex()}'"


def collect(s: Scene, *, keep_untagged: bool = False) -> set[str]:
    """One pass of both reviews. Returns what it deleted, by name."""
    before = "(SELECT coalesce(max(id), 0) FROM gc_receipts)"
    [[last]] = [row.values() for row in s.rows(f"SELECT {before}")]
    s.sql(
        f"SELECT gc_collect_manifests(1000, NULL, {keep_untagged})",
        "SELECT gc_collect_blobs(1000, NULL, interval '1 hour')",
    )
    found = s.rows(
        "SELECT coalesce(repository || '@', '') || gc_digest_text(digest) AS name FROM gc_receipts"
        " WHERE id > $1",
        last,
    )
    return {row["name"] for row in found}
