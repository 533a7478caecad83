"""Uploads that are refused, and what then becomes of their sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.http.support import (
    Conversation,
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
    from tests.support.registry import Registry

CONTENT = b"0123456789"
DIGEST = digest_of(CONTENT)
WRONG = digest_of(b"something else")
BAD_DIGESTS = [
    "latest", "", DIGEST[:-1], DIGEST + "0", DIGEST.upper(), "sha256:" + DIGEST[7:].upper(), "sha512:" + DIGEST[7:],
    "sha256:../../etc/passwd", "md5:d41d8cd98f00b204e9800998ecf8427e", "blake3:" + DIGEST[7:],
    "sha256:" + "0" * 63 + "%00", DIGEST + "%0A", "sha256:" + "g" * 64, "sha256:" + "%D9%A1" * 64,
    f"{DIGEST},{DIGEST}",
]  # fmt: skip


@served()
async def test_single_post_when_its_digest_is_malformed_gets_400(registry: Registry) -> None:
    for digest in BAD_DIGESTS:
        answer = await registry.client.post(f"/v2/a/b/blobs/uploads/?digest={digest}", content=CONTENT)
        refused(answer, 400, "DIGEST_INVALID")
    assert await registry.rows("SELECT 1 FROM repositories") == []


@served()
async def test_put_when_its_digest_is_malformed_gets_400_and_the_session_goes_on(registry: Registry) -> None:
    location = await open_upload(registry, "a/b")
    await patch(registry, location, CONTENT)
    for digest in BAD_DIGESTS:
        refused(await close_upload(registry, location, digest, b"more"), 400, "DIGEST_INVALID")
    assert (await close_upload(registry, location, DIGEST)).status_code == 201


@served()
async def test_put_when_it_has_no_digest_gets_400_and_the_session_goes_on(registry: Registry) -> None:
    location = await open_upload(registry, "a/b")
    refused(await registry.client.put(location, content=b"more"), 400, "DIGEST_INVALID")
    assert (await close_upload(registry, location, DIGEST, CONTENT)).status_code == 201


@served()
async def test_session_when_opened_for_an_unknown_algorithm_gets_400(registry: Registry) -> None:
    for algorithm in ("md5", "SHA256", "sha-256", "blake3", "%00"):
        answer = await registry.client.post(f"/v2/a/b/blobs/uploads/?digest-algorithm={algorithm}")
        refused(answer, 400, "DIGEST_INVALID")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@served()
async def test_single_post_when_its_digest_is_of_other_bytes_gets_400_and_leaves_no_blob(
    registry: Registry, algorithm: str
) -> None:
    digest = digest_of(b"something else", algorithm)
    answer = await registry.client.post(f"/v2/a/b/blobs/uploads/?digest={digest}", content=CONTENT)
    detail = refused(answer, 400, "DIGEST_INVALID")
    assert digest in detail
    assert digest_of(CONTENT, algorithm) in detail
    assert (await registry.client.head(f"/v2/a/b/blobs/{digest}")).status_code == 404
    await assert_nothing_open(registry)


@pytest.mark.parametrize("style", ["put with the body", "patch and put"])
@served()
async def test_put_when_its_digest_is_of_other_bytes_gets_400_and_ends_the_session(
    registry: Registry, style: str
) -> None:
    """Nobody knows which of the bytes are wrong, so to go on from them would help nobody."""
    location = await open_upload(registry, "a/b")
    if style == "patch and put":
        await patch(registry, location, CONTENT)
        answer = await close_upload(registry, location, WRONG)
    else:
        answer = await close_upload(registry, location, WRONG, CONTENT)
    refused(answer, 400, "DIGEST_INVALID")
    refused(await registry.client.get(location), 404, "BLOB_UPLOAD_UNKNOWN")
    refused(await close_upload(registry, location, DIGEST, CONTENT), 404, "BLOB_UPLOAD_UNKNOWN")
    await assert_nothing_open(registry)


async def assert_nothing_open(registry: Registry) -> None:
    assert await registry.rows("SELECT 1 FROM blob_uploads") == []
    assert await registry.rows("SELECT 1 FROM blobs") == []
    reasons = await registry.rows("SELECT reason FROM gc_storage_deletions")
    assert reasons == [{"reason": "upload_rejected"}]
    assert await unnamed_objects(registry) == []


@pytest.mark.parametrize("content_range", ["0-3", "3-9", "5-9", "9-12", "100-103"])
@served()
async def test_patch_when_out_of_order_gets_416_and_the_session_is_then_finished(
    registry: Registry, content_range: str
) -> None:
    location = await open_upload(registry, "a/b")
    assert (await patch(registry, location, CONTENT[:4], "0-3")).status_code == 202
    first, _, last = content_range.partition("-")
    chunk = b"x" * (int(last) - int(first) + 1)
    answer = await patch(registry, location, chunk, content_range)
    refused(answer, 416, "RANGE_INVALID")
    assert (answer.headers["Location"], answer.headers["Range"]) == (location, "0-3")
    await finish_from(registry, location)


@pytest.mark.parametrize("content_range", ["0-3", "3-9", "5-9", "100-103"])
@served()
async def test_put_when_out_of_order_gets_416_and_the_session_is_then_finished(
    registry: Registry, content_range: str
) -> None:
    location = await open_upload(registry, "a/b")
    assert (await patch(registry, location, CONTENT[:4], "0-3")).status_code == 202
    first, _, last = content_range.partition("-")
    chunk = b"x" * (int(last) - int(first) + 1)
    answer = await close_upload(registry, location, DIGEST, chunk, content_range)
    refused(answer, 416, "RANGE_INVALID")
    assert (answer.headers["Location"], answer.headers["Range"]) == (location, "0-3")
    await finish_from(registry, location)


async def finish_from(registry: Registry, location: str) -> None:
    """Ask where the session stands, and do what a client does then."""
    status = await registry.client.get(location)
    assert (status.status_code, status.headers["Range"]) == (204, "0-3")
    location = status.headers["Location"]
    assert (await patch(registry, location, CONTENT[4:8], "4-7")).status_code == 202
    assert (await close_upload(registry, location, DIGEST, CONTENT[8:], "8-9")).status_code == 201
    assert await pulled(registry, "a/b", DIGEST) == CONTENT


@served()
async def test_first_chunk_when_it_does_not_start_at_zero_gets_416(registry: Registry) -> None:
    location = await open_upload(registry, "a/b")
    refused(await patch(registry, location, CONTENT[:4], "1-4"), 416, "RANGE_INVALID")
    refused(await close_upload(registry, location, DIGEST, CONTENT, "1-10"), 416, "RANGE_INVALID")
    assert (await close_upload(registry, location, DIGEST, CONTENT, "0-9")).status_code == 201


# Four bytes come with each of them, so that a length that fits does not hide the range.
BAD_CHUNK_RANGES = [
    "", "-", "4", "4-", "-4", "9-0", "a-b", "0-3/10", "bytes 0-3/10", "bytes=0-3", "0\u20133", "0 - 3", "0-3, 4-5",
    "-1-3", "+0-3", "0x0-0x3", "0.0-3.0", "1e1-2e1", "NaN-NaN", "\u0660-\u0663", "0-3;x",
    f"0-{2**63}", f"{2**63 - 4}-{2**63 - 1}",
    f"{2**63}-{2**63 + 3}", f"{2**64}-{2**64 + 3}", f"{10**19 - 4}-{10**19 - 1}", "9" * 5000 + "-" + "9" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@served()
async def test_chunk_when_its_range_is_malformed_gets_416_and_the_session_stays(
    registry: Registry, method: str
) -> None:
    location = await open_upload(registry, "a/b")
    for content_range in BAD_CHUNK_RANGES:
        answer = await registry.client.request(
            method,
            f"{location}?digest={DIGEST}",
            content=CONTENT[:4],
            headers=[(b"Content-Range", content_range.encode())],
        )
        refused(answer, 416, "RANGE_INVALID")
    assert (await registry.client.get(location)).headers["Range"] == "0-0"
    assert (await close_upload(registry, location, DIGEST, CONTENT)).status_code == 201


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@served()
async def test_chunk_when_its_range_and_length_disagree_gets_400_and_the_session_stays(
    registry: Registry, method: str
) -> None:
    location = await open_upload(registry, "a/b")
    for content_range in ("0-2", "0-4", "0-0"):
        answer = await registry.client.request(
            method,
            f"{location}?digest={DIGEST}",
            content=CONTENT[:4],
            headers={"Content-Range": content_range},
        )
        assert answer.request.headers["Content-Length"] == "4"
        refused(answer, 400, "SIZE_INVALID")
    assert (await close_upload(registry, location, DIGEST, CONTENT, "0-9")).status_code == 201


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("arriving", [CONTENT[:3], CONTENT[:5], b""])
@served()
async def test_chunk_when_another_number_of_bytes_arrives_than_its_range_states_gets_400(
    registry: Registry, arriving: bytes, method: str
) -> None:
    """Chunked transfer states no length, so only counting shows it; none of the bytes may then count."""
    location = await open_upload(registry, "a/b")
    request = Conversation(registry, method, f"{location}?digest={DIGEST}", [("Content-Range", "0-3")])
    request.give(arriving, last=True)
    answer = await request.answer()
    assert answer is not None
    refused(answer, 400, "SIZE_INVALID")
    assert (await registry.client.get(location)).headers["Range"] == "0-0"
    assert (await close_upload(registry, location, DIGEST, CONTENT, "0-9")).status_code == 201
    assert await pulled(registry, "a/b", DIGEST) == CONTENT


@served()
async def test_chunk_when_its_length_is_malformed_gets_400(registry: Registry) -> None:
    location = await open_upload(registry, "a/b")
    for length in ("-1", "4.0", "abc", "4, 4", "9" * 19, "\u0664"):
        headers = [(b"Content-Range", b"0-3"), (b"Content-Length", length.encode())]
        answer = await registry.client.patch(location, content=CONTENT[:4], headers=headers)
        refused(answer, 400, "SIZE_INVALID")
    assert (await close_upload(registry, location, DIGEST, CONTENT)).status_code == 201


@pytest.mark.parametrize("method", ["GET", "HEAD", "PATCH", "PUT", "DELETE"])
@served()
async def test_session_when_used_through_another_repository_is_unknown_there_and_unchanged(
    registry: Registry, method: str
) -> None:
    location = await open_upload(registry, "victim/repository")
    await patch(registry, location, CONTENT[:4])
    await registry.push_image("thief/repository", "latest")
    before = await registry.rows("SELECT * FROM blob_uploads")
    for name in ("thief/repository", "victim", "never/pushed", "victim/repository/blobs"):
        target = location.replace("victim/repository", name)
        answer = await registry.client.request(method, f"{target}?digest={DIGEST}", content=CONTENT[4:])
        assert answer.status_code == 404
        if method != "HEAD":
            refused(answer, 404, "BLOB_UPLOAD_UNKNOWN")
    assert await registry.rows("SELECT * FROM blob_uploads") == before
    assert (await close_upload(registry, location, DIGEST, CONTENT[4:], "4-9")).status_code == 201


UNKNOWN_UPLOADS = [
    "00000000-0000-0000-0000-000000000000", "0", "x", "%00", "%2e%2e", "not-a-uuid", "A" * 36, "0" * 32,
    "{00000000-0000-0000-0000-000000000000}", "urn:uuid:00000000-0000-0000-0000-000000000000", "a" * 4000,
    "00000000-0000-0000-0000-00000000000%0a", "' OR 1=1", "%ff%fe",
]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "PATCH", "PUT", "DELETE"])
@served()
async def test_session_when_its_id_was_never_given_out_is_unknown(registry: Registry, method: str) -> None:
    await open_upload(registry, "a/b")
    for upload in UNKNOWN_UPLOADS:
        target = f"/v2/a/b/blobs/uploads/{upload}?digest={DIGEST}"
        refused(await registry.client.request(method, target, content=CONTENT), 404, "BLOB_UPLOAD_UNKNOWN")


@served()
async def test_session_when_finished_is_unknown(registry: Registry) -> None:
    location = await open_upload(registry, "a/b")
    assert (await close_upload(registry, location, DIGEST, CONTENT)).status_code == 201
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        answer = await registry.client.request(method, f"{location}?digest={DIGEST}", content=b"")
        refused(answer, 404, "BLOB_UPLOAD_UNKNOWN")
    assert await pulled(registry, "a/b", DIGEST) == CONTENT
