"""Clients that keep the registry waiting in the middle of a body."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from app.http.call import ApiRules
from tests.http.support import Conversation, close_upload, contents, open_upload, refused, served
from tests.support.registry import Registry, digest_of

IMPATIENT = ApiRules(body_patience_seconds=0.2)


@served(rules=IMPATIENT)
async def test_chunk_when_the_client_stalls_is_kept_and_refused(registry: Registry) -> None:
    location = await open_upload(registry, "a/b")
    request = Conversation(registry, "PATCH", urlsplit(location).path)
    request.give(b"some")
    answer = await request.answer()
    assert answer is not None
    refused(answer, 408, "REQUEST_TIMEOUT")
    status = await registry.client.get(location)
    assert (status.status_code, status.headers["Range"]) == (204, "0-3")
    assert (await close_upload(registry, location, digest_of(b"some more"), b" more")).status_code == 201


@served(rules=IMPATIENT)
async def test_manifest_when_the_client_stalls_changes_nothing(registry: Registry) -> None:
    before = await contents(registry)
    request = Conversation(registry, "PUT", "/v2/a/b/manifests/v1", [("Content-Length", "100")])
    request.give(b"{")
    answer = await request.answer()
    assert answer is not None
    refused(answer, 408, "REQUEST_TIMEOUT")
    assert await contents(registry) == before


@served(rules=IMPATIENT)
async def test_upload_in_one_request_when_the_client_stalls_leaves_nothing(registry: Registry) -> None:
    target = f"/v2/a/b/blobs/uploads/?digest={digest_of(b'whole')}"
    request = Conversation(registry, "POST", target, [("Content-Length", "5")])
    request.give(b"who")
    answer = await request.answer()
    assert answer is not None
    refused(answer, 408, "REQUEST_TIMEOUT")
    assert await registry.rows("SELECT * FROM blob_uploads") == []
    assert await registry.rows("SELECT * FROM blobs") == []


@served(rules=ApiRules(body_patience_seconds=1.5))
async def test_chunk_when_the_client_is_slow_but_goes_on_is_taken(registry: Registry) -> None:
    location = await open_upload(registry, "a/b")
    request = Conversation(registry, "PATCH", urlsplit(location).path)
    for _ in range(6):  # longer in all than the patience that it began with
        await asyncio.sleep(0.3)
        request.give(bytes(1024))
    request.give(b"", last=True)
    answer = await request.answer()
    assert answer is not None
    assert (answer.status_code, answer.headers["Range"]) == (202, "0-6143")
