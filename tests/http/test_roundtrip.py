"""The shortest round trip: what was pushed is what is pulled, also through a pooler that shares connections."""

from __future__ import annotations

from tests.http.support import served
from tests.support.registry import Registry, image, index


async def round_trip(registry: Registry) -> None:
    child = await registry.push_image("a/b", "child", image(b"one", b"two"))
    parent = await registry.push_image("a/b", "latest", index(child))
    referrer = image(subject={"mediaType": child.media_type, "digest": child.digest(), "size": 1})
    await registry.push_image("a/b", "referrer", referrer)
    for reference, manifest in (("latest", parent), (child.digest(), child)):
        answer = await registry.client.get(f"/v2/a/b/manifests/{reference}")
        assert (answer.status_code, answer.content) == (200, manifest.payload)
        assert answer.headers["Docker-Content-Digest"] == manifest.digest()
    listed = (await registry.client.get(f"/v2/a/b/referrers/{child.digest()}")).json()
    assert [entry["digest"] for entry in listed["manifests"]] == [referrer.digest()]
    assert (await registry.client.get("/v2/a/b/tags/list")).json()["tags"] == ["child", "latest", "referrer"]
    for manifest in (parent, child):
        assert (await registry.client.delete(f"/v2/a/b/manifests/{manifest.digest()}")).status_code == 202
    assert (await registry.client.get("/v2/a/b/manifests/latest")).status_code == 404


@served()
async def test_image_when_pushed_then_pulled_byte_by_byte(registry: Registry) -> None:
    await round_trip(registry)


@served(prepared_statements=False)
async def test_image_when_nothing_is_kept_on_connections_is_pulled_byte_by_byte(registry: Registry) -> None:
    await round_trip(registry)
