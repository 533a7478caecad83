"""Blobs: GET and HEAD, whole and in ranges, conditional requests, who sees what."""

from __future__ import annotations

import asyncio
from email import message_from_bytes, policy
from typing import TYPE_CHECKING, Any

import pytest

from tests.http.support import ABSENT, Conversation, refused, served
from tests.support.registry import digest_of, image, index

if TYPE_CHECKING:
    import httpx

    from tests.support.registry import Registry

CONTENT = bytes(range(256)) * 8
SIZE = len(CONTENT)


async def get(registry: Registry, digest: str, method: str = "GET", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await registry.client.request(method, f"/v2/a/b/blobs/{digest}", headers=named)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@served()
async def test_blob_when_asked_for_has_every_header_on_get_and_head(
    registry: Registry, algorithm: str
) -> None:
    digest = await registry.push_blob("a/b", CONTENT, algorithm)
    expected = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(SIZE),
        "Docker-Content-Digest": digest,
        "ETag": f'"{digest}"',
        "Cache-Control": "max-age=31536000",
        "Accept-Ranges": "bytes",
        "Docker-Distribution-Api-Version": "registry/2.0",
    }
    whole, head = await get(registry, digest), await get(registry, digest, "HEAD")
    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert (head.status_code, head.content) == (200, b"")
    assert expected.items() <= {name: whole.headers.get(name) for name in expected}.items()
    assert whole.headers == head.headers


@served()
async def test_blob_when_empty_has_length_zero(registry: Registry) -> None:
    digest = await registry.push_blob("a/b", b"")
    for method in ("GET", "HEAD"):
        answer = await get(registry, digest, method)
        assert (answer.status_code, answer.headers["Content-Length"]) == (200, "0")


@served()
async def test_blob_when_the_client_takes_compression_has_no_content_encoding(registry: Registry) -> None:
    """Compressed, a blob would not have its digest, and its ranges would mean something else."""
    digest = await registry.push_blob("a/b", b"compressible " * 10_000)
    for headers in ({}, {"Range": "bytes=0-999"}, {"Range": "bytes=0-9,20-29"}):
        answer = await get(registry, digest, Accept_Encoding="zstd;q=1.0, gzip;q=0.8, br", **headers)
        assert "Content-Encoding" not in answer.headers
        assert "Transfer-Encoding" not in answer.headers
        assert int(answer.headers["Content-Length"]) == len(answer.content)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@served()
async def test_blob_when_the_repository_has_no_link_to_it_is_unknown_there(
    registry: Registry, method: str
) -> None:
    """That another repository has it, and that it was read there a moment ago, is nobody else's business."""
    digest = await registry.push_blob("a/b", CONTENT)
    await get(registry, digest)
    await registry.push_blob("other", b"something")
    for name in ("other", "a", "a/b/c", "never/pushed"):
        answer = await registry.client.request(method, f"/v2/{name}/blobs/{digest}")
        assert answer.status_code == 404
        if method == "GET":
            refused(answer, 404, "BLOB_UNKNOWN" if name == "other" else "NAME_UNKNOWN")


@served()
async def test_blob_when_unknown_gets_404(registry: Registry) -> None:
    await registry.push_blob("a/b", CONTENT)
    assert refused(await get(registry, ABSENT), 404, "BLOB_UNKNOWN") == {"digest": ABSENT}
    assert (await get(registry, ABSENT, "HEAD")).status_code == 404


@served()
async def test_blob_when_its_digest_is_malformed_gets_400(registry: Registry) -> None:
    await registry.push_blob("a/b", CONTENT)
    for digest in (
        "latest",
        "sha256:abc",
        ABSENT.upper(),
        ABSENT + "0",
        "sha256:",
        ":",
        "sha512:" + ABSENT[7:],
    ):
        refused(await get(registry, digest), 400, "DIGEST_INVALID")
        assert (await get(registry, digest, "HEAD")).status_code == 400


@served()
async def test_blob_when_its_digest_is_of_an_algorithm_that_we_do_not_have_gets_404(
    registry: Registry,
) -> None:
    """It is well-formed, only nothing can have been pushed under it."""
    await registry.push_blob("a/b", CONTENT)
    for digest in ("blake3:" + ABSENT[7:], "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8"):
        refused(await get(registry, digest), 404, "BLOB_UNKNOWN")


# What is asked for, and the first and the last byte of the answer.
RANGES = {
    "bytes=500-1499": (500, 1499),
    "bytes=500-": (500, SIZE - 1),
    "bytes=-500": (SIZE - 500, SIZE - 1),
    f"bytes=-{SIZE}": (0, SIZE - 1),
    f"bytes=-{SIZE + 1}": (0, SIZE - 1),
    "bytes=2000-5000": (2000, SIZE - 1),
    "bytes=0-0": (0, 0),
    f"bytes={SIZE - 1}-": (SIZE - 1, SIZE - 1),
    "bytes=0-" + "9" * 29: (0, SIZE - 1),
    "Bytes = 1-2": (1, 2),
    "bytes=,1-2,": (1, 2),
    "bytes=1-2,99999-": (1, 2),
}


@served()
async def test_range_when_satisfiable_gets_206_and_those_bytes(registry: Registry) -> None:
    digest = await registry.push_blob("a/b", CONTENT)
    for wanted, (first, last) in RANGES.items():
        answer = await get(registry, digest, Range=wanted)
        assert (wanted, answer.status_code) == (wanted, 206)
        assert answer.content == CONTENT[first : last + 1]
        assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{SIZE}"
        assert answer.headers["Content-Length"] == str(last + 1 - first)
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Docker-Content-Digest"] == digest


BAD_RANGES = [
    "bytes=500-0", "bytes=5000-10000", f"bytes={SIZE}-", "bytes=-0", "bytes=", "bytes", "bytes=-", "bytes=a-b",
    "bytes=1", "bytes=1-2-3", "bytes=0x1-0x2", "bytes=1-2,x", "bytes=--1", "bytes=+1-2", "bytes=" + "9" * 31 + "-",
    "bytes=1.0-2.0", "bytes=9999-,8888-", "bytes=0-1,5-2", "bytes=\u0661-\u0662", "bytes=\x00-1",
]  # fmt: skip


@served()
async def test_range_when_malformed_or_unsatisfiable_gets_416_and_the_size(registry: Registry) -> None:
    digest = await registry.push_blob("a/b", CONTENT)
    for wanted in BAD_RANGES:
        answer = await registry.client.get(f"/v2/a/b/blobs/{digest}", headers=[(b"Range", wanted.encode())])
        refused(answer, 416, "RANGE_INVALID")
        assert answer.headers["Content-Range"] == f"bytes */{SIZE}"


@served()
async def test_range_when_of_another_unit_or_costlier_than_the_whole_gets_the_whole(
    registry: Registry,
) -> None:
    digest = await registry.push_blob("a/b", CONTENT)
    many = ",".join(f"{n}-{n}" for n in range(257))
    for wanted in ("items=0-1", "chunks=5", f"bytes={many}", "bytes=0-1500,0-1500", "bytes=0-,0-,0-,0-"):
        answer = await get(registry, digest, Range=wanted)
        assert (answer.status_code, answer.content) == (200, CONTENT)
        assert "Content-Range" not in answer.headers


@served()
async def test_range_when_the_blob_is_empty_gets_the_whole_of_it(registry: Registry) -> None:
    """As Distribution does: some clients send `bytes=0-` with every request."""
    digest = await registry.push_blob("a/b", b"")
    for wanted in ("bytes=0-", "bytes=-1", "bytes=0-99"):
        answer = await get(registry, digest, Range=wanted)
        assert (answer.status_code, answer.content) == (200, b"")


@served()
async def test_ranges_when_several_come_as_multipart_in_the_order_asked_for(registry: Registry) -> None:
    digest = await registry.push_blob("a/b", CONTENT[:400])
    for wanted in ("0-0,2-3", "-5,0-9", "100-199,50-59,300-", "0-1, 9999-, 4-5", "5-6,5-6,1-10", "0-2,2-4"):
        answer = await get(registry, digest, Range=f"bytes={wanted}")
        assert answer.status_code == 206
        assert int(answer.headers["Content-Length"]) == len(answer.content)
        assert "Content-Range" not in answer.headers
        parts = multipart(answer)
        expected = [span for text in wanted.split(",") if (span := span_of(text.strip(), 400)) is not None]
        assert [(part["Content-Range"], part.get_payload(decode=True)) for part in parts] == [
            (f"bytes {first}-{stop - 1}/400", CONTENT[first:stop]) for first, stop in expected
        ]
        assert {part["Content-Type"] for part in parts} == {"application/octet-stream"}


def multipart(answer: httpx.Response) -> list[Any]:
    head = f"Content-Type: {answer.headers['Content-Type']}\r\nMIME-Version: 1.0\r\n\r\n".encode()
    message: Any = message_from_bytes(head + answer.content, policy=policy.HTTP)
    assert message.get_content_type() == "multipart/byteranges"
    assert message.defects == []
    return list(message.iter_parts())


def span_of(text: str, size: int) -> tuple[int, int] | None:
    """A second reading of a range, independent of the one under test."""
    first, _, last = text.partition("-")
    if not first:
        return size - int(last), size
    stop = min(int(last) + 1 if last else size, size)
    return (int(first), stop) if int(first) < stop else None


@served()
async def test_head_when_a_range_is_asked_for_ignores_it(registry: Registry) -> None:
    """Ranges are defined for GET alone (RFC 9110 §14.2)."""
    digest = await registry.push_blob("a/b", CONTENT)
    for wanted in ("bytes=500-1499", "bytes=5000-", "bytes=x", "bytes=0-1,2-3"):
        answer = await get(registry, digest, "HEAD", Range=wanted)
        assert (answer.status_code, answer.headers["Content-Length"]) == (200, str(SIZE))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@served()
async def test_if_none_match_when_it_names_the_digest_gets_304(registry: Registry, method: str) -> None:
    digest = await registry.push_blob("a/b", CONTENT)
    for condition in (f'"{digest}"', digest, f'W/"{digest}"', f'"x", "{digest}"', "*"):
        answer = await get(registry, digest, method, If_None_Match=condition)
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["ETag"] == f'"{digest}"'
    for condition in ('"x"', ABSENT, ""):
        assert (await get(registry, digest, method, If_None_Match=condition)).status_code == 200


@served()
async def test_if_range_when_it_names_something_else_gets_the_whole(registry: Registry) -> None:
    digest = await registry.push_blob("a/b", CONTENT)
    for condition, status in (
        (f'"{digest}"', 206),
        (f'"{ABSENT}"', 200),
        (f'W/"{digest}"', 200),
        ("Tue, 15 Nov 1994 12:45:26 GMT", 200),
    ):
        answer = await get(registry, digest, Range="bytes=0-9", If_Range=condition)
        assert answer.status_code == status
        assert answer.content == (CONTENT[:10] if status == 206 else CONTENT)


@served()
async def test_blob_when_larger_than_a_block_is_given_back_whole_and_in_ranges(registry: Registry) -> None:
    content = CONTENT * 2000
    digest = await registry.push_blob("a/b", content)
    assert (await get(registry, digest)).content == content
    first, last = 1024 * 1024 - 1, 3 * 1024 * 1024
    answer = await get(registry, digest, Range=f"bytes={first}-{last}")
    assert answer.content == content[first : last + 1]


@served(sound=False)
async def test_blob_when_its_object_is_damaged_gets_503_before_any_byte(registry: Registry) -> None:
    digest = await registry.push_blob("a/b", CONTENT)
    key = (await registry.rows("SELECT storage_key FROM blobs"))[0]["storage_key"]
    await registry.driver.append(key, 100).commit()
    for wanted in ({}, {"Range": "bytes=50-200"}):
        answer = await get(registry, digest, **wanted)
        detail = refused(answer, 503, "UNAVAILABLE")
        assert key not in detail
        assert "Content-Length" in answer.headers
        assert "ETag" not in answer.headers
    assert (await get(registry, digest, Range="bytes=0-99")).content == CONTENT[:100]
    await registry.driver.delete([key])
    refused(await get(registry, digest), 503, "UNAVAILABLE")


@served()
async def test_download_when_the_client_leaves_stops(registry: Registry) -> None:
    digest = await registry.push_blob("a/b", CONTENT * 4000)
    request = Conversation(registry, "GET", f"/v2/a/b/blobs/{digest}")
    request.give(b"", last=True)
    request.leave()
    assert await request.answer() is None
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@served()
async def test_digest_of_a_manifest_when_asked_for_as_a_blob_is_unknown(
    registry: Registry, method: str
) -> None:
    child = await registry.push_image("a/b", "latest", image(b"layer"))
    parent = await registry.push_image("a/b", "index", index(child))
    for digest in (child.digest(), parent.digest()):
        assert (await get(registry, digest, method)).status_code == 404
    assert (await get(registry, digest_of(b"layer"), method)).status_code == 200
