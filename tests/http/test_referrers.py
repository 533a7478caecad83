"""Referrers: what names a manifest as its subject, filtered, page by page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from app.domain.limits import REFERRERS_PER_PAGE_MAX
from app.domain.manifests import OCI_INDEX, OCI_MANIFEST
from app.http.call import ApiRules
from tests.http.support import ABSENT, close_upload, open_upload, put, refused, served
from tests.support.registry import CONFIG_TYPE, Image, digest_of, image, index

if TYPE_CHECKING:
    import httpx

    from tests.support.registry import Registry

SUBJECT = image(b"subject")
MIB = 1024 * 1024


def of(subject: str, media_type: str = OCI_MANIFEST) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": subject, "size": 1}


async def push(registry: Registry, manifest: Image) -> Image:
    for blob in manifest.blobs:
        await registry.push_blob("a/b", blob)
    answer = await registry.put_manifest("a/b", manifest.digest(), manifest)
    assert answer.status_code == 201, answer.text
    return manifest


async def listed(registry: Registry, subject: str, query: str = "") -> list[dict[str, Any]]:
    answer = await registry.client.get(f"/v2/a/b/referrers/{subject}{query}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == OCI_INDEX
    document = answer.json()
    assert (document["schemaVersion"], document["mediaType"]) == (2, OCI_INDEX)
    return document["manifests"]


@served()
async def test_referrers_when_asked_for_have_complete_descriptors(registry: Registry) -> None:
    subject = of(SUBJECT.digest())
    strange = {"": "", "k\u0000": "\u0000 \ud800 \U0001f433", "z": "last"}
    named = await push(registry, image(subject=subject, artifactType="a/named", annotations={"k": "v"}))
    by_config = await push(registry, image(subject=subject, config_type="a/config"))
    plain = await push(registry, index(subject=subject, annotations=strange))
    typed = await push(registry, index(subject=subject, artifactType="a/index"))
    await push(registry, image(subject=of(ABSENT)))
    await push(registry, SUBJECT)

    def expected(manifest: Image, **more: Any) -> dict[str, Any]:
        known = {"mediaType": manifest.media_type, "digest": manifest.digest(), "size": len(manifest.payload)}
        return {**known, **more}

    assert await listed(registry, SUBJECT.digest()) == [
        expected(named, artifactType="a/named", annotations={"k": "v"}),
        expected(by_config, artifactType="a/config"),
        expected(plain, annotations=strange),
        expected(typed, artifactType="a/index"),
    ]
    head = await registry.client.head(f"/v2/a/b/referrers/{SUBJECT.digest()}")
    got = await registry.client.get(f"/v2/a/b/referrers/{SUBJECT.digest()}")
    assert (head.status_code, head.headers) == (200, got.headers)


@served()
async def test_referrers_when_nothing_is_known_are_an_empty_index(registry: Registry) -> None:
    """Never 404: it would tell clients that the registry has no referrers at all."""
    assert await listed(registry, ABSENT) == []
    assert await registry.rows("SELECT 1 FROM repositories") == []
    await push(registry, SUBJECT)
    for subject in (ABSENT, SUBJECT.digest(), digest_of(b"x", "sha512")):
        assert await listed(registry, subject) == []


@served()
async def test_referrers_when_the_digest_is_malformed_get_400(registry: Registry) -> None:
    for digest in ("latest", "sha256:baddigeststring", "sha256:", ABSENT.upper(), ABSENT + "0", "%00", ":"):
        refused(await registry.client.get(f"/v2/a/b/referrers/{digest}"), 400, "DIGEST_INVALID")


@served()
async def test_referrers_when_filtered_are_those_of_exactly_that_type(registry: Registry) -> None:
    subject = of(SUBJECT.digest())
    sbom = await push(registry, image(subject=subject, artifactType="application/sbom+json"))
    config = await push(registry, image(subject=subject))
    untyped = await push(registry, index(subject=subject))
    for wanted, expected in (
        ("application/sbom%2Bjson", [sbom]),
        (CONFIG_TYPE.replace("+", "%2B"), [config]),
        ("", [untyped]),
        ("application/sbom", []),
        ("APPLICATION/SBOM%2BJSON", []),
        ("application/%25", []),
        ("%00", []),
        ("%ff%fe", []),
        ("x" * 5000, []),
    ):
        answer = await registry.client.get(f"/v2/a/b/referrers/{SUBJECT.digest()}?artifactType={wanted}")
        assert answer.status_code == 200
        assert answer.headers["OCI-Filters-Applied"] == "artifactType"
        assert [entry["digest"] for entry in answer.json()["manifests"]] == [m.digest() for m in expected]
    unfiltered = await registry.client.get(f"/v2/a/b/referrers/{SUBJECT.digest()}")
    assert "OCI-Filters-Applied" not in unfiltered.headers


async def pages(registry: Registry, target: str) -> list[httpx.Response]:
    """Every page, by the Link headers as they are."""
    found: list[httpx.Response] = []
    next_target: str | None = target
    while next_target is not None:
        found.append(await registry.client.get(next_target))
        assert found[-1].status_code == 200, found[-1].text
        next_target = found[-1].links.get("next", {}).get("url")
        assert len(found) < 50
    return found


def digests(found: list[httpx.Response]) -> list[str]:
    return [entry["digest"] for page in found for entry in page.json()["manifests"]]


@pytest.mark.parametrize("query", ["", "?artifactType=a/b%2Bc"])
@served()
async def test_referrers_when_more_than_n_come_in_pages_that_keep_the_filter(
    registry: Registry, query: str
) -> None:
    subject = of(SUBJECT.digest())
    expected: list[str] = []
    for number in range(7):
        kind = "a/b+c" if number % 2 == 0 else "d/e"
        manifest = await push(registry, image(subject=subject, artifactType=kind, number=number))
        if kind == "a/b+c" or not query:
            expected.append(manifest.digest())
    target = f"/v2/a/b/referrers/{SUBJECT.digest()}{query}"
    for n in (1, 2, 3, 4, 7, 8, 5000):
        found = await pages(registry, f"{target}{'&' if query else '?'}n={n}")
        assert digests(found) == expected
        assert len(found) == -(-len(expected) // min(n, REFERRERS_PER_PAGE_MAX))
        assert all(("OCI-Filters-Applied" in page.headers) == bool(query) for page in found)


@served(rules=ApiRules(prefix="/behind/a/prefix"))
async def test_referrers_when_paged_behind_a_prefix_have_links_that_work(registry: Registry) -> None:
    prefix = "/behind/a/prefix"
    manifests = [image(subject=of(SUBJECT.digest()), number=number) for number in range(3)]
    location = (await registry.client.post(f"{prefix}/v2/a/b/blobs/uploads/")).headers["Location"]
    assert (await close_upload(registry, location, digest_of(b"{}"), b"{}")).status_code == 201
    for manifest in manifests:
        target = f"{prefix}/v2/a/b/manifests/{manifest.digest()}"
        await registry.client.put(target, content=manifest.payload)
    found = await pages(registry, f"{prefix}/v2/a/b/referrers/{SUBJECT.digest()}?n=1")
    assert digests(found) == [manifest.digest() for manifest in manifests]


@pytest.mark.parametrize("sizes", [[1.5, 3.8, 1.0, 0.4], [3.8, 3.8], [1.9, 1.9, 1.9], [0.1] * 30])
@served()
async def test_referrers_when_their_annotations_are_large_come_in_pages_that_clients_take(
    registry: Registry, sizes: list[float]
) -> None:
    await registry.push_blob("a/b", b"{}")
    expected: list[str] = []
    for number, size in enumerate(sizes):
        annotations = {"k": "v" * int(size * MIB)}
        manifest = image(subject=of(SUBJECT.digest()), annotations=annotations, number=number)
        expected.append((await push(registry, manifest)).digest())
    found = await pages(registry, f"/v2/a/b/referrers/{SUBJECT.digest()}")
    assert digests(found) == expected
    assert max(len(page.content) for page in found) <= 4 * MIB


@served()
async def test_referrers_when_n_or_last_is_malformed_get_400(registry: Registry) -> None:
    await push(registry, image(subject=of(SUBJECT.digest())))
    for query in (
        "n=-1",
        "n=x",
        "n=1.5",
        "n=1e3",
        "n=" + "9" * 19,
        "last=x",
        "last=-1",
        "last=%00",
        "last=" + "9" * 19,
    ):
        answer = await registry.client.get(f"/v2/a/b/referrers/{SUBJECT.digest()}?{query}")
        refused(answer, 400, "PAGINATION_NUMBER_INVALID")


@served()
async def test_subject_when_it_comes_later_or_goes_has_its_referrers_all_the_same(registry: Registry) -> None:
    referrer = await push(registry, image(subject=of(SUBJECT.digest())))
    assert [entry["digest"] for entry in await listed(registry, SUBJECT.digest())] == [referrer.digest()]
    await push(registry, SUBJECT)
    assert [entry["digest"] for entry in await listed(registry, SUBJECT.digest())] == [referrer.digest()]
    assert (await registry.client.delete(f"/v2/a/b/manifests/{SUBJECT.digest()}")).status_code == 202
    assert [entry["digest"] for entry in await listed(registry, SUBJECT.digest())] == [referrer.digest()]
    assert (await registry.client.get(f"/v2/a/b/manifests/{referrer.digest()}")).status_code == 200


@served()
async def test_referrer_when_deleted_is_gone_at_once(registry: Registry) -> None:
    first = await push(registry, image(subject=of(SUBJECT.digest()), number=1))
    second = await push(registry, image(subject=of(SUBJECT.digest()), number=2))
    assert (await registry.client.delete(f"/v2/a/b/manifests/{first.digest()}")).status_code == 202
    assert [entry["digest"] for entry in await listed(registry, SUBJECT.digest())] == [second.digest()]


@served()
async def test_index_of_a_fallback_tag_when_pushed_is_merged_without_duplicates(registry: Registry) -> None:
    """Clients of older registries list referrers in an index under `sha256-…`; its entries name the subject too."""
    old = await push(registry, image(subject=of(SUBJECT.digest()), artifactType="a/old"))
    fallback = index(old, image(b"unrelated"))
    await push(registry, image(b"unrelated"))
    tag = SUBJECT.digest().replace(":", "-")
    assert (await registry.put_manifest("a/b", tag, fallback)).status_code == 201
    new = await push(registry, image(subject=of(SUBJECT.digest()), artifactType="a/new"))
    found = await listed(registry, SUBJECT.digest())
    assert [entry["digest"] for entry in found] == [old.digest(), new.digest()]
    assert (await registry.client.get(f"/v2/a/b/manifests/{tag}")).content == fallback.payload


@served()
async def test_referrers_when_another_repository_has_them_are_not_shown(registry: Registry) -> None:
    referrer = await push(registry, image(subject=of(SUBJECT.digest())))
    await registry.push_image("other", "latest", SUBJECT)
    answer = await registry.client.get(f"/v2/other/referrers/{SUBJECT.digest()}")
    assert answer.json()["manifests"] == []
    await registry.push_blob("other", b"{}")
    await put(registry, "other", referrer.digest(), referrer.payload, referrer.media_type)
    answer = await registry.client.get(f"/v2/other/referrers/{SUBJECT.digest()}")
    assert [entry["digest"] for entry in answer.json()["manifests"]] == [referrer.digest()]


@served()
async def test_subject_of_a_docker_manifest_when_named_makes_no_referrer(registry: Registry) -> None:
    """The field is the OCI types' alone."""
    docker = json.loads(image(subject=of(SUBJECT.digest())).payload)
    docker["mediaType"] = "application/vnd.docker.distribution.manifest.v2+json"
    await registry.push_blob("a/b", b"{}")
    answer = await put(registry, "a/b", "docker", json.dumps(docker).encode(), docker["mediaType"])
    assert answer.status_code == 201
    assert "OCI-Subject" not in answer.headers
    assert await listed(registry, SUBJECT.digest()) == []


@served()
async def test_session_when_open_makes_no_referrer_of_its_repository(registry: Registry) -> None:
    await open_upload(registry, "a/b")
    assert await listed(registry, SUBJECT.digest()) == []
