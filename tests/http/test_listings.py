"""Tags and catalog: order, pages, links that work as they are, and numbers that are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from app.http.call import ApiRules
from app.http.wire import Origin
from tests.http.support import open_upload, put, refused, served
from tests.support.registry import digest_of, image

if TYPE_CHECKING:
    import httpx

    from tests.support.registry import Registry

# In the order of their bytes, which is neither the alphabet's nor a locale's.
TAGS = ["0", "1.10", "1.9", "A", "Z", "_x", "a", "a-b", "a.b", "a_b", "ab", "b", "z", "z" * 128]
NAMES = ["a", "a-b", "a.b", "a/b", "a/c", "a0", "aa", "b", "b/c/d", "c__d"]
BAD_NUMBERS = [
    "-1", "-0", "+1", "%2B1", "1.0", "1e3", "x", "NaN", "Infinity", "0x10", "1_000", "%201", "1%20", "%00", "1%00",
    "%D9%A3", "--1", "1,2", "9" * 19, "9" * 5000, str(-(2**63)), str(2**64),
]  # fmt: skip
BAD_LASTS = ["%00", "a%00b", "x" * 513, "x" * 10_000]


async def tagged(registry: Registry, *tags: str, name: str = "a/b", base: str = "") -> None:
    """A repository with these tags, all on one manifest."""
    manifest, path = image(), f"{base}/v2/{name}"
    answer = await registry.client.post(f"{path}/blobs/uploads/?digest={digest_of(b'{}')}", content=b"{}")
    assert answer.status_code == 201, answer.text
    for tag in tags:
        answer = await registry.client.put(
            f"{path}/manifests/{tag}",
            content=manifest.payload,
            headers={"Content-Type": manifest.media_type},
        )
        assert answer.status_code == 201, answer.text


async def pages(registry: Registry, target: str, key: str) -> list[list[str]]:
    """The entries of every page; each next one is fetched by the Link as it is."""
    found: list[list[str]] = []
    while target:
        answer = await registry.client.get(target)
        assert answer.status_code == 200, answer.text
        found.append(answer.json()[key])
        target = answer.links.get("next", {}).get("url", "")
        assert len(found) < 50
    return found


async def tags_of(registry: Registry, query: str = "", name: str = "a/b") -> httpx.Response:
    return await registry.client.get(f"/v2/{name}/tags/list{query}")


async def catalog(registry: Registry, query: str = "") -> list[str]:
    answer = await registry.client.get(f"/v2/_catalog{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()["repositories"]


@served()
async def test_tags_when_listed_come_in_byte_order_on_one_page(registry: Registry) -> None:
    await tagged(registry, *reversed(TAGS))
    answer = await tags_of(registry)
    assert (answer.status_code, answer.json()) == (200, {"name": "a/b", "tags": TAGS})
    assert answer.headers["Content-Type"] == "application/json"
    assert "Link" not in answer.headers
    head = await registry.client.head("/v2/a/b/tags/list")
    assert (head.status_code, head.headers) == (200, answer.headers)


@served()
async def test_tags_when_paged_are_each_on_exactly_one_page(registry: Registry) -> None:
    await tagged(registry, *TAGS)
    for n in (1, 2, 5, len(TAGS) - 1, len(TAGS), len(TAGS) + 1, 10**18 - 1):
        found = await pages(registry, f"/v2/a/b/tags/list?n={n}", "tags")
        assert [tag for page in found for tag in page] == TAGS
        assert [len(page) for page in found[:-1]] == [n] * (len(found) - 1)
        assert len(found[-1]) > 0
    answer = await tags_of(registry, "?n=2&last=1.9")
    assert answer.json()["tags"] == ["A", "Z"]
    assert answer.headers["Link"] == '</v2/a/b/tags/list?last=Z&n=2>; rel="next"'


@served()
async def test_tags_when_last_is_unknown_begin_behind_where_it_would_be(registry: Registry) -> None:
    await tagged(registry, *TAGS)
    for last, expected in (
        ("", TAGS), ("%21", TAGS), ("B", TAGS[4:]), ("a%20", TAGS[7:]), ("a", TAGS[7:]), ("z" * 128, []),
        ("zz", TAGS[-1:]), ("%F0%9F%90%B3", []), ("%ff", []), ("~", []),
        ("..%2F..", TAGS), ("%25", TAGS), ("x" * 512, TAGS[-2:]),
    ):  # fmt: skip
        answer = await tags_of(registry, f"?last={last}")
        assert (last, answer.status_code, answer.json()["tags"]) == (last, 200, expected)


@served()
async def test_tags_when_none_are_wanted_are_none_and_have_no_link(registry: Registry) -> None:
    await tagged(registry, *TAGS)
    for query in ("?n=0", "?n=00", "?n=0&last=a"):
        answer = await tags_of(registry, query)
        assert (answer.status_code, answer.json()["tags"]) == (200, [])
        assert "Link" not in answer.headers


@served(rules=ApiRules(tags_max=5))
async def test_tags_when_more_are_wanted_than_allowed_come_in_smaller_pages(registry: Registry) -> None:
    await tagged(registry, *TAGS)
    for query in ("", "?n=", "?n=6", "?n=5", f"?n={10**17}"):
        found = await pages(registry, f"/v2/a/b/tags/list{query}", "tags")
        assert [len(page) for page in found] == [5, 5, 4]
        assert [tag for page in found for tag in page] == TAGS


@pytest.mark.parametrize("target", ["/v2/a/b/tags/list", "/v2/_catalog"])
@served()
async def test_listing_when_its_numbers_are_none_gets_400(registry: Registry, target: str) -> None:
    await tagged(registry, "a")
    for query in [f"n={n}" for n in BAD_NUMBERS] + [f"last={last}" for last in BAD_LASTS]:
        answer = await registry.client.get(f"{target}?{query}")
        assert (query, answer.status_code) == (query, 400)
        refused(answer, 400, "PAGINATION_NUMBER_INVALID")


@served()
async def test_tags_when_the_repository_is_unknown_get_404(registry: Registry) -> None:
    assert refused(await tags_of(registry, name="never/pushed"), 404, "NAME_UNKNOWN") == {
        "name": "never/pushed"
    }
    refused(await tags_of(registry, "?n=0", name="never/pushed"), 404, "NAME_UNKNOWN")


@served()
async def test_tags_when_the_repository_has_none_are_an_empty_list(registry: Registry) -> None:
    await open_upload(registry, "only/uploads")
    await tagged(registry, name="only/blobs")
    await tagged(registry, "a", name="once/tagged")
    assert (await registry.client.delete("/v2/once/tagged/manifests/a")).status_code == 202
    for name in ("only/uploads", "only/blobs", "once/tagged"):
        answer = await tags_of(registry, name=name)
        assert (answer.status_code, answer.json()) == (200, {"name": name, "tags": []})


@served()
async def test_catalog_when_listed_has_repositories_with_tags_in_byte_order(registry: Registry) -> None:
    for name in reversed(NAMES):
        await tagged(registry, "latest", name=name)
    await tagged(registry, name="without/tags")
    await open_upload(registry, "without/anything")
    answer = await registry.client.get("/v2/_catalog")
    assert (answer.status_code, answer.json()) == (200, {"repositories": NAMES})
    assert "Link" not in answer.headers
    for n in (1, 3, len(NAMES), 1000):
        found = await pages(registry, f"/v2/_catalog?n={n}", "repositories")
        assert [name for page in found for name in page] == NAMES
        assert all(found)
    answer = await registry.client.get("/v2/_catalog?n=2&last=a.b")
    assert answer.headers["Link"] == '</v2/_catalog?last=a%2Fc&n=2>; rel="next"'
    assert await catalog(registry, "?last=a/") == NAMES[3:]
    assert await catalog(registry, "?last=a/bb") == NAMES[4:]
    assert await catalog(registry, "?last=zzz") == []
    assert await catalog(registry, "?n=0") == []


@served()
async def test_catalog_when_nothing_was_pushed_is_an_empty_list(registry: Registry) -> None:
    assert (await registry.client.get("/v2/_catalog")).json() == {"repositories": []}


@served(rules=ApiRules(catalog_entries_max=3))
async def test_catalog_when_more_is_wanted_than_allowed_gets_400(registry: Registry) -> None:
    """As Distribution answers, since one request asked it for memory without end."""
    for name in NAMES[:5]:
        await tagged(registry, "latest", name=name)
    for n in (4, 1000, 10**9, 10**18 - 1):
        answer = await registry.client.get(f"/v2/_catalog?n={n}")
        assert refused(answer, 400, "PAGINATION_NUMBER_INVALID")["n"] == n
    assert await catalog(registry, "?n=3") == NAMES[:3]
    assert await pages(registry, "/v2/_catalog", "repositories") == [NAMES[:3], NAMES[3:5]]


@served(sound=False)
async def test_catalog_when_many_repositories_are_there_has_a_hundred_on_a_page(registry: Registry) -> None:
    await registry.rows(
        "INSERT INTO repositories (path, has_tags) SELECT 'r' || n, true FROM generate_series(100, 350) n"
    )
    found = await pages(registry, "/v2/_catalog", "repositories")
    assert [len(page) for page in found] == [100, 100, 51]


@served(rules=ApiRules(prefix="/behind/a/prefix"))
async def test_links_when_there_is_a_prefix_work_as_they_are(registry: Registry) -> None:
    await assert_links_work(registry, "/behind/a/prefix")


@served(rules=ApiRules(origin=Origin(relative=True)))
async def test_links_when_urls_are_relative_work_as_they_are(registry: Registry) -> None:
    await assert_links_work(registry, "")


@served(rules=ApiRules(origin=Origin("https://registry.example"), prefix="/p"))
async def test_links_when_the_host_is_set_work_as_they_are(registry: Registry) -> None:
    await assert_links_work(registry, "/p")


async def assert_links_work(registry: Registry, base: str) -> None:
    for name in ("a/b", "v2/v2"):
        await tagged(registry, "a", "b", "c", name=name, base=base)
        assert await pages(registry, f"{base}/v2/{name}/tags/list?n=1", "tags") == [["a"], ["b"], ["c"]]
    assert await pages(registry, f"{base}/v2/_catalog?n=1", "repositories") == [["a/b"], ["v2/v2"]]


@served()
async def test_catalog_when_tags_come_and_go_shows_exactly_who_has_any(registry: Registry) -> None:
    manifest = image()
    await tagged(registry, "one", "two")
    assert await catalog(registry) == ["a/b"]
    for tag, expected in (("one", ["a/b"]), ("two", [])):
        assert (await registry.client.delete(f"/v2/a/b/manifests/{tag}")).status_code == 202
        assert await catalog(registry) == expected
    query = "tag=three&tag=four"
    answer = await put(registry, "a/b", f"{manifest.digest()}?{query}", manifest.payload, manifest.media_type)
    assert answer.status_code == 201
    assert await catalog(registry) == ["a/b"]
    assert (await registry.client.delete(f"/v2/a/b/manifests/{manifest.digest()}")).status_code == 202
    assert await catalog(registry) == []
    assert (await put(registry, "a/b", manifest.digest(), manifest.payload)).status_code == 201
    assert await catalog(registry) == []
    assert (await put(registry, "a/b", "again", manifest.payload)).status_code == 201
    assert await catalog(registry) == ["a/b"]


@served()
async def test_catalog_when_a_tag_moves_to_another_manifest_keeps_the_repository(registry: Registry) -> None:
    await tagged(registry, "only")
    moved = await registry.push_image("a/b", "only", image(b"another"))
    assert (await registry.client.delete(f"/v2/a/b/manifests/{image().digest()}")).status_code == 202
    assert await catalog(registry) == ["a/b"]
    assert (await registry.client.delete(f"/v2/a/b/manifests/{moved.digest()}")).status_code == 202
    assert await catalog(registry) == []
