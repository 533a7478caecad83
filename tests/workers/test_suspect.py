"""`registry gc suspect`: what is unused and not suspect, however that came, becomes suspect, and nothing else does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from app.store import collecting
from tests.support.registry import image, index
from tests.workers.support import open_site

if TYPE_CHECKING:
    from pathlib import Path

    from app.store.engine import Target
    from tests.workers.support import Site


async def suspect(site: Site, page: int) -> tuple[int, int]:
    """How many manifests and blobs were looked at, in pages of that size."""
    manifests, place = 0, (0, 0)
    while place is not None:
        found = await site.database.write(lambda c, at=place: collecting.suspect_manifests(c, page, at))
        manifests, place = manifests + found.looked_at, found.last
    blobs, digest = 0, b""
    while digest is not None:
        seen = await site.database.write(lambda c, at=digest: collecting.suspect_blobs(c, page, at))
        blobs, digest = blobs + seen.looked_at, seen.last
    return manifests, blobs


def test_suspect_when_reviews_were_settled_without_deleting_then_the_unused_is_reviewed_again_once(
    database: Target, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with open_site(database, tmp_path) as site:
            child, kept, gone = image(b"child"), image(b"kept"), image(b"gone")
            await site.registry.push_image("a", child.digest(), child)
            await site.registry.push_image("a", "list", index(child))
            await site.registry.push_image("b", "v1", kept)
            await site.registry.push_image("b", gone.digest(), gone)
            await site.registry.push_blob("c", b"never used")
            for queue in ("gc_manifest_review_queue", "gc_blob_review_queue"):
                await site.run(f"DELETE FROM {queue}")

            for page in (1, 2, 100):  # a second time finds that a review is pending
                assert await suspect(site, page) == (4, 5)
                digests = await site.run(
                    "SELECT array_agg(m.digest) FROM gc_manifest_review_queue JOIN manifests m ON m.id = manifest_id"
                    " WHERE event = 'sweep' AND review_after > now() + interval '23 hours'"
                )
                assert [digest[1:].hex() for digest in digests] == [gone.digest().partition(":")[2]]
                sizes = await site.run(
                    "SELECT array_agg(size) FROM gc_blob_review_queue JOIN blobs USING (digest) WHERE event = 'sweep'"
                )
                assert sizes == [len(b"never used")]

    asyncio.run(scenario())
