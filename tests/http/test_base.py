"""The paths of the API: what is there, what is not, which methods, and repositories named like parts of the API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from app.http.call import ApiRules
from app.http.routes import ENDPOINTS, match
from tests.http.support import ABSENT, ask, close_upload, open_upload, pulled, refused, served
from tests.support.registry import digest_of, image, index

if TYPE_CHECKING:
    from tests.support.registry import Registry

UPLOAD = "00000000-0000-4000-8000-000000000000"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "LINK", "x")
# Every path of the API with what its 405 must name.
ALLOWED = {
    "/": "GET, HEAD",
    "/v2/": "GET, HEAD",
    "/auth/token": "GET, POST",
    "/v2/_catalog": "GET, HEAD",
    "/v2/a/b/tags/list": "GET, HEAD",
    f"/v2/a/b/referrers/{ABSENT}": "GET, HEAD",
    "/v2/a/b/manifests/latest": "GET, HEAD, PUT, DELETE",
    f"/v2/a/b/blobs/{ABSENT}": "GET, HEAD, DELETE",
    "/v2/a/b/blobs/uploads/": "POST",
    f"/v2/a/b/blobs/uploads/{UPLOAD}": "GET, HEAD, PATCH, PUT, DELETE",
}


def test_paths_of_these_tests_when_compared_with_the_table_cover_it() -> None:
    matched = [match(path) for path in ALLOWED]
    assert [found[0] for found in matched if found] == list(ENDPOINTS)


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
@served()
async def test_version_when_asked_for_is_an_empty_object(registry: Registry, path: str) -> None:
    answer = await registry.client.get(path)
    assert (answer.status_code, answer.content) == (200, b"{}")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Content-Length"] == "2"
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    head = await registry.client.head(path)
    assert (head.status_code, head.headers) == (200, answer.headers)


async def probe(registry: Registry) -> None:
    for method in ("GET", "HEAD"):
        answer = await registry.client.request(method, "/")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["Cache-Control"] == "no-cache"


@served()
async def test_root_when_probed_is_empty_and_not_cached(registry: Registry) -> None:
    await probe(registry)


@served(rules=ApiRules(prefix="/some/prefix"))
async def test_root_when_there_is_a_prefix_is_still_where_load_balancers_ask(registry: Registry) -> None:
    await probe(registry)


@served()
async def test_method_when_a_path_does_not_have_it_gets_405_and_the_methods_that_it_has(
    registry: Registry,
) -> None:
    for path, allowed in ALLOWED.items():
        for method in METHODS:
            if method in allowed.split(", "):
                continue
            answer = await registry.client.request(method, path)
            assert answer.status_code == 405, (method, path)
            assert answer.headers["Allow"] == allowed
            if method != "HEAD":
                refused(answer, 405, "UNSUPPORTED")


@served()
async def test_method_when_its_case_differs_gets_405(registry: Registry) -> None:
    """Methods are case-sensitive (RFC 9110 §9.1)."""
    refused(await ask(registry, "get", "/v2/"), 405, "UNSUPPORTED")


@served(rules=ApiRules(delete_enabled=True, read_only=True))
async def test_write_when_the_registry_is_read_only_gets_405_and_reads_go_on(registry: Registry) -> None:
    for path, allowed in ALLOWED.items():
        writes = {"POST", "PUT", "PATCH", "DELETE"}
        reads = ("GET", "POST") if path == "/auth/token" else ("GET", "HEAD")
        for method in writes.difference(reads):
            answer = await registry.client.request(method, path)
            refused(answer, 405, "UNSUPPORTED")
            assert answer.headers["Allow"] == ", ".join(m for m in reads if m in allowed.split(", "))
    assert (await registry.client.get("/v2/")).status_code == 200
    assert await registry.rows("SELECT 1 FROM repositories") == []


@served(rules=ApiRules(delete_enabled=False))
async def test_delete_when_disabled_gets_405_without_it_in_allow(registry: Registry) -> None:
    pushed = await registry.push_image("a/b", "latest")
    for path in ("manifests/latest", f"manifests/{pushed.digest()}", f"blobs/{digest_of(b'a layer')}"):
        answer = await registry.client.delete(f"/v2/a/b/{path}")
        refused(answer, 405, "UNSUPPORTED")
        assert "DELETE" not in answer.headers["Allow"]
    assert (await registry.client.get("/v2/a/b/manifests/latest")).status_code == 200


@served(rules=ApiRules(delete_enabled=False))
async def test_cancel_of_an_upload_when_deletion_is_disabled_works(registry: Registry) -> None:
    location = await open_upload(registry, "a/b")
    assert (await registry.client.delete(location)).status_code == 204


NO_PATHS = [
    "/nope", "/v1/", "/v22/", "/V2/", "/v2/_catalog/x", "/v2/a", "/v2/a/b", "/v2/tags/list", "/v2/manifests/latest",
    "/v2/blobs/uploads/", "/v2//tags/list", "/v2///", "/v2/a/tags", "/v2/a/tags/x", "/v2/a/b/unknown/c",
    f"/v2/referrers/{ABSENT}", "/v2/a/referrers", "/debug/health", "/metrics", "/gitlab/v1/", "/v2/../etc/passwd",
]  # fmt: skip


@served()
async def test_path_when_there_is_no_such_thing_gets_404(registry: Registry) -> None:
    for path in NO_PATHS:
        for method in ("GET", "PUT"):
            refused(await registry.client.request(method, path), 404, "NOT_FOUND")
        assert (await registry.client.head(path)).status_code == 404


@served()
async def test_path_when_it_ends_in_a_slash_more_or_less_is_the_same(registry: Registry) -> None:
    """Neither form is redirected: a redirected POST loses its body, or becomes a GET."""
    pushed = await registry.push_image("a/b", "latest")
    for path in ("/v2/a/b/tags/list", "/v2/_catalog", "/v2/a/b/manifests/latest", f"/v2/a/b/blobs/{ABSENT}"):
        plain, slashed = await registry.client.get(path), await registry.client.get(path + "/")
        assert (plain.status_code, plain.content) == (slashed.status_code, slashed.content)
    for path in ("/v2/a/b/blobs/uploads", "/v2/a/b/blobs/uploads/"):
        answer = await registry.client.post(path)
        assert answer.status_code == 202
        assert (await registry.client.get(answer.headers["Location"] + "/")).status_code == 204
    answer = await registry.client.get(f"/v2/a/b/referrers/{pushed.digest()}/")
    assert answer.status_code == 200


NAMES = [
    "blobs", "manifests", "tags", "uploads", "referrers", "v2", "tags/list", "a/blobs", "a/blobs/uploads",
    "a/manifests/latest", "a/tags/list", "a" * 255, "a.b_c__d-e--f/0",
]  # fmt: skip


@served()
async def test_repository_when_named_like_a_part_of_the_api_works_as_any_other(registry: Registry) -> None:
    for name in NAMES:
        pushed = await registry.push_image(name, "latest", image(name.encode()))
        location = await open_upload(registry, name)
        assert (await close_upload(registry, location, digest_of(b"more"), b"more")).status_code == 201
        assert await pulled(registry, name, digest_of(b"more")) == b"more"
        await registry.push_image(name, "list", index(pushed))
        referrer = image(b"", subject={"mediaType": "a/b", "digest": pushed.digest(), "size": 1})
        await registry.push_image(name, "uploads", referrer)
        tags = (await registry.client.get(f"/v2/{name}/tags/list")).json()
        assert tags == {"name": name, "tags": ["latest", "list", "uploads"]}
        listed = (await registry.client.get(f"/v2/{name}/referrers/{pushed.digest()}")).json()
        assert [entry["digest"] for entry in listed["manifests"]] == [referrer.digest()]
        assert (await registry.client.delete(f"/v2/{name}/manifests/uploads")).status_code == 202
        assert (await registry.client.delete(f"/v2/{name}/blobs/{digest_of(b'more')}")).status_code == 202
    catalog = (await registry.client.get("/v2/_catalog")).json()
    assert catalog == {"repositories": sorted(NAMES)}


BAD_NAMES = [
    "A", "a/B", "a_", "_a", "a/_b", "-a", "a-", "a..b", "a._b", "a___b", "a/", "/a", "a//b", ".", "..", "a/../b", "a/.",
    "%00", "a%00", "a%0A", "%E2%84%AA", "%C3%A9", "%ff%fe", "a b", "a:b", "a@b", "Foo.example/bar", "localhost:5000/a",
    "a%252fb", "a" * 256, "a/" * 128 + "a", "_catalog", "a/_oci/ext", "%F0%9F%90%B3", "a\\b", "$(id)", "' OR 1=1",
]  # fmt: skip


@served()
async def test_repository_when_its_name_is_malformed_gets_400_everywhere_and_is_not_created(
    registry: Registry,
) -> None:
    requests = [
        ("GET", "tags/list"), ("GET", f"referrers/{ABSENT}"), ("GET", "manifests/latest"), ("PUT", "manifests/latest"),
        ("DELETE", "manifests/latest"), ("GET", f"blobs/{ABSENT}"), ("DELETE", f"blobs/{ABSENT}"),
        ("POST", "blobs/uploads/"), ("POST", f"blobs/uploads/?digest={ABSENT}"), ("PATCH", f"blobs/uploads/{UPLOAD}"),
    ]  # fmt: skip
    for name in BAD_NAMES:
        for method, rest in requests if name in BAD_NAMES[:4] else requests[::5]:
            # Past the HTTP client, which would resolve `..` by itself.
            answer = await ask(registry, method, f"/v2/{name}/{rest}")
            assert answer.status_code == 400, (name, answer.status_code)
            refused(answer, 400, "NAME_INVALID")
    assert await registry.rows("SELECT 1 FROM repositories") == []


@served()
async def test_repository_when_its_name_is_percent_encoded_is_the_same_one(registry: Registry) -> None:
    await registry.push_image("a/b", "latest")
    for name in ("%61/b", "a%2Fb", "%61%2f%62"):
        answer = await registry.client.get(f"/v2/{name}/manifests/lat%65st")
        assert answer.status_code == 200


@served(rules=ApiRules(headers=((b"x-content-type-options", b"nosniff"), (b"x-two", b"1"), (b"x-two", b"2"))))
async def test_headers_of_the_operator_when_set_are_on_every_answer(registry: Registry) -> None:
    for path in ("/", "/v2/", "/nope", "/v2/A/tags/list", "/v2/_catalog"):
        answer = await registry.client.get(path)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers.get_list("X-Two") == ["1", "2"]
        assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
        assert answer.headers["X-Request-Id"] == "test-request"


@served()
async def test_request_when_over_is_told_to_the_observer_with_route_and_bytes(registry: Registry) -> None:
    digest = await registry.push_blob("a/b", b"five!")
    await registry.client.get(f"/v2/a/b/blobs/{digest}")
    await registry.client.get("/v2/a/b/manifests/none")
    await registry.client.get("/nope")
    told = [(r["route"], r["status"], r["received"]) for r in registry.seen.requests]
    assert told == [
        ("v2.uploads", 201, 5),
        ("v2.blob", 200, 0),
        ("v2.manifest", 404, 0),
        ("none", 404, 0),
    ]
    assert registry.seen.requests[1]["sent"] == 5
