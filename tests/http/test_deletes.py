"""Deletes: what goes with what, what is refused, and that nobody anywhere sees it a moment later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.http.support import ABSENT, another, contents, pulled, refused, served, unnamed_objects
from tests.support.registry import digest_of, image, index

if TYPE_CHECKING:
    from pathlib import Path

    from app.store.engine import Target
    from tests.support.registry import Registry

LAYER = digest_of(b"a layer")
CONFIG = digest_of(b"{}")


async def delete(registry: Registry, path: str, name: str = "a/b") -> None:
    """A delete that succeeds, as clients see it."""
    answer = await registry.client.delete(f"/v2/{name}/{path}")
    assert (answer.status_code, answer.headers["Content-Length"]) == (202, "0"), answer.text


async def status(registry: Registry, path: str, name: str = "a/b") -> int:
    """Of HEAD, which agrees with GET."""
    head = await registry.client.head(f"/v2/{name}/{path}")
    assert (await registry.client.get(f"/v2/{name}/{path}")).status_code == head.status_code
    return head.status_code


@served()
async def test_tag_when_deleted_leaves_the_manifest_and_its_other_tags(registry: Registry) -> None:
    pushed = await registry.push_image("a/b", "one")
    await registry.push_image("a/b", "two")
    await delete(registry, "manifests/one")
    assert await status(registry, "manifests/one") == 404
    assert await status(registry, "manifests/two") == 200
    assert await status(registry, f"manifests/{pushed.digest()}") == 200
    assert (await registry.client.get("/v2/a/b/tags/list")).json()["tags"] == ["two"]
    refused(await registry.client.delete("/v2/a/b/manifests/one"), 404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@served()
async def test_digest_when_deleted_takes_all_its_tags_and_no_others(
    registry: Registry, algorithm: str
) -> None:
    first, second = image(b"first", algorithm=algorithm), image(b"second", algorithm=algorithm)
    for manifest, tags in ((first, ("one", "two")), (second, ("three",))):
        await registry.push_image("a/b", "start", manifest, algorithm)
        query = "&".join(f"tag={tag}" for tag in tags)
        answer = await registry.put_manifest("a/b", f"{manifest.digest(algorithm)}?{query}", manifest)
        assert answer.status_code == 201
    await delete(registry, f"manifests/{first.digest(algorithm)}")
    assert await status(registry, f"manifests/{first.digest(algorithm)}") == 404
    for tag, expected in (("one", 404), ("two", 404), ("three", 200)):
        assert await status(registry, f"manifests/{tag}") == expected
    assert (await registry.client.get("/v2/a/b/tags/list")).json()["tags"] == ["start", "three"]
    answer = await registry.client.delete(f"/v2/a/b/manifests/{first.digest(algorithm)}")
    refused(answer, 404, "MANIFEST_UNKNOWN")


@served()
async def test_manifest_when_deleted_stays_in_other_repositories(registry: Registry) -> None:
    pushed = await registry.push_image("a/b", "latest")
    await registry.push_image("other", "latest")
    await delete(registry, f"manifests/{pushed.digest()}")
    await delete(registry, f"blobs/{LAYER}")
    assert await status(registry, "manifests/latest", "other") == 200
    assert await pulled(registry, "other", LAYER) == b"a layer"
    assert await status(registry, f"blobs/{LAYER}") == 404


@served()
async def test_child_of_an_index_when_deleted_gets_409_until_the_index_is_gone(registry: Registry) -> None:
    child = await registry.push_image("a/b", "child")
    inner = await registry.push_image("a/b", "inner", index(child))
    outer = await registry.push_image("a/b", "outer", index(inner))
    before = await contents(registry)
    for manifest in (child, inner):
        answer = await registry.client.delete(f"/v2/a/b/manifests/{manifest.digest()}")
        assert manifest.digest() in refused(answer, 409, "MANIFEST_REFERENCED")
    assert await contents(registry) == before
    await delete(registry, "manifests/child")  # only the tag: nobody needs that
    for manifest in (outer, inner, child):
        await delete(registry, f"manifests/{manifest.digest()}")
        assert await status(registry, f"manifests/{manifest.digest()}") == 404


@served()
async def test_blob_when_a_manifest_uses_it_gets_405_with_the_reason(registry: Registry) -> None:
    pushed = await registry.push_image("a/b", "latest")
    before = await contents(registry)
    for digest in (LAYER, CONFIG):
        answer = await registry.client.delete(f"/v2/a/b/blobs/{digest}")
        assert digest in refused(answer, 405, "UNSUPPORTED")
        assert answer.headers["Allow"] == "GET, HEAD"
    assert await contents(registry) == before
    await delete(registry, f"manifests/{pushed.digest()}")
    for digest in (LAYER, CONFIG):
        await delete(registry, f"blobs/{digest}")
        assert await status(registry, f"blobs/{digest}") == 404
        refused(await registry.client.delete(f"/v2/a/b/blobs/{digest}"), 404, "BLOB_UNKNOWN")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@served()
async def test_blob_when_deleted_and_pushed_again_is_there(registry: Registry, algorithm: str) -> None:
    digest = await registry.push_blob("a/b", b"content", algorithm)
    await delete(registry, f"blobs/{digest}")
    assert await status(registry, f"blobs/{digest}") == 404
    assert await registry.push_blob("a/b", b"content", algorithm) == digest
    assert await pulled(registry, "a/b", digest) == b"content"
    assert await unnamed_objects(registry) == []


@served()
async def test_manifest_when_deleted_and_pushed_again_is_there(registry: Registry) -> None:
    pushed = await registry.push_image("a/b", "latest")
    await delete(registry, f"manifests/{pushed.digest()}")
    await registry.push_image("a/b", "latest")
    assert (await registry.client.get("/v2/a/b/manifests/latest")).content == pushed.payload


@served()
async def test_delete_when_there_is_nothing_gets_404(registry: Registry) -> None:
    await registry.push_image("a/b", "latest")
    before = await contents(registry)
    for path, code in (
        ("manifests/none", "MANIFEST_UNKNOWN"),
        (f"manifests/{ABSENT}", "MANIFEST_UNKNOWN"),
        (f"manifests/{LAYER}", "MANIFEST_UNKNOWN"),
        ("manifests/-not-a-tag", "MANIFEST_UNKNOWN"),
        (f"blobs/{ABSENT}", "BLOB_UNKNOWN"),
        (f"blobs/{image(b'a layer').digest()}", "BLOB_UNKNOWN"),
    ):
        refused(await registry.client.delete(f"/v2/a/b/{path}"), 404, code)
        refused(
            await registry.client.delete(f"/v2/never/pushed/{path}"),
            404,
            "NAME_UNKNOWN" if "not-a" not in path else code,
        )
    for path in ("manifests/sha256:baddigeststring", "blobs/latest", "blobs/sha256:abc"):
        refused(await registry.client.delete(f"/v2/a/b/{path}"), 400, "DIGEST_INVALID")
    assert await contents(registry) == before


@served()
async def test_delete_when_done_is_seen_at_once_by_every_process(
    registry: Registry, database: Target, tmp_path: Path
) -> None:
    """Both processes know the repository, its manifests and blobs when the first one deletes them."""
    pushed = await registry.push_image("a/b", "latest")
    await registry.push_image("a/b", "other")
    loose = await registry.push_blob("a/b", b"loose")
    paths = ["manifests/latest", "manifests/other", f"manifests/{pushed.digest()}", f"blobs/{loose}"]
    async with another(database, tmp_path) as replica:
        for path in paths:
            assert await status(replica, path) == 200
        await delete(registry, "manifests/latest")
        assert [await status(replica, path) for path in paths] == [404, 200, 200, 200]
        await delete(registry, f"manifests/{pushed.digest()}")
        await delete(registry, f"blobs/{loose}")
        for process in (registry, replica):
            assert [await status(process, path) for path in paths] == [404] * 4
            assert (await process.client.get("/v2/a/b/tags/list")).json()["tags"] == []
            assert (await process.client.get("/v2/_catalog")).json()["repositories"] == []
        await replica.push_image("a/b", "latest")
        assert await status(registry, "manifests/latest") == 200


@served()
async def test_repository_when_renamed_in_the_database_is_not_served_under_its_old_name(
    registry: Registry,
) -> None:
    """What a process remembers of names must not outlive them."""
    pushed = await registry.push_image("old/name", "latest")
    await registry.push_image("bystander", "latest", image(b"another"))
    assert await status(registry, "manifests/latest", "old/name") == 200
    await registry.rows("UPDATE repositories SET path = 'new/name' WHERE path = 'old/name'")
    await registry.rows("UPDATE repositories SET path = 'old/name' WHERE path = 'bystander'")
    assert await status(registry, f"manifests/{pushed.digest()}", "old/name") == 404
    assert await status(registry, f"blobs/{LAYER}", "old/name") == 404
    assert await status(registry, f"manifests/{pushed.digest()}", "new/name") == 200
    assert await status(registry, "manifests/latest", "bystander") == 404
