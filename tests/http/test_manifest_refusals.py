"""Manifests that are refused, with the right code, a detail that says what is wrong, and nothing left behind."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from app.domain.limits import TAGS_PER_PUT_MAX
from app.domain.manifests import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Platform
from app.services.push_manifest import ManifestRules
from tests.http.support import ABSENT, contents, put, refused, served
from tests.support.registry import CONFIG_TYPE, descriptor, digest_of, encoded, image, index

if TYPE_CHECKING:
    from tests.support.registry import Registry

_V1 = "application/vnd.docker.distribution.manifest.v1+"
CONFIG: dict[str, Any] = descriptor(b"{}", CONFIG_TYPE)
VALID: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG, "layers": []}
EMPTY_INDEX: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}


def image_with(**fields: Any) -> bytes:
    return encoded({**VALID, **fields})


def config_with(**fields: Any) -> bytes:
    return image_with(config={**CONFIG, **fields})


def raw(text: str) -> bytes:
    """The valid image with `text` as one more member, for what a dictionary cannot say."""
    return encoded(VALID)[:-1] + b", " + text.encode("utf-8", "surrogatepass") + b"}"


# A payload that is wrong, whatever its Content-Type, which here is that of an image.
MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "blanks": b" \n",
    "null": b"null",
    "a list": b"[]",
    "a number": b"2",
    "a string": b'"manifest"',
    "half an object": encoded(VALID)[:-1],
    "two objects": encoded(VALID) * 2,
    "something behind it": encoded(VALID) + b"x",
    "a byte order mark": b"\xef\xbb\xbf" + encoded(VALID),
    "UTF-16": encoded(VALID).decode().encode("utf-16"),
    "invalid UTF-8": encoded(VALID).replace(b"schema", b"sch\xffma"),
    "invalid UTF-8 in a value": raw('"k": "x"').replace(b'"x"', b'"\xc3("'),
    "gzip": b"\x1f\x8b\x08\x00" + encoded(VALID),
    "a NUL byte": b"\x00" + encoded(VALID),
    "a NUL byte in a string": raw('"k": "x"').replace(b'"x"', b'"\x00"'),
    "deep lists": b"[" * 200_000,
    "a deep member": raw('"k": ' + "[" * 100_000 + "]" * 100_000),
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a number of 5000 digits": raw('"k": ' + "9" * 5000),
    "NaN": raw('"k": NaN'),
    "Infinity": raw('"k": -Infinity'),
    "the same key twice": raw('"schemaVersion": 2'),
    "layers twice": raw('"layers": []'),
    "the same key twice, deep": raw('"k": [{"a": 1, "a": 2}]'),
    "the same key twice, once escaped": raw('"schema\\u0056ersion": 2'),
    "no schemaVersion": encoded({k: v for k, v in VALID.items() if k != "schemaVersion"}),
    "schemaVersion 1": image_with(schemaVersion=1),
    "schemaVersion 3": image_with(schemaVersion=3),
    "schemaVersion as text": image_with(schemaVersion="2"),
    "schemaVersion null": image_with(schemaVersion=None),
    "schemaVersion true": image_with(schemaVersion=True),
    "no config": encoded({k: v for k, v in VALID.items() if k != "config"}),
    "config null": image_with(config=None),
    "config a list": image_with(config=[]),
    "config empty": image_with(config={}),
    "layers an object": image_with(layers={}),
    "layers a string": image_with(layers="x"),
    "a layer null": image_with(layers=[None]),
    "a layer a string": image_with(layers=[ABSENT]),
    "a layer a list": image_with(layers=[[]]),
    "no digest": config_with(digest=None),
    "digest a number": config_with(digest=1),
    "digest empty": config_with(digest=""),
    "digest short": config_with(digest=ABSENT[:-1]),
    "digest upper case": config_with(digest=ABSENT.upper()),
    "digest with a newline": config_with(digest=ABSENT + "\n"),
    "digest of an unknown algorithm": config_with(digest="md5:d41d8cd98f00b204e9800998ecf8427e"),
    "digest a path": config_with(digest="sha256:../../etc/passwd"),
    "no size": image_with(config={k: v for k, v in CONFIG.items() if k != "size"}),
    "size negative": config_with(size=-1),
    "size a fraction": config_with(size=1.5),
    "size with an exponent": config_with(size=2).replace(b'"size": 2', b'"size": 2e0'),
    "size text": config_with(size="2"),
    "size true": config_with(size=True),
    "size 2^63": config_with(size=2**63),
    "size 2^64": config_with(size=2**64),
    "sizes of 2^63 together": config_with(size=2**63 - 1).replace(
        b'"layers": []', b'"layers": [' + json.dumps(CONFIG).encode() + b"]"
    ),
    "no media type": config_with(mediaType=None),
    "media type empty": config_with(mediaType=""),
    "media type a number": config_with(mediaType=7),
    "media type of 256 characters": config_with(mediaType="a/" + "b" * 254),
    "media type with NUL": config_with(mediaType="a/b\x00"),
    "media type with a newline": config_with(mediaType="a/b\nX-Header: 1"),
    "media type not ASCII": config_with(mediaType="a/\u00e9"),
    "urls text": config_with(urls="https://example.com"),
    "urls of numbers": config_with(urls=[1]),
    "platform a list": config_with(platform=[]),
    "platform of numbers": config_with(platform={"os": 1, "architecture": 2}),
    "subject text": image_with(subject=ABSENT),
    "subject without size": image_with(subject={"mediaType": OCI_MANIFEST, "digest": ABSENT}),
    "subject with a bad digest": image_with(subject={"mediaType": OCI_MANIFEST, "digest": "x", "size": 1}),
    "artifactType a number": image_with(artifactType=1),
    "artifactType with NUL": image_with(artifactType="a/b\x00"),
    "annotations a list": image_with(annotations=[]),
    "annotation a number": image_with(annotations={"k": 1}),
    "annotation null": image_with(annotations={"k": None}),
    "mediaType a number": image_with(mediaType=1),
    "mediaType of an index": image_with(mediaType=OCI_INDEX),
    "mediaType of Docker": image_with(mediaType=DOCKER_MANIFEST),
    "mediaType unknown": image_with(mediaType="application/json"),
    "manifests beside layers": image_with(manifests=[]),
    "manifests null beside layers": image_with(manifests=None),
    "an index": encoded(EMPTY_INDEX),
    "a million descriptors": b'{"schemaVersion":2,"layers":[' + b"{}," * 1_000_000 + b"{}]}",
    "too many layers": encoded({**VALID, "layers": [{}] * 50_001}),
}


@served()
async def test_manifest_when_malformed_gets_400_and_leaves_nothing(registry: Registry) -> None:
    await registry.push_blob("a/b", b"{}")
    before = await contents(registry)
    for case, payload in MALFORMED.items():
        assert len(payload) <= 4 * 1024 * 1024, case
        answer = await put(registry, "a/b", "latest", payload, OCI_MANIFEST)
        assert (case, answer.status_code) == (case, 400)
        assert refused(answer, 400, "MANIFEST_INVALID"), case
    assert await contents(registry) == before


# Pairs of a Content-Type and a body that it does not fit.
CONFUSED: list[tuple[str, bytes]] = [
    (OCI_INDEX, encoded(VALID)),
    (OCI_INDEX, encoded({**EMPTY_INDEX, "layers": []})),
    (OCI_INDEX, encoded({**EMPTY_INDEX, "config": CONFIG})),
    (OCI_INDEX, encoded({**EMPTY_INDEX, "config": None})),
    (OCI_INDEX, encoded({"schemaVersion": 2})),
    (OCI_INDEX, encoded({**EMPTY_INDEX, "mediaType": OCI_MANIFEST})),
    (DOCKER_LIST, encoded(EMPTY_INDEX)),
    (DOCKER_LIST, encoded({"schemaVersion": 2, "manifests": []})),
    (DOCKER_MANIFEST, encoded(VALID)),
    (DOCKER_MANIFEST, encoded({k: v for k, v in VALID.items() if k != "mediaType"})),
    (OCI_MANIFEST, encoded(EMPTY_INDEX)),
    ("application/json", encoded(VALID)),
    ("application/octet-stream", encoded(VALID)),
    ("text/plain; charset=utf-8", encoded(VALID)),
    ("x" * 5000, encoded(VALID)),
    (f"{OCI_MANIFEST}, {OCI_INDEX}", encoded(VALID)),
    ("", encoded({**VALID, "mediaType": "application/json"})),
    ("", encoded({**VALID, "manifests": []})),
]


@served()
async def test_manifest_when_its_types_contradict_each_other_gets_400(registry: Registry) -> None:
    """Two readers that go by different types must not see two different images in one digest."""
    await registry.push_blob("a/b", b"{}")
    before = await contents(registry)
    for content_type, payload in CONFUSED:
        answer = await put(registry, "a/b", "latest", payload, content_type)
        assert (answer.status_code, content_type, payload[:80]) == (400, content_type, payload[:80])
        refused(answer, 400, "MANIFEST_INVALID")
    assert await contents(registry) == before


@served()
async def test_schema_1_when_put_gets_the_known_message(registry: Registry) -> None:
    signed = encoded({"schemaVersion": 1, "name": "a/b", "tag": "x", "fsLayers": [], "signatures": []})
    for content_type in (_V1 + "json", _V1 + "prettyjws", "application/json", OCI_MANIFEST, None):
        answer = await put(registry, "a/b", "latest", signed, content_type)
        assert refused(answer, 400, "MANIFEST_INVALID") == "manifest schema v1 unsupported"


@served()
async def test_manifest_when_its_parts_are_missing_names_each_of_them(registry: Registry) -> None:
    await registry.push_blob("a/b", b"here")
    await registry.push_blob("other", b"only elsewhere")
    wanted = image(b"here", b"absent", b"only elsewhere", b"absent")
    answer = await registry.put_manifest("a/b", "latest", wanted)
    refused(answer, 400, "MANIFEST_BLOB_UNKNOWN")
    errors = answer.json()["errors"]
    assert {error["code"] for error in errors} == {"MANIFEST_BLOB_UNKNOWN"}
    missing = [error["detail"]["digest"] for error in errors]
    assert sorted(missing) == sorted(map(digest_of, (b"absent", b"only elsewhere", b"{}")))
    refused(await registry.client.get("/v2/a/b/manifests/latest"), 404, "MANIFEST_UNKNOWN")


@served()
async def test_index_when_its_children_are_missing_names_each_of_them(registry: Registry) -> None:
    child = await registry.push_image("a/b", "child")
    await registry.push_image("other", "elsewhere", image(b"elsewhere"))
    wanted = index(child, image(b"absent"), image(b"elsewhere"))
    answer = await registry.put_manifest("a/b", "latest", wanted)
    refused(answer, 400, "MANIFEST_BLOB_UNKNOWN")
    missing = [error["detail"]["digest"] for error in answer.json()["errors"]]
    assert sorted(missing) == sorted(image(blob).digest() for blob in (b"absent", b"elsewhere"))


@served()
async def test_manifest_when_its_repository_is_new_and_parts_are_missing_does_not_create_it(
    registry: Registry,
) -> None:
    for manifest in (image(b"absent"), index(image(b"absent"))):
        refused(await registry.put_manifest("new", "latest", manifest), 400, "MANIFEST_BLOB_UNKNOWN")
    assert await registry.rows("SELECT 1 FROM repositories") == []


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@served()
async def test_manifest_when_its_digest_is_of_other_bytes_gets_400(
    registry: Registry, algorithm: str
) -> None:
    await registry.push_blob("a/b", b"{}")
    before = await contents(registry)
    wrong = digest_of(b"something else", algorithm)
    for reference in (wrong, f"{wrong}?tag=a"):
        answer = await put(registry, "a/b", reference, image().payload, OCI_MANIFEST)
        detail = refused(answer, 400, "DIGEST_INVALID")
        assert wrong in detail
        assert image().digest(algorithm) in detail
    assert await contents(registry) == before


@served()
async def test_manifest_when_its_reference_is_malformed_gets_400(registry: Registry) -> None:
    await registry.push_blob("a/b", b"{}")
    before = await contents(registry)
    for reference in ("sha256:baddigeststring", "sha256:", ":", "a:b", ABSENT.upper(), "md5:" + "0" * 32):
        refused(await put(registry, "a/b", reference, image().payload, OCI_MANIFEST), 400, "DIGEST_INVALID")
    for tag in ("-a", ".a", "a" * 129, "a b", "a+b", "%00", "a%00", "a%0A", "%C3%A9", "a@b", "a%5Cb", "%ff"):
        refused(await put(registry, "a/b", tag, image().payload, OCI_MANIFEST), 400, "TAG_INVALID")
        refused(
            await put(registry, "a/b", f"{image().digest()}?tag={tag}", image().payload), 400, "TAG_INVALID"
        )
    assert await contents(registry) == before


@served()
async def test_tags_when_too_many_get_414(registry: Registry) -> None:
    await registry.push_blob("a/b", b"{}")
    before = await contents(registry)
    query = "&".join(f"tag=v{n}" for n in range(TAGS_PER_PUT_MAX + 1))
    answer = await put(registry, "a/b", f"{image().digest()}?{query}", image().payload, OCI_MANIFEST)
    refused(answer, 414, "TAG_INVALID")
    assert await contents(registry) == before
    query = query.rpartition("&")[0]
    answer = await put(registry, "a/b", f"{image().digest()}?{query}", image().payload, OCI_MANIFEST)
    assert (answer.status_code, len(answer.headers.get_list("OCI-Tag"))) == (201, TAGS_PER_PUT_MAX)


@served()
async def test_tags_when_the_path_has_a_tag_already_get_400(registry: Registry) -> None:
    await registry.push_blob("a/b", b"{}")
    refused(await put(registry, "a/b", "latest?tag=other", image().payload, OCI_MANIFEST), 400, "TAG_INVALID")
    refused(await put(registry, "a/b", f"{image().digest()}?tag=", image().payload), 400, "TAG_INVALID")


@served(manifest_rules=ManifestRules(url_allowed=lambda url: url.startswith("https://good.example/")))
async def test_layer_urls_when_the_operator_does_not_allow_them_get_400(registry: Registry) -> None:
    await registry.push_blob("a/b", b"{}")
    foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar"
    for url in (
        "https://bad.example/x", "ftp://good.example/x", "https://good.example/x#fragment", "", "x",
        "https://[::1", "http://[", "file:///etc/passwd",
    ):  # fmt: skip
        layer = descriptor(b"never pushed", foreign, urls=["https://good.example/x", url])
        answer = await registry.put_manifest("a/b", "latest", image(layers=[layer]))
        assert (answer.status_code, url) == (400, url)
        refused(answer, 400, "MANIFEST_INVALID")
    layer = descriptor(b"never pushed", foreign, urls=["https://good.example/x"])
    assert (await registry.put_manifest("a/b", "latest", image(layers=[layer]))).status_code == 201


@served(
    sound=False,
    manifest_rules=ManifestRules(platforms="list", listed_platforms=frozenset({Platform("amd64", "linux")})),
)
async def test_index_when_a_listed_platform_is_missing_gets_400(registry: Registry) -> None:
    amd64 = descriptor(b"absent", OCI_MANIFEST, platform={"architecture": "amd64", "os": "linux"})
    arm64 = descriptor(b"absent too", OCI_MANIFEST, platform={"architecture": "arm64", "os": "linux"})
    answer = await registry.put_manifest("a/b", "latest", index(manifests=[amd64, arm64]))
    assert refused(answer, 400, "MANIFEST_BLOB_UNKNOWN") == {"digest": digest_of(b"absent")}
    assert (await registry.put_manifest("a/b", "latest", index(manifests=[arm64]))).status_code == 201


@served(manifest_rules=ManifestRules(references_max=2, payload_bytes_max=2000))
async def test_manifest_when_over_the_operators_limits_gets_400(registry: Registry) -> None:
    for blob in (b"{}", b"one", b"two"):
        await registry.push_blob("a/b", blob)
    assert (await registry.put_manifest("a/b", "latest", image(b"one"))).status_code == 201
    refused(await registry.put_manifest("a/b", "latest", image(b"one", b"two")), 400, "MANIFEST_INVALID")
    large = image(annotations={"k": "x" * 2000})
    refused(await registry.put_manifest("a/b", "latest", large), 400, "MANIFEST_INVALID")
