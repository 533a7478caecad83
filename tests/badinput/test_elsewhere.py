"""What another repository has does not exist here: sessions, blobs, manifests, tags, referrers.

CVE-2026-32589 (Quay, an upload session used through another repository), CVE-2024-39897 (zot, blobs of others through
a cache), CVE-2026-35172 (Distribution, access that a cache brings back after a delete).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.domain.errors import (
    BlobUnknown,
    BlobUploadUnknown,
    ManifestBlobUnknown,
    ManifestUnknown,
    NameUnknown,
)
from app.domain.manifests import OCI_INDEX, OCI_MANIFEST
from tests.badinput.support import expect_refusal, unchanged
from tests.http.support import ask, close_upload, open_upload, patch, pulled, served
from tests.support.registry import descriptor, digest_of, encoded, image, index

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.registry import Registry

SECRET = b"only the owner has this"
DIGEST = digest_of(SECRET)
CONTENT = b"0123456789"
# A repository of its own, one below and one above the owner's, one that only looks alike, and one that never was.
THIEVES = ("thief", "own", "owner/repository/more", "owner-repository", "owner/repositor", "never/pushed")


async def the_owners_things(registry: Registry) -> str:
    """A private image with its layer, an index, a referrer and a session. Returns the session's path."""
    pushed = await registry.push_image("owner/repository", "latest", image(SECRET))
    subject = {"mediaType": pushed.media_type, "digest": pushed.digest(), "size": len(pushed.payload)}
    await registry.push_image("owner/repository", "signature", image(b"signature", subject=subject))
    assert (await registry.put_manifest("owner/repository", "list", index(pushed))).status_code == 201
    for name in THIEVES[:-1]:
        await registry.push_image(name, "mine", image(b"mine"))
    location = await open_upload(registry, "owner/repository")
    await patch(registry, location, CONTENT[:4])
    return location.removeprefix("http://registry.test")


@served()
async def test_session_when_used_through_another_repository_then_gets_404_and_goes_on_for_its_owner(
    registry: Registry, tmp_path: Path
) -> None:
    location = await the_owners_things(registry)
    async with unchanged(registry, tmp_path):
        for name in THIEVES:
            target = location.replace("owner/repository", name)
            for method, headers in (
                ("GET", ()),
                ("HEAD", ()),
                ("PATCH", ()),
                ("PATCH", (("Content-Range", "4-9"),)),
                ("PATCH", (("Content-Range", "0-5"),)),
                ("PUT", ()),
                ("PUT", (("Content-Range", "4-9"),)),
                ("DELETE", ()),
            ):
                await expect_refusal(
                    registry,
                    method,
                    f"{target}?digest={digest_of(CONTENT)}",
                    BlobUploadUnknown,
                    location.rpartition("/")[2],
                    headers=headers,
                    body=CONTENT[4:] if method in ("PATCH", "PUT") else b"",
                )
    assert (await close_upload(registry, location, digest_of(CONTENT), CONTENT[4:], "4-9")).status_code == 201
    assert await pulled(registry, "owner/repository", digest_of(CONTENT)) == CONTENT


@served()
async def test_session_when_over_then_gets_404_from_everywhere(registry: Registry, tmp_path: Path) -> None:
    finished = await the_owners_things(registry)
    assert (await close_upload(registry, finished, digest_of(CONTENT), CONTENT[4:])).status_code == 201
    cancelled = await open_upload(registry, "owner/repository")
    assert (await registry.client.delete(cancelled)).status_code == 204
    async with unchanged(registry, tmp_path):
        for location in (finished, cancelled):
            for name in ("owner/repository", *THIEVES):
                for method in ("GET", "PATCH", "PUT", "DELETE"):
                    target = f"{location.replace('owner/repository', name)}?digest={DIGEST}"
                    await expect_refusal(
                        registry, method, target, BlobUploadUnknown, '"upload"', body=b"more"
                    )


@served()
async def test_blob_when_only_another_repository_has_it_then_gets_404_and_stays_there(
    registry: Registry, tmp_path: Path
) -> None:
    await the_owners_things(registry)
    assert await pulled(registry, "owner/repository", DIGEST) == SECRET
    async with unchanged(registry, tmp_path):
        for name in THIEVES:
            kind = NameUnknown if name == "never/pushed" else BlobUnknown
            for method in ("GET", "HEAD", "DELETE"):
                target = f"/v2/{name}/blobs/{DIGEST}"
                words = name if kind is NameUnknown else DIGEST
                await expect_refusal(registry, method, target, kind, words, headers=(("Range", "bytes=0-3"),))
                # Who knows the validator gets no 304 for it either.
                condition = (("If-None-Match", f'"{DIGEST}"'),)
                await expect_refusal(registry, method, target, kind, headers=condition)
    assert await pulled(registry, "owner/repository", DIGEST) == SECRET


@served()
async def test_blob_when_unlinked_then_its_reads_elsewhere_do_not_bring_it_back(registry: Registry) -> None:
    """CVE-2026-35172: deleted in one repository, looked at in another, and then there again."""
    for name in ("one", "other"):
        await registry.push_blob(name, SECRET)
    target = f"/v2/one/blobs/{DIGEST}"
    assert (await registry.client.delete(target)).status_code == 202
    for _ in range(3):
        assert await pulled(registry, "other", DIGEST) == SECRET
        assert (await registry.client.head(f"/v2/other/blobs/{DIGEST}")).status_code == 200
        await expect_refusal(registry, "GET", target, BlobUnknown, DIGEST)
        await expect_refusal(registry, "HEAD", target, BlobUnknown)


@served()
async def test_mount_when_the_named_repository_has_not_got_the_blob_then_opens_a_session_and_links_nothing(
    registry: Registry,
) -> None:
    await the_owners_things(registry)
    links = "SELECT repository_id, blob_digest FROM repository_blobs ORDER BY 1, 2"
    before = await registry.rows(links)
    for source in (
        "never/pushed",
        "own",
        "thief",
        "",
        "OWNER/REPOSITORY",
        "owner/repository/",
        "owner%2frepository%00",
        "..",
    ):
        answer = await ask(registry, "POST", f"/v2/thief/blobs/uploads/?mount={DIGEST}&from={source}")
        assert (source, answer.status_code) == (source, 202)
        assert await registry.rows(links) == before
        await expect_refusal(registry, "GET", f"/v2/thief/blobs/{DIGEST}", BlobUnknown, DIGEST)
    target = f"/v2/thief/blobs/uploads/?mount={DIGEST}&from=owner/repository"
    assert (await ask(registry, "POST", target)).status_code == 201
    assert await pulled(registry, "thief", DIGEST) == SECRET


@served()
async def test_manifest_when_only_another_repository_has_it_then_gets_404_and_stays_there(
    registry: Registry, tmp_path: Path
) -> None:
    await the_owners_things(registry)
    pushed = image(SECRET)
    references = [pushed.digest(), index(pushed).digest(), "latest", "list", "signature"]
    async with unchanged(registry, tmp_path):
        for name in THIEVES:
            kind = NameUnknown if name == "never/pushed" else ManifestUnknown
            for reference in references:
                for method in ("GET", "HEAD", "DELETE"):
                    target = f"/v2/{name}/manifests/{reference}"
                    words = name if kind is NameUnknown else reference
                    await expect_refusal(registry, method, target, kind, words)
                    condition = (("If-None-Match", f'"{pushed.digest()}"'),)
                    await expect_refusal(registry, method, target, kind, headers=condition)
            answer = await ask(registry, "GET", f"/v2/{name}/referrers/{pushed.digest()}")
            assert (answer.status_code, answer.json()["manifests"]) == (200, [])


@served()
async def test_manifest_when_it_needs_what_only_another_repository_has_then_gets_400_naming_it(
    registry: Registry, tmp_path: Path
) -> None:
    await the_owners_things(registry)
    pushed, mine = image(SECRET), image(b"mine")
    cases = {
        "a layer": (OCI_MANIFEST, image(SECRET, config=b"{}").payload, [DIGEST]),
        "a config": (OCI_MANIFEST, image(b"mine", config=SECRET).payload, [DIGEST]),
        "a child": (OCI_INDEX, index(mine, pushed).payload, [pushed.digest()]),
        "a child's blob": (
            OCI_INDEX,
            encoded({"schemaVersion": 2, "manifests": [descriptor(SECRET, "application/octet-stream")]}),
            [DIGEST],
        ),
    }
    async with unchanged(registry, tmp_path):
        for name in THIEVES[:-1]:
            for media_type, payload, missing in cases.values():
                await expect_refusal(
                    registry,
                    "PUT",
                    f"/v2/{name}/manifests/stolen",
                    ManifestBlobUnknown,
                    *missing,
                    headers=(("Content-Type", media_type),),
                    body=payload,
                )
