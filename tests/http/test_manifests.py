"""Manifests that are taken: every kind there is, tags in the same request, and what GET and HEAD then say."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from app.domain.manifests import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from app.services.push_manifest import ManifestRules
from tests.http.support import ABSENT, put, refused, served
from tests.support.registry import (
    CONFIG_TYPE,
    LAYER_TYPE,
    Image,
    descriptor,
    digest_of,
    encoded,
    image,
    index,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.support.registry import Registry

MIB = 1024 * 1024
NONDISTRIBUTABLE = [
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
]


def docker_image(*layers: bytes) -> Image:
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": descriptor(b"{}", "application/vnd.docker.container.image.v1+json"),
        "layers": [descriptor(b, "application/vnd.docker.image.rootfs.diff.tar.gzip") for b in layers],
    }
    return Image(encoded(document), DOCKER_MANIFEST, (b"{}", *layers))


def docker_list(*children: Image) -> Image:
    entries = [
        descriptor(c.payload, c.media_type, platform={"architecture": "amd64", "os": "linux"})
        for c in children
    ]
    return Image(encoded({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": entries}), DOCKER_LIST)


def without_media_type(manifest: Image) -> Image:
    document = json.loads(manifest.payload)
    del document["mediaType"]
    return Image(encoded(document), manifest.media_type, manifest.blobs)


CHILD, DOCKER_CHILD = image(b"child"), docker_image(b"child")
ARTIFACT = image(
    config=b"{}", config_type="application/vnd.oci.empty.v1+json", artifactType="application/x.sbom"
)
ABSENT_SUBJECT = {"mediaType": OCI_MANIFEST, "digest": ABSENT, "size": 7}
KINDS = {
    "image": image(b"one", b"two"),
    "image without mediaType": without_media_type(image(b"one")),
    "image without layers": image(),
    "image with the same layer twice": image(b"one", b"one"),
    "image with a helm config": image(b"chart", config_type="application/vnd.cncf.helm.config.v1+json"),
    "image with unknown fields": image(b"one", somethingNew={"a": [1, None, "x"]}),
    "image with odd strings": image(b"one", annotations={"": "", "k\u0000": "\u0000\ud800 \U0001f433"}),
    "image whose descriptors carry data": image(
        config=b"{}", layers=[descriptor(b"{}", LAYER_TYPE, data=base64.b64encode(b"{}").decode())]
    ),
    "artifact": ARTIFACT,
    "artifact with the empty layer": image(
        config_type="application/vnd.oci.empty.v1+json",
        layers=[descriptor(b"{}", "application/vnd.oci.empty.v1+json")],
        artifactType="a/b",
    ),
    "attestation": image(layers=[descriptor(b"{}", "application/vnd.in-toto+json")]),
    "image with an unknown layer type": image(layers=[descriptor(b"{}", "application/vnd.example+weird")]),
    "image with an absent subject": image(b"one", subject=ABSENT_SUBJECT),
    "index": index(CHILD, DOCKER_CHILD),
    "index without mediaType": without_media_type(index(CHILD)),
    "index without entries": index(),
    "index with null entries": index(manifests=None),
    "index with the same child twice": index(CHILD, CHILD),
    "index with a subject": index(CHILD, subject=ABSENT_SUBJECT, artifactType="a/b"),
    "Docker image": DOCKER_CHILD,
    "Docker list": docker_list(DOCKER_CHILD),
    "Docker list of OCI images": docker_list(CHILD),
    "large image": image(annotations={f"k{n}": "v" * 10_000 for n in range(390)}),
}


async def with_parts(registry: Registry) -> None:
    """A repository that holds whatever the manifests above need."""
    for manifest in (CHILD, DOCKER_CHILD):
        await registry.push_image("a/b", manifest.digest(), manifest)
    for blob in (b"one", b"two", b"chart", b"{}"):
        await registry.push_blob("a/b", blob)


@served()
async def test_manifest_when_put_by_tag_and_by_digest_is_given_back_byte_by_byte(registry: Registry) -> None:
    await with_parts(registry)
    for kind, manifest in KINDS.items():
        for reference in ("latest", manifest.digest(), manifest.digest("sha512")):
            answer = await registry.put_manifest("a/b", reference, manifest)
            assert (kind, answer.status_code) == (kind, 201), answer.text
            digest = manifest.digest("sha512") if reference.startswith("sha512") else manifest.digest()
            assert answer.headers["Docker-Content-Digest"] == digest
            assert answer.headers["Location"] == f"http://registry.test/v2/a/b/manifests/{digest}"
            assert "OCI-Tag" not in answer.headers
            await assert_given_back(registry, answer.headers["Location"], manifest, digest)
            await assert_given_back(registry, f"/v2/a/b/manifests/{reference}", manifest, digest)


async def assert_given_back(registry: Registry, target: str, manifest: Image, digest: str) -> None:
    got, head = await registry.client.get(target), await registry.client.head(target)
    assert (got.status_code, got.content) == (200, manifest.payload)
    assert (head.status_code, head.content, head.headers) == (200, b"", got.headers)
    expected = {
        "Content-Type": manifest.media_type,
        "Content-Length": str(len(manifest.payload)),
        "Docker-Content-Digest": digest,
        "ETag": f'"{digest}"',
        "Docker-Distribution-Api-Version": "registry/2.0",
    }
    assert {name: got.headers.get(name) for name in expected} == expected


@served()
async def test_manifests_when_all_is_sha512_refer_to_each_other(registry: Registry) -> None:
    child = await registry.push_image("a/b", "child", image(b"one", algorithm="sha512"), "sha512")
    answer = await registry.put_manifest("a/b", child.digest("sha512"), child)
    assert answer.headers["Docker-Content-Digest"] == child.digest("sha512")
    parent = index(child, algorithm="sha512")
    subject = {"mediaType": OCI_INDEX, "digest": parent.digest("sha512"), "size": 1}
    referrer = image(b"one", algorithm="sha512", subject=subject)
    for manifest in (parent, referrer):
        answer = await registry.put_manifest("a/b", manifest.digest("sha512"), manifest)
        assert answer.status_code == 201
    assert answer.headers["OCI-Subject"] == parent.digest("sha512")
    listed = await registry.client.get(f"/v2/a/b/referrers/{parent.digest('sha512')}")
    assert [entry["digest"] for entry in listed.json()["manifests"]] == [referrer.digest("sha512")]
    refused(
        await registry.client.delete(f"/v2/a/b/manifests/{child.digest('sha512')}"),
        409,
        "MANIFEST_REFERENCED",
    )
    gone = await registry.client.delete(f"/v2/a/b/manifests/{referrer.digest('sha512')}")
    assert gone.status_code == 202


@served()
async def test_index_when_nested_is_taken_at_any_depth(registry: Registry) -> None:
    inner: Image = await registry.push_image("a/b", "level0", image(b"leaf"))
    for level in range(1, 6):
        inner = await registry.push_image("a/b", f"level{level}", index(inner))
    assert (await registry.client.get("/v2/a/b/manifests/level5")).content == inner.payload


@served()
async def test_cache_index_of_buildkit_when_put_keeps_its_blobs(registry: Registry) -> None:
    """Its entries are layers and a cache config, which are blobs and no manifests."""
    for blob in (b"layer", b"cache config"):
        await registry.push_blob("a/b", blob)
    entries = [
        descriptor(b"layer", "application/vnd.oci.image.layer.v1.tar+gzip"),
        descriptor(b"cache config", "application/vnd.buildkit.cacheconfig.v0"),
    ]
    cache = index(manifests=entries)
    assert (await registry.put_manifest("a/b", "cache", cache)).status_code == 201
    assert (await registry.client.get("/v2/a/b/manifests/cache")).content == cache.payload
    for blob in (b"layer", b"cache config"):
        answer = await registry.client.delete(f"/v2/a/b/blobs/{digest_of(blob)}")
        refused(answer, 405, "UNSUPPORTED")
    missing = index(manifests=[*entries, descriptor(b"absent", LAYER_TYPE)])
    answer = await registry.put_manifest("a/b", "broken", missing)
    assert refused(answer, 400, "MANIFEST_BLOB_UNKNOWN") == {"digest": digest_of(b"absent")}


@served()
async def test_layer_that_lives_elsewhere_when_it_has_urls_need_not_be_pushed(registry: Registry) -> None:
    await registry.push_blob("a/b", b"{}")
    for media_type in NONDISTRIBUTABLE:
        elsewhere = descriptor(b"never pushed", media_type, urls=["https://store.example.com/blob"])
        assert (await registry.put_manifest("a/b", "urls", image(layers=[elsewhere]))).status_code == 201
        here = image(layers=[{key: value for key, value in elsewhere.items() if key != "urls"}])
        refused(await registry.put_manifest("a/b", "none", here), 400, "MANIFEST_BLOB_UNKNOWN")


@served()
async def test_ordinary_layer_when_it_has_urls_must_still_be_there(registry: Registry) -> None:
    await registry.push_blob("a/b", b"{}")
    layer = descriptor(b"absent", LAYER_TYPE, urls=["https://store.example.com/blob"])
    answer = await registry.put_manifest("a/b", "latest", image(layers=[layer]))
    assert refused(answer, 400, "MANIFEST_BLOB_UNKNOWN") == {"digest": digest_of(b"absent")}


@served()
async def test_subject_when_named_is_confirmed_whether_it_exists_or_not(registry: Registry) -> None:
    """Without the header clients keep an index of referrers under a tag of their own as well."""
    subject = await registry.push_image("a/b", "subject")
    for digest in (subject.digest(), ABSENT, digest_of(b"x", "sha512")):
        referrer = image(subject={"mediaType": OCI_MANIFEST, "digest": digest, "size": 1})
        for reference in ("tag", referrer.digest()):
            answer = await registry.put_manifest("a/b", reference, referrer)
            assert answer.status_code == 201
            assert answer.headers["OCI-Subject"] == digest
    assert "OCI-Subject" not in (await registry.put_manifest("a/b", "subject", subject)).headers


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@served()
async def test_tags_when_named_beside_a_digest_are_all_set_and_confirmed(
    registry: Registry, algorithm: str
) -> None:
    child = await registry.push_image("a/b", "child", image(b"one", algorithm=algorithm), algorithm)
    answer = await registry.put_manifest("a/b", child.digest(algorithm), child)
    assert answer.status_code == 201
    wanted = [f"v{n}" for n in range(12)]
    query = "&".join(f"tag={tag}" for tag in [*wanted, "v0"])
    for manifest in (index(child, algorithm=algorithm), child):
        digest = manifest.digest(algorithm)
        answer = await put(registry, "a/b", f"{digest}?{query}", manifest.payload, manifest.media_type)
        assert answer.status_code == 201, answer.text
        assert answer.headers.get_list("OCI-Tag") == wanted
        for tag in wanted:
            got = await registry.client.get(f"/v2/a/b/manifests/{tag}")
            assert got.headers["Docker-Content-Digest"] == digest
            assert got.content == manifest.payload


@served()
async def test_tag_when_put_again_moves(registry: Registry) -> None:
    first = await registry.push_image("a/b", "latest", image(b"first"))
    second = await registry.push_image("a/b", "latest", image(b"second"))
    assert (await registry.client.get("/v2/a/b/manifests/latest")).content == second.payload
    assert (await registry.client.get(f"/v2/a/b/manifests/{first.digest()}")).content == first.payload


@served()
async def test_manifest_when_put_again_is_stored_once(registry: Registry) -> None:
    for reference in ("latest", "latest", "other", image(b"a layer").digest()):
        await registry.push_image("a/b", reference)
    assert (await registry.rows("SELECT count(*) FROM manifests"))[0]["count"] == 1
    assert (await registry.rows("SELECT count(*) FROM layers"))[0]["count"] == 1


@pytest.mark.parametrize("size", [4 * MIB, 4 * MIB + 1])
@pytest.mark.parametrize("with_length", [True, False])
@served()
async def test_manifest_when_of_four_mebibytes_passes_and_one_byte_more_gets_413(
    registry: Registry, size: int, with_length: bool
) -> None:
    await registry.push_blob("a/b", b"{}")
    payload = image(filler="").payload.replace(b'"filler": ""', b'"filler": "%s"')
    payload = payload % (b"x" * (size - len(payload) + 2))
    assert len(payload) == size

    async def in_parts() -> AsyncGenerator[bytes, None]:
        for start in range(0, size, 100_000):
            yield payload[start : start + 100_000]

    answer = await registry.client.put(
        "/v2/a/b/manifests/large",
        content=payload if with_length else in_parts(),
        headers={"Content-Type": OCI_MANIFEST},
    )
    if size > 4 * MIB:
        refused(answer, 413, "MANIFEST_INVALID")
        assert (await registry.client.get("/v2/a/b/manifests/large")).status_code == 404
    else:
        assert answer.status_code == 201
        assert (await registry.client.get("/v2/a/b/manifests/large")).content == payload


@served()
async def test_manifest_when_its_stated_length_is_too_large_gets_413_without_being_read(
    registry: Registry,
) -> None:
    answer = await put(registry, "a/b", "latest", b"{}", OCI_MANIFEST, Content_Length=str(10**17))
    refused(answer, 413, "MANIFEST_INVALID")


@pytest.mark.parametrize(
    ("content_type", "stored"),
    [
        (OCI_MANIFEST + "; charset=utf-8", OCI_MANIFEST),
        (OCI_MANIFEST.upper(), OCI_MANIFEST),
        (None, OCI_MANIFEST),
        ("", OCI_MANIFEST),
    ],
)
@served()
async def test_content_type_when_it_has_parameters_or_is_missing_is_stored_as_the_plain_type(
    registry: Registry, content_type: str | None, stored: str
) -> None:
    await registry.push_blob("a/b", b"{}")
    for manifest in (image(), without_media_type(image())):
        answer = await put(registry, "a/b", "latest", manifest.payload, content_type)
        assert answer.status_code == 201, answer.text
        assert (await registry.client.get("/v2/a/b/manifests/latest")).headers["Content-Type"] == stored


@served()
async def test_index_when_sent_without_any_type_is_known_by_its_shape(registry: Registry) -> None:
    await put(registry, "a/b", "latest", without_media_type(index()).payload)
    assert (await registry.client.get("/v2/a/b/manifests/latest")).headers["Content-Type"] == OCI_INDEX


@served(sound=False, manifest_rules=ManifestRules(platforms="none"))
async def test_sparse_index_when_allowed_is_taken_without_its_children(registry: Registry) -> None:
    sparse = index(CHILD)
    assert (await registry.put_manifest("a/b", "sparse", sparse)).status_code == 201
    assert (await registry.client.get("/v2/a/b/manifests/sparse")).content == sparse.payload
    refused(await registry.client.get(f"/v2/a/b/manifests/{CHILD.digest()}"), 404, "MANIFEST_UNKNOWN")


@served()
async def test_size_of_an_image_when_stated_is_what_config_and_layers_state(registry: Registry) -> None:
    config, layers = descriptor(b"{}", CONFIG_TYPE), [{**descriptor(b"x", LAYER_TYPE), "size": 2**62}]
    for blob in (b"{}", b"x"):
        await registry.push_blob("a/b", blob)
    document = {"schemaVersion": 2, "config": config, "layers": layers}
    assert (await put(registry, "a/b", "latest", encoded(document), OCI_MANIFEST)).status_code == 201
    assert await registry.rows("SELECT total_size FROM manifests") == [{"total_size": 2**62 + 2}]
