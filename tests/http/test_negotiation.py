"""What a client gets for what it accepts, and conditional GETs of manifests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from app.domain.manifests import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.http.support import ABSENT, ask, put, refused, served
from tests.support.registry import Image, descriptor, digest_of, encoded, image, index

if TYPE_CHECKING:
    import httpx

    from tests.support.registry import Registry

OCI_ONLY = f"{OCI_MANIFEST}, {OCI_INDEX}"
DOCKER_ONLY = f"{DOCKER_MANIFEST}, application/vnd.docker.distribution.manifest.v1+json"
CONTAINERD = f"{DOCKER_MANIFEST}, {DOCKER_LIST}, {OCI_MANIFEST}, {OCI_INDEX}, */*"
IMAGE = image()
INDEX = index(IMAGE)
DOCKER = Image(
    encoded(
        {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": descriptor(b"{}", "application/vnd.docker.container.image.v1+json"),
            "layers": [],
        }
    ),
    DOCKER_MANIFEST,
    (b"{}",),
)


def docker_list(*children: tuple[Image, str, str]) -> Image:
    entries = [
        descriptor(child.payload, child.media_type, platform={"os": os, "architecture": architecture})
        for child, os, architecture in children
    ]
    return Image(encoded({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": entries}), DOCKER_LIST)


LIST = docker_list((IMAGE, "linux", "arm64"), (DOCKER, "linux", "amd64"))
FOREIGN_LIST = docker_list((DOCKER, "windows", "amd64"), (IMAGE, "linux", "arm64"))


async def push_all(registry: Registry) -> None:
    for name, manifest in (
        ("image", IMAGE),
        ("docker", DOCKER),
        ("index", INDEX),
        ("list", LIST),
        ("foreign", FOREIGN_LIST),
    ):
        await registry.push_image("a/b", name, manifest)


async def get(registry: Registry, reference: str, *accept: str, method: str = "GET") -> httpx.Response:
    """With exactly these Accept headers, none if none is given."""
    return await ask(
        registry, method, f"/v2/a/b/manifests/{reference}", [("Accept", value) for value in accept]
    )


EVERYTHING: list[list[str]] = [
    [], [""], [" , "], ["*/*"], ["application/*"], [CONTAINERD], ["text/html, */*;q=0.1"], ["TEXT/HTML", "*/*"],
]  # fmt: skip
OCI_SPELLINGS = [
    [OCI_ONLY], [OCI_MANIFEST, OCI_INDEX], [OCI_ONLY.upper()], [f"{OCI_MANIFEST};q=0.1 , {OCI_INDEX} ;x=y"],
    [f"text/html,{OCI_ONLY}"],
]  # fmt: skip


@served()
async def test_manifest_when_everything_is_accepted_is_given_whatever_it_is(registry: Registry) -> None:
    await push_all(registry)
    for accept in EVERYTHING:
        for reference, manifest in (("image", IMAGE), ("docker", DOCKER), ("index", INDEX), ("list", LIST)):
            for wanted in (reference, manifest.digest()):
                answer = await get(registry, wanted, *accept)
                assert (accept, answer.status_code, answer.content) == (accept, 200, manifest.payload)
                assert answer.headers["Content-Type"] == manifest.media_type


@served()
async def test_oci_manifest_when_its_type_is_accepted_in_any_spelling_is_given(registry: Registry) -> None:
    await push_all(registry)
    for accept in OCI_SPELLINGS:
        for reference, manifest in (("image", IMAGE), ("index", INDEX)):
            answer = await get(registry, reference, *accept)
            assert (accept, answer.status_code, answer.content) == (accept, 200, manifest.payload)


@served()
async def test_oci_manifest_when_its_type_is_not_accepted_gets_404_with_the_known_message(
    registry: Registry,
) -> None:
    await push_all(registry)
    expected = {
        "image": "OCI manifest found, but accept header does not support OCI manifests",
        "index": "OCI index found, but accept header does not support OCI indexes",
    }
    for reference, manifest in (("image", IMAGE), ("index", INDEX)):
        for wanted in (reference, manifest.digest()):
            for accept in (DOCKER_ONLY, "text/html", "application/json"):
                answer = await get(registry, wanted, accept)
                assert refused(answer, 404, "MANIFEST_UNKNOWN") == expected[reference]
                head = await get(registry, wanted, accept, method="HEAD")
                assert head.status_code == 404
    refused(await get(registry, "index", OCI_MANIFEST), 404, "MANIFEST_UNKNOWN")
    refused(await get(registry, "image", OCI_INDEX), 404, "MANIFEST_UNKNOWN")


@served()
async def test_docker_image_when_its_type_is_not_accepted_is_given_nevertheless(registry: Registry) -> None:
    await push_all(registry)
    for accept in (OCI_ONLY, "text/html", DOCKER_LIST):
        answer = await get(registry, "docker", accept)
        assert (answer.status_code, answer.content) == (200, DOCKER.payload)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@served()
async def test_list_when_a_client_without_lists_asks_by_tag_is_replaced_by_linux_amd64(
    registry: Registry, method: str
) -> None:
    await push_all(registry)
    for accept in (DOCKER_ONLY, DOCKER_MANIFEST, OCI_ONLY):
        answer = await get(registry, "list", accept, method=method)
        assert answer.status_code == 200
        assert answer.headers["Docker-Content-Digest"] == DOCKER.digest()
        assert answer.headers["ETag"] == f'"{DOCKER.digest()}"'
        assert answer.headers["Content-Type"] == DOCKER_MANIFEST
        assert answer.headers["Content-Length"] == str(len(DOCKER.payload))
        assert answer.content == (DOCKER.payload if method == "GET" else b"")


@served()
async def test_list_when_asked_for_by_digest_is_never_replaced(registry: Registry) -> None:
    await push_all(registry)
    answer = await get(registry, LIST.digest(), DOCKER_ONLY)
    assert (answer.status_code, answer.content) == (200, LIST.payload)


@served()
async def test_list_when_accepted_or_no_manifest_type_is_named_is_not_replaced(registry: Registry) -> None:
    await push_all(registry)
    for accept in (f"{DOCKER_MANIFEST}, {DOCKER_LIST}", CONTAINERD, "text/html", "application/json"):
        answer = await get(registry, "list", accept)
        assert (answer.status_code, answer.content) == (200, LIST.payload)


@served()
async def test_list_when_it_has_no_linux_amd64_gets_404_for_a_client_without_lists(
    registry: Registry,
) -> None:
    await push_all(registry)
    refused(await get(registry, "foreign", DOCKER_ONLY), 404, "MANIFEST_UNKNOWN")
    assert (await get(registry, "foreign", DOCKER_LIST)).status_code == 200


@pytest.mark.parametrize("entries", [None, []])
@served()
async def test_list_when_it_has_no_entries_gets_404_for_a_client_without_lists(
    registry: Registry, entries: list[str] | None
) -> None:
    empty = encoded({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": entries})
    assert (await put(registry, "a/b", "empty", empty, DOCKER_LIST)).status_code == 201
    for method in ("GET", "HEAD"):
        assert (await get(registry, "empty", DOCKER_ONLY, method=method)).status_code == 404
    assert (await get(registry, "empty", DOCKER_LIST)).content == empty


@served()
async def test_list_when_its_linux_amd64_is_an_oci_image_that_is_not_accepted_gets_404(
    registry: Registry,
) -> None:
    await registry.push_image("a/b", "image", IMAGE)
    await registry.push_image("a/b", "list", docker_list((IMAGE, "linux", "amd64")))
    refused(await get(registry, "list", DOCKER_ONLY), 404, "MANIFEST_UNKNOWN")
    assert (await get(registry, "list", f"{DOCKER_MANIFEST}, {OCI_MANIFEST}")).content == IMAGE.payload


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@served()
async def test_if_none_match_when_it_names_the_manifest_gets_304(registry: Registry, method: str) -> None:
    await push_all(registry)
    digest = IMAGE.digest()
    for reference in ("image", digest):
        target = f"/v2/a/b/manifests/{reference}"
        for condition in (f'"{digest}"', digest, f'W/"{digest}"', f'"x", "{digest}"', "*"):
            answer = await registry.client.request(method, target, headers={"If-None-Match": condition})
            assert (answer.status_code, answer.content) == (304, b"")
            assert answer.headers["ETag"] == f'"{digest}"'
            assert answer.headers["Docker-Content-Digest"] == digest
        for condition in (f'"{ABSENT}"', "", '""', "W/"):
            answer = await registry.client.request(method, target, headers={"If-None-Match": condition})
            assert answer.status_code == 200


@served()
async def test_if_none_match_when_the_tag_has_moved_gets_the_new_manifest(registry: Registry) -> None:
    await push_all(registry)
    await registry.push_image("a/b", "image", DOCKER)
    headers = {"If-None-Match": f'"{IMAGE.digest()}"'}
    answer = await registry.client.get("/v2/a/b/manifests/image", headers=headers)
    assert (answer.status_code, answer.content) == (200, DOCKER.payload)


@served()
async def test_if_none_match_when_a_list_is_replaced_is_compared_with_the_child(registry: Registry) -> None:
    await push_all(registry)
    target = "/v2/a/b/manifests/list"
    for digest, status in ((DOCKER.digest(), 304), (LIST.digest(), 200)):
        headers = [("Accept", DOCKER_ONLY), ("If-None-Match", f'"{digest}"')]
        assert (await ask(registry, "GET", target, headers)).status_code == status


@served()
async def test_manifest_when_the_client_takes_compression_has_no_content_encoding(registry: Registry) -> None:
    compressible = image(annotations={"k": "compressible " * 10_000})
    await registry.push_image("a/b", "latest", compressible)
    headers = {"Accept-Encoding": "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5"}
    answer = await registry.client.get("/v2/a/b/manifests/latest", headers=headers)
    assert "Content-Encoding" not in answer.headers
    assert answer.content == compressible.payload


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@served()
async def test_manifest_when_there_is_none_gets_404(registry: Registry, method: str) -> None:
    await push_all(registry)
    blob = digest_of(b"{}")
    for reference in (
        "nothing",
        ABSENT,
        blob,
        digest_of(b"x", "sha512"),
        "-a",
        "a" * 129,
        "%00",
        "blake3:" + "0" * 64,
    ):
        answer = await ask(registry, method, f"/v2/a/b/manifests/{reference}")
        assert (answer.status_code, reference) == (404, reference)
        refused(answer, 404, "MANIFEST_UNKNOWN")
    refused(await ask(registry, method, "/v2/never/pushed/manifests/latest"), 404, "NAME_UNKNOWN")
    refused(await ask(registry, method, "/v2/a/b/manifests/sha256:baddigeststring"), 400, "DIGEST_INVALID")


@served()
async def test_manifest_when_another_repository_has_it_is_unknown_here(registry: Registry) -> None:
    await push_all(registry)
    await registry.push_image("other", "other", image(b"other"))
    refused(await registry.client.get(f"/v2/other/manifests/{IMAGE.digest()}"), 404, "MANIFEST_UNKNOWN")
    refused(await registry.client.get("/v2/other/manifests/image"), 404, "MANIFEST_UNKNOWN")
