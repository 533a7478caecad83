"""A refused write changes nothing: no table has a row more or less, and no object is without a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.http.call import ApiRules
from tests.http.support import ABSENT, counts, open_upload, patch, refused, served, unnamed_objects
from tests.support.registry import digest_of, image, index

if TYPE_CHECKING:
    from tests.support.registry import Registry

LAYER = digest_of(b"a layer")
IMAGE = image(b"a layer")
WRITES: list[tuple[str, str, bytes, int]] = [
    ("PUT", "/v2/a/b/manifests/latest", b"{}", 400),
    ("PUT", "/v2/a/b/manifests/latest", image(b"absent").payload, 400),
    ("PUT", "/v2/a/b/manifests/latest", index(image(b"absent")).payload, 400),
    ("PUT", "/v2/a/b/manifests/latest", b" " * (4 * 1024 * 1024 + 1), 413),
    ("PUT", f"/v2/a/b/manifests/{ABSENT}", IMAGE.payload, 400),
    ("PUT", f"/v2/a/b/manifests/{ABSENT}?tag=x", IMAGE.payload, 400),
    ("PUT", f"/v2/a/b/manifests/{IMAGE.digest()}?tag=ok&tag=-bad", IMAGE.payload, 400),
    ("PUT", f"/v2/a/b/manifests/{IMAGE.digest()}?" + "tag=x&" * 65, IMAGE.payload, 414),
    ("PUT", "/v2/a/b/manifests/latest?tag=x", IMAGE.payload, 400),
    ("PUT", "/v2/a/b/manifests/-bad", IMAGE.payload, 400),
    ("PUT", "/v2/BAD/manifests/latest", IMAGE.payload, 400),
    ("PUT", "/v2/new/manifests/latest", IMAGE.payload, 400),
    ("POST", "/v2/BAD/blobs/uploads/", b"", 400),
    ("POST", "/v2/new/blobs/uploads/?digest=bad", b"x", 400),
    ("POST", "/v2/new/blobs/uploads/?digest-algorithm=md5", b"", 400),
    ("POST", "/v2/new/blobs/uploads/?mount=bad&from=a/b", b"", 400),
    ("PATCH", "{upload}", b"out of order", 416),
    ("PUT", "{upload}?digest=" + ABSENT, b"out of order", 416),
    ("PUT", "{upload}", b"", 400),
    ("PUT", "{upload}?digest=bad", b"", 400),
    ("PATCH", "/v2/a/b/blobs/uploads/00000000-0000-4000-8000-000000000000", b"x", 404),
    ("PATCH", "{foreign}", b"x", 404),
    ("PUT", "{foreign}?digest=" + digest_of(b"x"), b"x", 404),
    ("DELETE", "{foreign}", b"", 404),
    ("DELETE", "/v2/a/b/manifests/none", b"", 404),
    ("DELETE", f"/v2/a/b/manifests/{ABSENT}", b"", 404),
    ("DELETE", f"/v2/a/b/manifests/{IMAGE.digest()}", b"", 409),
    ("DELETE", f"/v2/a/b/blobs/{LAYER}", b"", 405),
    ("DELETE", f"/v2/a/b/blobs/{ABSENT}", b"", 404),
    ("DELETE", f"/v2/other/blobs/{LAYER}", b"", 404),
    ("DELETE", "/v2/a/b/blobs/bad", b"", 400),
    ("DELETE", "/v2/never/manifests/latest", b"", 404),
    ("POST", "/v2/a/b/manifests/latest", b"", 405),
    ("PUT", "/v2/a/b/tags/list", b"", 405),
    ("PUT", f"/v2/a/b/blobs/{LAYER}", b"a layer", 405),
    ("DELETE", "/v2/_catalog", b"", 405),
]  # fmt: skip


@served()
async def test_write_when_refused_changes_no_table_and_leaves_no_object(registry: Registry) -> None:
    await registry.push_image("a/b", "latest", IMAGE)
    await registry.push_image("a/b", "index", index(IMAGE))
    await registry.push_blob("other", b"something")
    upload = await open_upload(registry, "a/b")
    await patch(registry, upload, b"held")
    places = {"{upload}": upload, "{foreign}": upload.replace("/a/b/", "/other/")}
    before = await counts(registry)
    for method, path, body, status in WRITES:
        target = path
        for place, location in places.items():
            target = target.replace(place, location)
        headers = {"Content-Range": f"9-{8 + len(body)}"} if body == b"out of order" else {}
        answer = await registry.client.request(method, target, content=body, headers=headers)
        assert (method, path, answer.status_code) == (method, path, status), answer.text
        assert (method, path, await counts(registry)) == (method, path, before)
    assert await unnamed_objects(registry) == []
    assert (await registry.client.get(upload)).headers["Range"] == "0-3"
    assert (await registry.client.get("/v2/a/b/manifests/latest")).content == IMAGE.payload


@served(rules=ApiRules(read_only=True))
async def test_write_when_the_registry_is_read_only_changes_no_table(registry: Registry) -> None:
    before = await counts(registry)
    for method, path, body, _ in WRITES:
        target = path.replace("{upload}", "/v2/a/b/blobs/uploads/x").replace(
            "{foreign}", "/v2/a/b/blobs/uploads/x"
        )
        refused(await registry.client.request(method, target, content=body), 405, "UNSUPPORTED")
    assert await counts(registry) == before
