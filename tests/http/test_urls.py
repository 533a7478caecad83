"""URLs in Location headers: right behind every kind of proxy, and never what an attacker wants them to be."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from app.http.call import ApiRules
from app.http.wire import Origin
from tests.http.support import ask, served
from tests.support.registry import digest_of, image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.registry import Registry

Given = list[tuple[str, str]]
HOST = ("Host", "registry.test")
HOSTILE = [
    "evil.example/path", "evil.example#", "evil.example?x", "user@evil.example", "a b", "a\tb", "<script>",
    "evil\r\nX: y",
    "[::1", "::1", "a:b", "a:", "a:123456", "http://evil.example", "evil.example\\", '"', "'", "%0d%0a",
    "\u00e9vil", "",
]  # fmt: skip


async def origin(registry: Registry, headers: Given, path: str = "/v2/") -> str:
    """What stands before `/v2/` in the Location of a new session."""
    answer = await ask(registry, "POST", f"{path}a/b/blobs/uploads/", headers)
    assert answer.status_code == 202, answer.text
    found, _, rest = answer.headers["Location"].partition("/v2/")
    assert rest.startswith("a/b/blobs/uploads/")
    return found


async def every_location(registry: Registry, headers: Given, base: str = "") -> list[str]:
    """The Locations of one push, each fetched again by its path."""
    digest, manifest = digest_of(b"{}"), image()
    found: list[str] = []

    async def step(method: str, target: str, body: bytes = b"") -> None:
        answer = await ask(registry, method, target, headers, body)
        assert answer.status_code in (201, 202, 204), answer.text
        found.append(answer.headers["Location"])

    await step("POST", f"{base}/v2/a/b/blobs/uploads/")
    await step("PATCH", urlsplit(found[-1]).path, b"{")
    await step("GET", urlsplit(found[-1]).path)
    await step("PUT", f"{urlsplit(found[-1]).path}?digest={digest}", b"}")
    await step("POST", f"{base}/v2/c/d/blobs/uploads/?mount={digest}&from=a/b")
    await step("PUT", f"{base}/v2/a/b/manifests/latest", manifest.payload)
    for location in (found[3], found[4], found[5]):
        assert (await ask(registry, "GET", urlsplit(location).path)).status_code == 200
    return found


async def assert_all_begin_with(registry: Registry, headers: Given, expected: str, base: str = "") -> None:
    locations = await every_location(registry, headers, base)
    for location in locations:
        assert location.startswith(f"{expected}/v2/"), location


@served()
async def test_locations_when_nothing_is_said_follow_the_host_header(registry: Registry) -> None:
    await assert_all_begin_with(registry, [HOST], "http://registry.test")


@served()
async def test_origin_when_proxies_speak_is_what_they_say(registry: Registry) -> None:
    cases: Sequence[tuple[Given, str]] = [
        ([], "http://registry.test"),
        ([("X-Forwarded-Proto", "https")], "https://registry.test"),
        ([("X-Forwarded-Proto", "HTTPS ")], "https://registry.test"),
        ([("X-Forwarded-Host", "outer.example:8443")], "http://outer.example:8443"),
        ([("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", " outer.example , inner")], "https://outer.example"),
        ([("Forwarded", "proto=https;host=outer.example")], "https://outer.example"),
        ([("Forwarded", 'Proto="https"; Host="outer.example:8443", proto=http;host=inner')], "https://outer.example:8443"),
        ([("Forwarded", "for=192.0.2.1;proto=https")], "https://registry.test"),
        ([("Forwarded", "for=192.0.2.1"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "x")], "http://registry.test"),
        ([("Forwarded", "host=[2001:db8::1]:5000")], "http://[2001:db8::1]:5000"),
    ]  # fmt: skip
    for headers, expected in cases:
        assert (headers, await origin(registry, [HOST, *headers])) == (headers, expected)


@served()
async def test_locations_when_behind_a_tls_proxy_are_all_https(registry: Registry) -> None:
    headers = [HOST, ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "outer.example")]
    await assert_all_begin_with(registry, headers, "https://outer.example")


@served(rules=ApiRules(origin=Origin("https://registry.example:5000")))
async def test_locations_when_the_host_is_set_follow_it_whatever_is_said(registry: Registry) -> None:
    headers = [HOST, ("X-Forwarded-Proto", "http"), ("X-Forwarded-Host", "x"), ("Forwarded", "host=y")]
    await assert_all_begin_with(registry, headers, "https://registry.example:5000")


@served(rules=ApiRules(origin=Origin("https://registry.example", relative=True)))
async def test_locations_when_host_and_relative_are_set_follow_the_host(registry: Registry) -> None:
    await assert_all_begin_with(registry, [HOST], "https://registry.example")


@served(rules=ApiRules(origin=Origin(relative=True)))
async def test_locations_when_relative_are_paths(registry: Registry) -> None:
    headers = [HOST, ("X-Forwarded-Proto", "https"), ("Forwarded", "host=y")]
    await assert_all_begin_with(registry, headers, "")


@served(rules=ApiRules(prefix="/some/prefix"))
async def test_locations_when_there_is_a_prefix_have_it(registry: Registry) -> None:
    await assert_all_begin_with(registry, [HOST], "http://registry.test/some/prefix", base="/some/prefix")
    for path in ("/v2/", "/some/v2/", "/some/prefixv2/", "/other/prefix/v2/"):
        assert (await ask(registry, "GET", path)).status_code == 404
    assert (await ask(registry, "GET", "/some/prefix/v2/")).status_code == 200


@served(rules=ApiRules(prefix="/some/prefix", origin=Origin("https://registry.example")))
async def test_locations_when_host_and_prefix_are_set_have_both(registry: Registry) -> None:
    await assert_all_begin_with(registry, [HOST], "https://registry.example/some/prefix", base="/some/prefix")


@served()
async def test_origin_when_a_forwarded_value_is_hostile_falls_back_to_the_host_header(
    registry: Registry,
) -> None:
    for value in HOSTILE:
        for header in ("X-Forwarded-Host", "Forwarded"):
            sent = value if header == "X-Forwarded-Host" else f'host="{value}"'
            assert (sent, await origin(registry, [HOST, (header, sent)])) == (sent, "http://registry.test")
    for scheme in (
        "javascript",
        "ftp",
        "https://evil.example/?",
        "https, http",
        "",
        "http\r\nX: y",
        "\u00e9",
    ):
        for header, sent in (("X-Forwarded-Proto", scheme), ("Forwarded", f'proto="{scheme}"')):
            found = await origin(registry, [HOST, (header, sent)])
            assert (sent, found) in ((sent, "http://registry.test"), (sent, "https://registry.test"))
    for nonsense in ("", ";", "=", "host", "host=", ";;host=;proto=", ",", "host==x", '"', "x" * 10_000):
        assert await origin(registry, [HOST, ("Forwarded", nonsense)]) == "http://registry.test"


@served()
async def test_origin_when_the_host_header_is_hostile_or_missing_is_a_bare_path(registry: Registry) -> None:
    for value in HOSTILE:
        assert (value, await origin(registry, [("Host", value)])) == (value, "")
    assert await origin(registry, []) == ""


@served()
async def test_location_when_the_path_is_odd_has_no_line_break(registry: Registry) -> None:
    """What comes in a path is parsed before any of it goes into a header."""
    for path in (
        "/v2/a%0d%0aX:y/blobs/uploads/",
        "/%0d%0aX:y/v2/a/blobs/uploads/",
        "//evil.example/v2/a/blobs/uploads/",
    ):
        answer = await ask(registry, "POST", path, [HOST])
        assert answer.status_code in (400, 404)
        assert "Location" not in answer.headers
