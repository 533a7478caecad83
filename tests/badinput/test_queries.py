"""Queries and ranges of every malformed kind: numbers, cursors, digests, repetitions, and parameters of a megabyte.

CVE-2023-2253 (Distribution, `_catalog?n=` allocates what it is told), Harbor's CVE-2024-22261 (a query that reaches
SQL): a number is a number of at most 18 ASCII digits, a cursor is compared and nothing else.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from app.domain.errors import (
    DigestInvalid,
    DigestUnsupported,
    PaginationNumberInvalid,
    RangeInvalid,
    SizeInvalid,
    TagInvalid,
    TooManyTags,
)
from tests.badinput.support import assert_refused, differences, expect_refusal, holdings, unchanged
from tests.http.support import ABSENT, ask, open_upload, patch, put, served
from tests.support.registry import digest_of, image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.registry import Registry

MIB = 1024 * 1024
LISTINGS = ["/v2/_catalog", "/v2/a/b/tags/list", f"/v2/a/b/referrers/{ABSENT}"]
NUMBERS = [
    "-1", "-0", "+1", "%2B1", "--1", "1-", "0-1", "1.0", "1.", ".5", "1e3", "1E3", "0x10", "0b1", "0o7", "1_000",
    "1,000",
    "1%2C0", "x", "NaN", "nan", "Infinity", "-inf", "null", "true", "[]", "%20", "%201", "1%20", "+", "1%0a", "%0a1",
    "1%0d%0a",
    "%00", "1%00", "%001", "1%c2%a0", "%d9%a3", "%ef%bc%91", "%c2%b2", "%e2%91%a0", "%f0%9d%9f%99", "%ff", "%c0%b1",
    "1%3b", "%27",
    "1;2", "1%26", "..", str(10**18), str(2**63), str(2**64), str(-(2**63)), "9" * 4301, "9" * MIB, "0" * 19,
]  # fmt: skip
# As the last entry of a tags or catalog page; as a cursor for referrers whatever is no number is refused.
CURSORS = ["%00", "a%00", "%00a", "x" * 513, "%C3%A9" * 513, "x" * MIB]
# What sorts somewhere and names nothing.
HARMLESS_CURSORS = [
    "", "..", "../../etc/passwd", "%0a", "%0d%0a", "%ff", "%c0%80", "%ed%a0%80", "%27%20OR%201=1--", "%25", "_", "%5c",
    "%f4%8f%bf%bf", "%ef%bb%bf", "%e2%80%ae", "A", "-1", "x" * 512, "%20", "{}", "%22",
]  # fmt: skip


@served()
async def test_n_when_malformed_then_gets_400_with_the_number_and_changes_nothing(
    registry: Registry, tmp_path: Path
) -> None:
    await registry.push_image("a/b", "latest")
    async with unchanged(registry, tmp_path):
        for listing in LISTINGS:
            for number in NUMBERS:
                target = f"{listing}?n={number}"
                await expect_refusal(
                    registry, "GET", target, PaginationNumberInvalid, '"n"', "a whole number, 0 or more"
                )
                await expect_refusal(registry, "HEAD", target, PaginationNumberInvalid)


@served()
async def test_n_when_huge_then_costs_no_more_than_what_there_is(registry: Registry) -> None:
    """CVE-2023-2253: whoever asks for a billion gets a page, or is told how many a page has."""
    await registry.push_image("a/b", "latest")
    began = time.process_time()
    for number in (1001, 2**31 - 1, 2**31, 2**32, 10**18 - 1):
        await expect_refusal(
            registry, "GET", f"/v2/_catalog?n={number}", PaginationNumberInvalid, "at most 1000"
        )
        for listing, key in ((LISTINGS[1], "tags"), (LISTINGS[2], "manifests")):
            answer = await ask(registry, "GET", f"{listing}?n={number}")
            assert (answer.status_code, len(answer.json()[key])) == (200, 1 if key == "tags" else 0)
    assert time.process_time() - began < 5


@served()
async def test_last_when_malformed_then_gets_400_and_changes_nothing(
    registry: Registry, tmp_path: Path
) -> None:
    await registry.push_image("a/b", "latest")
    async with unchanged(registry, tmp_path):
        for listing in LISTINGS:
            expected = (
                "the `last` of a Link header" if "referrers" in listing else "an entry of the page before"
            )
            for cursor in CURSORS:
                target = f"{listing}?last={cursor}"
                # A cursor that no listing could take is refused in the words for all of them.
                words = expected if len(cursor) < 100 and "%00" not in cursor else '"expected"'
                await expect_refusal(registry, "GET", target, PaginationNumberInvalid, '"last"', words)
        for number in NUMBERS:
            target = f"{LISTINGS[2]}?last={number}"
            await expect_refusal(registry, "GET", target, PaginationNumberInvalid, '"last"', '"expected"')


@served()
async def test_last_when_it_names_nothing_then_is_only_a_place_in_the_order(registry: Registry) -> None:
    tags = ["A", "a", "z"]
    for tag in tags:
        await registry.push_image("a/b", tag)
    for cursor in HARMLESS_CURSORS:
        answer = await ask(registry, "GET", f"/v2/a/b/tags/list?last={cursor}")
        assert (cursor, answer.status_code) == (cursor, 200)
        found = answer.json()["tags"]
        assert found == tags[len(tags) - len(found) :]
        assert (await ask(registry, "GET", f"/v2/_catalog?last={cursor}")).status_code == 200


FIRST = digest_of(b"first")
SECOND = digest_of(b"second")


@served()
async def test_parameter_when_repeated_then_the_first_one_counts(registry: Registry) -> None:
    """As Go reads a query, so that what a proxy of that kind has checked is what is done."""
    for tag in ("a", "b", "c"):
        await registry.push_image("a/b", tag)
    for query, expected in (
        ("n=1&n=x", ["a"]),
        ("n=2&n=1", ["a", "b"]),
        ("last=b&last=a", ["c"]),
        ("n=&n=1", ["a", "b", "c"]),
    ):
        assert (await ask(registry, "GET", f"/v2/a/b/tags/list?{query}")).json()["tags"] == expected
    await expect_refusal(registry, "GET", "/v2/a/b/tags/list?n=x&n=1", PaginationNumberInvalid)
    uploads = "/v2/a/b/blobs/uploads/"
    await expect_refusal(registry, "POST", f"{uploads}?digest=x&digest={FIRST}", DigestInvalid, body=b"first")
    await expect_refusal(
        registry, "POST", f"{uploads}?digest={SECOND}&digest={FIRST}", DigestInvalid, FIRST, body=b"first"
    )
    assert (
        await ask(registry, "POST", f"{uploads}?digest={FIRST}&digest=x", body=b"first")
    ).status_code == 201
    await expect_refusal(
        registry, "POST", f"/v2/c/blobs/uploads/?mount=x&mount={FIRST}&from=a/b", DigestInvalid
    )
    for query, status in (
        (f"mount={FIRST}&from=no/such&from=a/b", 202),
        (f"mount={FIRST}&mount=x&from=a/b&from=", 201),
    ):
        assert (query, (await ask(registry, "POST", f"/v2/c/blobs/uploads/?{query}")).status_code) == (
            query,
            status,
        )


@served()
async def test_query_when_a_megabyte_long_then_is_answered_in_bounded_time(
    registry: Registry, tmp_path: Path
) -> None:
    await registry.push_image("a/b", "latest")
    manifest, long = image(), "x" * MIB
    put_target = f"/v2/a/b/manifests/{manifest.digest()}"
    began = time.process_time()
    async with unchanged(registry, tmp_path):
        for query in (long, "&" * MIB, "n=1" + "&n=x" * (MIB // 32)):
            assert (await ask(registry, "GET", f"/v2/_catalog?{query}")).status_code == 200
        await expect_refusal(registry, "GET", f"/v2/_catalog?n={long}", PaginationNumberInvalid)
        await expect_refusal(registry, "GET", f"/v2/_catalog?last={long}", PaginationNumberInvalid)
        await expect_refusal(registry, "POST", f"/v2/a/b/blobs/uploads/?digest={long}", DigestInvalid)
        await expect_refusal(registry, "POST", f"/v2/a/b/blobs/uploads/?mount={long}", DigestInvalid)
        await expect_refusal(
            registry, "POST", f"/v2/a/b/blobs/uploads/?digest-algorithm={long}", DigestUnsupported
        )
        await expect_refusal(registry, "PUT", f"{put_target}?tag={long}", TagInvalid, body=manifest.payload)
        many = "tag=x&" * (MIB // 6)
        await expect_refusal(
            registry,
            "PUT",
            f"{put_target}?{many}",
            TooManyTags,
            "at most 64 are taken",
            body=manifest.payload,
        )
        for kind in (long, "%00", "%0d%0a", "%ff", "%ed%a0%80", "'"):
            answer = await ask(registry, "GET", f"{LISTINGS[2]}?artifactType={kind}")
            assert (answer.status_code, answer.json()["manifests"]) == (200, [])
    assert time.process_time() - began < 20


@pytest.mark.parametrize(
    "query",
    ["digest=", "digest", "", "Digest=" + ABSENT, "digest%20=" + ABSENT, ";digest=" + ABSENT, "digest;x=1"],
)
@served()
async def test_closing_put_when_its_query_names_no_digest_then_gets_400_and_the_session_goes_on(
    registry: Registry, query: str, tmp_path: Path
) -> None:
    location = await open_upload(registry, "a/b")
    await patch(registry, location, b"held")
    async with unchanged(registry, tmp_path):
        await expect_refusal(registry, "PUT", f"{location}?{query}", DigestInvalid, body=b"more")
    assert (await registry.client.get(location)).headers["Range"] == "0-3"


# As the header's bytes come: latin-1, so that `\xb2` is a superscript two and `\xa0` a space that no HTTP has.
CHUNK_RANGES = [
    "", "-", "0", "0-", "-3", "3-0", "a-b", "0-3/4", "0-3/*", "bytes 0-3", "bytes 0-3/4", "bytes=0-3", "0--3", "-0-3",
    "+0-3", "0-+3",
    "0 - 3", "0-3,4-7", "0-3;0-3", "0-3 0-3", "0\u20133".encode().decode("latin-1"), "0\xad3", "\xb2-\xb3", "0-\xb3",
    "\xa00-3", "0-3\xa0", "\x850-3", "0-3\x00", "\x000-3", "0-3\n", "\r\n0-3", "0x0-0x3", "0.0-3.0", "0e0-3e0",
    "0_0-0_3",
    f"0-{2**63}", f"{2**63}-{2**63 + 3}", f"{2**64}-{2**64 + 3}", f"{10**18}-{10**18 + 3}",
    "9" * 65_536 + "-" + "9" * 65_536,
    "0" * 19 + "-" + "0" * 18 + "3", "NaN-NaN", "*", "0-*",
]  # fmt: skip


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@served()
async def test_chunk_when_its_range_is_malformed_then_gets_416_with_the_form_and_changes_nothing(
    registry: Registry, method: str, tmp_path: Path
) -> None:
    location = await open_upload(registry, "a/b")
    target = f"{location}?digest={ABSENT}"
    async with unchanged(registry, tmp_path):
        for text in CHUNK_RANGES:
            answer = await ask(registry, method, target, [("Content-Range", text)], b"1234")
            assert (text[:80], answer.status_code) == (text[:80], 416)
            words = "lies behind the last" if text == "3-0" else "expected first-last, as in 0-1023"
            assert_refused(answer, RangeInvalid, "Content-Range", words)
            assert len(answer.content) < 1000
        for text in (" 0-3 ", "0-3\t"):  # what HTTP lets stand around a value
            answer = await ask(
                registry, method, target, [("Content-Range", text), ("Content-Length", "5")], b"12345"
            )
            assert_refused(answer, SizeInvalid, "states 4 bytes, Content-Length 5")


LENGTHS = [
    "-1",
    "+4",
    "4.0",
    "0x4",
    "4e0",
    "4_0",
    "4,4",
    "4 4",
    "abc",
    "\xb2",
    "4\xa0",
    "\x854",
    "4\x00",
    "9" * 19,
    "9" * 65_536,
]


@served()
async def test_length_when_malformed_then_gets_400_and_changes_nothing(
    registry: Registry, tmp_path: Path
) -> None:
    """Servers refuse these themselves, some of them; nothing here relies on that."""
    await registry.push_blob("a/b", b"{}")
    location = await open_upload(registry, "a/b")
    async with unchanged(registry, tmp_path):
        for text in LENGTHS:
            headers = (("Content-Range", "0-3"), ("Content-Length", text))
            await expect_refusal(
                registry,
                "PATCH",
                location,
                SizeInvalid,
                "expected a number of bytes",
                headers=headers,
                body=b"1234",
            )
            await expect_refusal(
                registry,
                "PUT",
                "/v2/a/b/manifests/latest",
                SizeInvalid,
                "expected a number of bytes",
                headers=headers[1:],
                body=image().payload,
            )


BLOB_RANGES = [
    "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=1", "bytes=0-1-2", "bytes=5-4", "bytes=-0", "bytes=10-",
    "bytes=10-20", "bytes=--1",
    "bytes=+0-1", "bytes=0-1;2-3", "bytes=0 -1", "bytes=0- 1", "bytes=0x0-0x1", "bytes=0.0-1", "bytes=\xb2-\xb3",
    "bytes=\xa00-1",
    "bytes=0-1\xa0", "bytes=0-1\x85", "bytes=0-1,x", "bytes=0-1,5-4", "bytes=" + "9" * 31 + "-", "bytes=-" + "9" * 31,
    "bytes=" + "9" * 60_000 + "-", "bytes=0-1\x00", "bytes=NaN-", "bytes=*", "bytes==0-1",
]  # fmt: skip
OTHER_RANGES = [
    "",
    "items=0-1",
    "0-1",
    "byte=0-1",
    "=0-1",
    "\xa0bytes=0-1",
    "bytes\xa0=0-1",
    "none",
    "bytes 0-1",
]


@served()
async def test_range_when_malformed_then_gets_416_with_the_size_or_is_ignored(
    registry: Registry, tmp_path: Path
) -> None:
    content = b"0123456789"
    digest = await registry.push_blob("a/b", content)
    async with unchanged(registry, tmp_path):
        for text in BLOB_RANGES:
            answer = await ask(registry, "GET", f"/v2/a/b/blobs/{digest}", [("Range", text)])
            assert (text[:60], answer.status_code) == (text[:60], 416)
            assert_refused(answer, RangeInvalid, "a body of 10 bytes")
            assert answer.headers["Content-Range"] == "bytes */10"
        for text in [*OTHER_RANGES, "bytes=" + "0-0," * 20_000]:
            answer = await ask(registry, "GET", f"/v2/a/b/blobs/{digest}", [("Range", text)])
            assert (text[:60], answer.status_code, answer.content) == (text[:60], 200, content)


@served()
async def test_check_for_changes_when_something_changes_then_finds_it(
    registry: Registry, tmp_path: Path
) -> None:
    """What all tests of this package lean on."""
    before = await holdings(registry.target, tmp_path)
    assert differences(before, await holdings(registry.target, tmp_path)) == []
    location = await open_upload(registry, "a/b")
    opened = await holdings(registry.target, tmp_path)
    assert differences(before, opened) == ["blob_uploads", "repositories"]
    await patch(registry, location, b"x")
    grown = await holdings(registry.target, tmp_path)
    found = differences(opened, grown)
    assert found[0] == "blob_uploads"
    assert [name for name in found[1:] if not name.startswith("file objects/")] == []
    assert len(found) == 2
    answer = await put(registry, "a/b", quote("latest"), image().payload)
    assert answer.status_code == 400
    assert differences(grown, await holdings(registry.target, tmp_path)) == []
