"""Refusals on the wire: their form, whatever went wrong, and nothing of the inside in them."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
from typing import TYPE_CHECKING, Any

import pytest

from app.blobs.drivers.filesystem import Disk, Filesystem
from app.domain import errors
from app.domain.errors import ManifestBlobUnknown, RegistryError
from app.domain.manifests import OCI_MANIFEST
from app.http.wire import error_response
from tests.http.support import (
    ABSENT,
    Conversation,
    ask,
    close_upload,
    counts,
    open_upload,
    patch,
    put,
    refused,
    served,
    unnamed_objects,
)
from tests.support.registry import digest_of, image, open_registry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from app.store.engine import Target
    from tests.support.registry import Registry

LAYER = digest_of(b"a layer")


def every_error() -> list[RegistryError]:
    """One of each class, built with a detail where it takes any."""
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, RegistryError)]
    return [c([ABSENT, LAYER]) if c is ManifestBlobUnknown else c({"k": "v"}) for c in classes]


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
def test_error_when_rendered_has_code_message_detail_and_a_newline(error: RegistryError) -> None:
    response = error_response(error)
    body = bytes(response.body)
    assert response.status_code == error.status
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Content-Length"] == str(len(body))
    assert body.endswith(b"}\n")
    entries = json.loads(body)["errors"]
    assert len(entries) == (2 if isinstance(error, ManifestBlobUnknown) else 1)
    for entry in entries:
        assert entry["code"] == error.code
        assert entry["message"] == error.message
        assert entry["detail"] in ({"k": "v"}, {"digest": ABSENT}, {"digest": LAYER})


def test_error_when_it_has_no_detail_says_nothing_of_one() -> None:
    assert "detail" not in json.loads(bytes(error_response(errors.BlobUnknown()).body))["errors"][0]


@pytest.mark.parametrize(
    "detail", ["\ud800", "\x00\r\n", {"k": ["\U0001f433"]}, "</script>", 2**70, None, [], True]
)
def test_error_when_its_detail_is_odd_is_ascii_json(detail: Any) -> None:
    body = bytes(error_response(errors.NameInvalid(detail)).body)
    assert json.loads(body.decode("ascii"))["errors"][0].get("detail") == detail


@served()
async def test_head_when_refused_has_the_headers_of_the_get(registry: Registry) -> None:
    await registry.push_image("a/b", "latest")
    for path in (
        "/nope",
        "/v2/A/tags/list",
        "/v2/a/b/manifests/none",
        f"/v2/a/b/blobs/{ABSENT}",
        "/v2/_catalog?n=x",
    ):
        got, head = await registry.client.get(path), await registry.client.head(path)
        assert (head.status_code, head.headers, head.content) == (got.status_code, got.headers, b"")


async def drop_tables(registry: Registry) -> None:
    await registry.rows("ALTER TABLE repositories RENAME TO gone")


async def restore_tables(registry: Registry) -> None:
    await registry.rows("ALTER TABLE gone RENAME TO repositories")


@served()
async def test_request_when_something_breaks_gets_500_without_any_inside_view(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    await drop_tables(registry)
    try:
        answer = await registry.client.get("/v2/_catalog")
    finally:
        await restore_tables(registry)
    refused(answer, 500, "UNKNOWN")
    assert answer.json() == {"errors": [{"code": "UNKNOWN", "message": "unknown error"}]}
    assert [record.levelno for record in caplog.records if record.name == "app.http.app"] == [logging.ERROR]
    assert (await registry.client.get("/v2/_catalog")).status_code == 200


class Broken(Disk):
    """A disk that fails as it is told to."""

    failure = 0

    def write(self, descriptor: int, block: memoryview, position: int) -> int:
        self.check()
        return super().write(descriptor, block, position)

    def sync_file(self, descriptor: int) -> None:
        self.check()
        super().sync_file(descriptor)

    def check(self) -> None:
        if self.failure:
            raise OSError(self.failure, os.strerror(self.failure), "/secret/path")


@pytest.mark.parametrize("failure", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_upload_when_the_disk_fails_gets_503_and_goes_on_when_it_works_again(
    failure: int, database: Target, tmp_path: Path
) -> None:
    disk = Broken()

    async def scenario() -> None:
        async with open_registry(database, tmp_path, driver=Filesystem(tmp_path, disk=disk)) as registry:
            location = await open_upload(registry, "a/b")
            await patch(registry, location, b"kept ")
            disk.failure = failure
            single = f"/v2/a/b/blobs/uploads/?digest={ABSENT}"
            for method, target in (
                ("PATCH", location),
                ("PUT", f"{location}?digest={ABSENT}"),
                ("POST", single),
            ):
                answer = await registry.client.request(method, target, content=b"lost")
                assert "/secret/path" not in refused(answer, 503, "UNAVAILABLE")
                assert answer.headers["Retry-After"] == "2"
            disk.failure = 0
            assert (await registry.client.get(location)).headers["Range"] == "0-4"
            digest = digest_of(b"kept and more")
            assert (await close_upload(registry, location, digest, b"and more")).status_code == 201
            assert await registry.rows("SELECT 1 FROM blob_uploads") == []
            assert await unnamed_objects(registry) == []

    asyncio.run(scenario())


@served()
async def test_body_when_refused_is_read_a_little_and_no_further(registry: Registry) -> None:
    """So that the client sees the answer; what it would go on sending for ever is not waited for."""
    blocks = 0

    async def endless() -> AsyncGenerator[bytes, None]:
        nonlocal blocks
        while blocks < 1000:
            blocks += 1
            yield b"x" * 65_536

    answer = await registry.client.post(f"/v2/BAD/blobs/uploads/?digest={ABSENT}", content=endless())
    refused(answer, 400, "NAME_INVALID")
    assert 1 < blocks < 40


@served()
async def test_manifest_when_its_client_leaves_is_not_stored(registry: Registry) -> None:
    await registry.push_blob("a/b", b"{}")
    before = await counts(registry)
    request = Conversation(registry, "PUT", "/v2/a/b/manifests/latest")
    request.give(image().payload)
    request.leave()
    assert await request.answer() is None
    assert registry.seen.requests[-1]["status"] == 499
    assert await counts(registry) == before


@served()
async def test_request_when_its_headers_are_odd_is_answered(registry: Registry) -> None:
    await registry.push_blob("a/b", b"{}")
    odd = ("", " ", "\x00", "\xff" * 100, "x" * 60_000, ",,,;;;===", '"')
    for name in (
        "Accept",
        "Range",
        "If-None-Match",
        "If-Range",
        "Content-Type",
        "Content-Range",
        "Forwarded",
        "Host",
    ):
        for value in odd:
            for method, target in (
                ("GET", f"/v2/a/b/blobs/{digest_of(b'{}')}"),
                ("GET", "/v2/a/b/manifests/none"),
            ):
                answer = await ask(registry, method, target, [(name, value)])
                assert answer.status_code < 500, (name, value)
            answer = await ask(registry, "POST", "/v2/a/b/blobs/uploads/", [(name, value)])
            assert answer.status_code < 500, (name, value)
    answer = await put(registry, "a/b", "latest", image().payload, OCI_MANIFEST)
    assert answer.status_code == 201
