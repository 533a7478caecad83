"""Mounting: a blob that another repository has is linked, if the caller may read it there; else a session is opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from app.domain.access import Action, Anyone
from tests.http.support import ABSENT, close_upload, pulled, refused, served
from tests.support.registry import digest_of

if TYPE_CHECKING:
    import httpx

    from tests.support.registry import Registry

CONTENT = b"a layer that others have"


@dataclass(frozen=True)
class Stranger(Anyone):
    """May do everything in `mine/…`, and read `public`. Sees nothing else, the registry as a whole included."""

    def may(self, action: Action, repository: str | None) -> bool:
        if repository is None:
            return False
        return repository.startswith("mine/") or (repository == "public" and action is Action.PULL)


async def mount(registry: Registry, name: str, digest: str, source: str | None) -> httpx.Response:
    query = f"?mount={digest}" + ("" if source is None else f"&from={source}")
    return await registry.client.post(f"/v2/{name}/blobs/uploads/{query}")


async def assert_session(registry: Registry, answer: httpx.Response, content: bytes = CONTENT) -> None:
    """The answer is an ordinary open session, which takes a PUT, and one like it can be cancelled."""
    assert answer.status_code == 202, answer.text
    assert answer.headers["Range"] == "0-0"
    assert "Docker-Content-Digest" not in answer.headers
    closed = await close_upload(registry, answer.headers["Location"], digest_of(content), content)
    assert closed.status_code == 201


async def link(registry: Registry, name: str) -> str:
    """The blob in a repository, whoever may write there."""
    digest = await registry.push_blob("mine/start", CONTENT)
    await registry.rows("UPDATE repositories SET path = $1 WHERE path = 'mine/start'", name)
    return digest


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@served()
async def test_mount_when_the_source_has_the_blob_links_it(registry: Registry, algorithm: str) -> None:
    digest = await registry.push_blob("source/repository", CONTENT, algorithm)
    answer = await mount(registry, "target/repository", digest, "source/repository")
    assert answer.status_code == 201
    assert answer.headers["Docker-Content-Digest"] == digest
    assert answer.headers["Location"] == f"http://registry.test/v2/target/repository/blobs/{digest}"
    assert (await registry.client.head(answer.headers["Location"])).status_code == 200
    assert await pulled(registry, "target/repository", digest) == CONTENT
    assert await registry.rows("SELECT 1 FROM blob_uploads") == []


@served()
async def test_mount_when_repeated_or_onto_itself_succeeds(registry: Registry) -> None:
    digest = await registry.push_blob("a", CONTENT)
    for source, target in (("a", "b"), ("a", "b"), ("a", "a")):
        assert (await mount(registry, target, digest, source)).status_code == 201


@pytest.mark.parametrize("source", ["source", "never/pushed", None])
@served()
async def test_mount_when_nobody_has_the_blob_opens_a_session(registry: Registry, source: str | None) -> None:
    await registry.push_blob("source", b"another one")
    await assert_session(registry, await mount(registry, "target", digest_of(CONTENT), source))


@served()
async def test_anonymous_mount_when_the_blob_was_deleted_everywhere_opens_a_session(
    registry: Registry,
) -> None:
    digest = await registry.push_blob("a/b", b"deleted")
    assert (await registry.client.delete(f"/v2/a/b/blobs/{digest}")).status_code == 202
    assert (await mount(registry, "c/d", digest, None)).status_code == 202
    assert (await registry.client.head(f"/v2/c/d/blobs/{digest}")).status_code == 404


@served()
async def test_mount_when_the_source_has_it_no_more_opens_a_session(registry: Registry) -> None:
    """The blob itself is still there, for another repository: that gives no right to it through this one."""
    digest = await registry.push_blob("a", CONTENT)
    await registry.push_blob("b", CONTENT)
    assert (await registry.client.delete(f"/v2/a/blobs/{digest}")).status_code == 202
    await assert_session(registry, await mount(registry, "c", digest, "a"))


@served()
async def test_anonymous_mount_when_the_caller_may_read_everything_finds_the_blob_anywhere(
    registry: Registry,
) -> None:
    digest = await registry.push_blob("somewhere/else", CONTENT)
    assert (await mount(registry, "target", digest, None)).status_code == 201
    assert await pulled(registry, "target", digest) == CONTENT


@served(caller=Stranger())
async def test_mount_when_the_caller_may_read_the_source_links_the_blob(registry: Registry) -> None:
    digest = await link(registry, "public")
    assert (await mount(registry, "mine/target", digest, "public")).status_code == 201
    assert await pulled(registry, "mine/target", digest) == CONTENT


@pytest.mark.parametrize("source", ["private", None])
@served(caller=Stranger())
async def test_mount_when_the_caller_may_not_read_the_source_answers_as_if_it_had_nothing(
    registry: Registry, source: str | None
) -> None:
    """202 and a session: neither 401 nor 403 nor 404, which would tell what others have and confuse clients."""
    digest = await link(registry, "private")
    answer = await mount(registry, "mine/target", digest, source)
    absent = await mount(registry, "mine/target", ABSENT, source)
    assert answer.status_code == absent.status_code == 202
    assert set(answer.headers) == set(absent.headers)
    assert (await registry.client.head(f"/v2/mine/target/blobs/{digest}")).status_code == 404
    await assert_session(registry, answer)


@served(caller=Stranger())
async def test_anonymous_mount_when_the_target_has_the_blob_already_succeeds(registry: Registry) -> None:
    digest = await registry.push_blob("mine/target", CONTENT)
    assert (await mount(registry, "mine/target", digest, None)).status_code == 201


@served(caller=Stranger())
async def test_session_of_a_refused_mount_when_cancelled_by_the_pusher_ends(registry: Registry) -> None:
    """What podman does with such a session; its token allows to push, not to delete."""
    digest = await link(registry, "private")
    location = (await mount(registry, "mine/target", digest, "private")).headers["Location"]
    assert (await registry.client.delete(location)).status_code == 204
    refused(await registry.client.get(location), 404, "BLOB_UPLOAD_UNKNOWN")


@served()
async def test_mount_when_the_source_is_no_repository_name_opens_a_session(registry: Registry) -> None:
    digest = await registry.push_blob("a", CONTENT)
    for source in ("", "UPPER", "../a", "a//b", "a%00", "a%0A", "x" * 256, "%ff"):
        assert (await mount(registry, "target", digest, source)).status_code == 202


@served()
async def test_mount_when_the_digest_is_malformed_gets_400_and_creates_no_repository(
    registry: Registry,
) -> None:
    for digest in ("", "latest", "sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e"):
        refused(await mount(registry, "target", digest, "a"), 400, "DIGEST_INVALID")
    assert await registry.rows("SELECT 1 FROM repositories") == []


@served()
async def test_post_when_it_names_a_source_and_no_digest_opens_a_session(registry: Registry) -> None:
    await assert_session(registry, await registry.client.post("/v2/target/blobs/uploads/?from=a"))
