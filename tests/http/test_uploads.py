"""Uploads that succeed: every style, both algorithms, status, cancel, and what the answers carry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.http.support import (
    another,
    ask,
    close_upload,
    open_upload,
    patch,
    pulled,
    refused,
    served,
    unnamed_objects,
)
from tests.support.registry import digest_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from app.store.engine import Target
    from tests.support.registry import Registry

ALGORITHMS = ("sha256", "sha512")
CONTENTS = (b"", b"{}", b"x", b"0123456789" * 1000)


async def single_post(registry: Registry, content: bytes, digest: str) -> str:
    answer = await registry.client.post(f"/v2/a/b/blobs/uploads/?digest={digest}", content=content)
    assert answer.status_code == 201
    assert answer.headers["Docker-Content-Digest"] == digest
    return answer.headers["Location"]


async def post_then_put(registry: Registry, content: bytes, digest: str) -> str:
    return await closed(registry, await open_upload(registry, "a/b"), digest, content)


async def streamed_patch(registry: Registry, content: bytes, digest: str) -> str:
    """As Docker does it: chunked transfer, neither Content-Length nor Content-Range."""

    async def body() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(content), 999):
            yield content[start : start + 999]

    location = await open_upload(registry, "a/b")
    answer = await registry.client.patch(location, content=body())
    assert answer.status_code == 202
    assert "content-length" not in answer.request.headers
    return await closed(registry, answer.headers["Location"], digest)


async def one_chunk(registry: Registry, content: bytes, digest: str) -> str:
    location = await open_upload(registry, "a/b", f"?digest-algorithm={digest.partition(':')[0]}")
    content_range = f"0-{len(content) - 1}" if content else ""
    answer = await patch(registry, location, content, content_range)
    assert answer.status_code == 202
    return await closed(registry, answer.headers["Location"], digest)


async def three_chunks(registry: Registry, content: bytes, digest: str) -> str:
    return await in_chunks(registry, content, digest, last_in_put=False)


async def last_chunk_in_put(registry: Registry, content: bytes, digest: str) -> str:
    return await in_chunks(registry, content, digest, last_in_put=True)


async def in_chunks(registry: Registry, content: bytes, digest: str, *, last_in_put: bool) -> str:
    location = await open_upload(registry, "a/b", f"?digest-algorithm={digest.partition(':')[0]}")
    size = len(content) // 3 + 1
    starts = [start for start in (0, size, 2 * size) if start < len(content)]
    last = starts.pop() if starts and last_in_put else None
    for start in starts:
        chunk = content[start : start + size]
        answer = await patch(registry, location, chunk, f"{start}-{start + len(chunk) - 1}")
        assert answer.status_code == 202
        assert answer.headers["Range"] == f"0-{start + len(chunk) - 1}"
        location = answer.headers["Location"]
    if last is None:
        return await closed(registry, location, digest)
    return await closed(registry, location, digest, content[last:], f"{last}-{len(content) - 1}")


async def closed(
    registry: Registry, location: str, digest: str, content: bytes = b"", content_range: str = ""
) -> str:
    answer = await close_upload(registry, location, digest, content, content_range)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Docker-Content-Digest"] == digest
    assert answer.headers["Content-Length"] == "0"
    return answer.headers["Location"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "style",
    [single_post, post_then_put, streamed_patch, one_chunk, three_chunks, last_chunk_in_put],
    ids=lambda style: style.__name__,
)
@served()
async def test_blob_when_pushed_in_any_style_then_its_location_gives_it_back(
    registry: Registry, style: Callable[[Registry, bytes, str], Awaitable[str]], algorithm: str
) -> None:
    for content in CONTENTS:
        digest = digest_of(content, algorithm)
        answer = await registry.client.get(await style(registry, content, digest))
        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["Docker-Content-Digest"] == digest
    assert (await registry.rows("SELECT count(*) FROM blob_uploads"))[0]["count"] == 0
    assert await unnamed_objects(registry) == []


@served()
async def test_session_when_opened_says_where_it_is_and_that_it_is_empty(registry: Registry) -> None:
    answer = await registry.client.post("/v2/a/b/blobs/uploads/", content=b"")
    assert answer.status_code == 202
    upload = answer.headers["Docker-Upload-UUID"]
    assert answer.headers["Location"] == f"http://registry.test/v2/a/b/blobs/uploads/{upload}"
    assert answer.headers["Range"] == "0-0"
    assert answer.headers["Content-Length"] == "0"
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


@served()
async def test_session_when_opened_without_any_header_works(registry: Registry) -> None:
    """Some proxies drop `Content-Length: 0`, and HTTP/1.0 clients send no Host."""
    answer = await ask(registry, "POST", "/v2/a/b/blobs/uploads/")
    assert answer.status_code == 202
    assert answer.headers["Location"].startswith("/v2/a/b/blobs/uploads/")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@served()
async def test_status_when_asked_gives_location_and_range(registry: Registry, method: str) -> None:
    location = await open_upload(registry, "a/b")
    for content, expected in ((b"", "0-0"), (b"x", "0-0"), (b"yz", "0-2")):
        await patch(registry, location, content)
        answer = await registry.client.request(method, location)
        assert (answer.status_code, answer.headers["Range"]) == (204, expected)
        assert answer.headers["Location"] == location
        assert answer.headers["Docker-Upload-UUID"] == location.rpartition("/")[2]


@served()
async def test_status_when_asked_at_another_process_is_the_same_and_the_upload_goes_on_there(
    registry: Registry, database: Target, tmp_path: Path
) -> None:
    location = await open_upload(registry, "a/b")
    await patch(registry, location, b"first ", "0-5")
    async with another(database, tmp_path) as other:
        answer = await other.client.get(location)
        assert (answer.status_code, answer.headers["Range"]) == (204, "0-5")
        assert (await patch(other, location, b"second ", "6-12")).status_code == 202
    digest = digest_of(b"first second third")
    assert (await close_upload(registry, location, digest, b"third", "13-17")).status_code == 201
    assert await pulled(registry, "a/b", digest) == b"first second third"


@served()
async def test_patch_when_it_brings_no_bytes_changes_nothing(registry: Registry) -> None:
    location = await open_upload(registry, "a/b")
    for content in (b"", b"abc", b""):
        assert (await patch(registry, location, content)).status_code == 202
    assert (await registry.client.get(location)).headers["Range"] == "0-2"
    assert (await close_upload(registry, location, digest_of(b"abc"))).status_code == 201


@served()
async def test_put_when_it_brings_a_body_after_patches_appends_it(registry: Registry) -> None:
    location = await open_upload(registry, "a/b")
    await patch(registry, location, b"patched, ")
    digest = digest_of(b"patched, put")
    assert (await close_upload(registry, location, digest, b"put")).status_code == 201
    assert await pulled(registry, "a/b", digest) == b"patched, put"


@pytest.mark.parametrize("separator", ["?", "?&", "?x=y&&"])
@served()
async def test_put_when_the_query_has_empty_or_foreign_pairs_is_understood(
    registry: Registry, separator: str
) -> None:
    location = await open_upload(registry, "a/b")
    answer = await registry.client.put(f"{location}{separator}digest={digest_of(b'abc')}", content=b"abc")
    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("announced", "pushed"), [("sha256", "sha512"), ("sha512", "sha256")], ids=lambda name: name
)
@served()
async def test_put_when_its_digest_has_another_algorithm_than_announced_is_checked_by_its_own(
    registry: Registry, announced: str, pushed: str
) -> None:
    location = await open_upload(registry, "a/b", f"?digest-algorithm={announced}")
    await patch(registry, location, b"some bytes")
    digest = digest_of(b"some bytes and more", pushed)
    assert (await close_upload(registry, location, digest, b" and more")).status_code == 201
    assert await pulled(registry, "a/b", digest) == b"some bytes and more"


@served()
async def test_upload_when_expect_continue_is_sent_is_taken(registry: Registry) -> None:
    answer = await registry.client.post(
        f"/v2/a/b/blobs/uploads/?digest={digest_of(b'abc')}",
        content=b"abc",
        headers={"Expect": "100-continue"},
    )
    assert answer.status_code == 201


@served()
async def test_upload_when_larger_than_a_block_is_stored_byte_by_byte(registry: Registry) -> None:
    content = bytes(range(256)) * (3 * 4096 + 7)
    location = await open_upload(registry, "a/b")
    await patch(registry, location, content[: 1024 * 1024 + 1])
    digest = digest_of(content)
    assert (await close_upload(registry, location, digest, content[1024 * 1024 + 1 :])).status_code == 201
    assert await pulled(registry, "a/b", digest) == content


@served()
async def test_blob_when_pushed_twice_is_stored_once(registry: Registry) -> None:
    await registry.push_blob("a/b", b"the same")
    await registry.push_blob("a/b", b"the same")
    digest = await registry.push_blob("other/repository", b"the same")
    assert (await registry.rows("SELECT count(*) FROM blobs"))[0]["count"] == 1
    tombstones = await registry.rows("SELECT reason FROM gc_storage_deletions")
    assert tombstones == [{"reason": "upload_duplicate"}] * 2
    assert await pulled(registry, "other/repository", digest) == b"the same"
    assert await unnamed_objects(registry) == []


@served()
async def test_cancel_when_done_ends_the_session_and_leaves_its_object_to_the_collector(
    registry: Registry,
) -> None:
    location = await open_upload(registry, "a/b")
    await patch(registry, location, b"abc")
    answer = await registry.client.delete(location)
    assert answer.status_code == 204
    assert answer.headers["Docker-Upload-UUID"] == location.rpartition("/")[2]
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        target = f"{location}?digest={digest_of(b'abc')}"
        refused(await registry.client.request(method, target), 404, "BLOB_UPLOAD_UNKNOWN")
    tombstones = await registry.rows("SELECT reason, size FROM gc_storage_deletions")
    assert tombstones == [{"reason": "upload_cancelled", "size": 3}]
    assert await unnamed_objects(registry) == []
