"""Manifests that are hostile by their form or their size; what is merely wrong is tests/http/test_manifest_refusals.py.

CVE-2017-11468 (Distribution, bodies without a bound), CVE-2021-41190 (a body that is image and index at once), and the
ways of JSON: depth, duplicate keys, numbers without end, text that is no text.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from app.domain.errors import ManifestInvalid, ManifestTooLarge, SizeInvalid
from app.domain.limits import DESCRIPTORS_MAX, MANIFEST_BYTES_MAX
from app.domain.manifests import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from app.domain.negotiation import linux_amd64_child
from tests.badinput.support import assert_refused, expect_refusal, unchanged
from tests.http.support import ABSENT, Conversation, ask, put, served
from tests.support.registry import CONFIG_TYPE, descriptor, encoded, image, index

if TYPE_CHECKING:
    from pathlib import Path

    from app.domain.digest import Digest
    from tests.support.registry import Registry

TARGET = "/v2/a/b/manifests/latest"
CONFIG: dict[str, Any] = descriptor(b"{}", CONFIG_TYPE)
VALID: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG, "layers": []}
EMPTY: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
CHILD: dict[str, Any] = {"mediaType": OCI_MANIFEST, "digest": ABSENT, "size": 2}
ENTRIES = b"{}," * 1_000_000 + b"{}"


def with_text(document: dict[str, Any], member: bytes) -> bytes:
    """The document with one more member, given as JSON text."""
    return encoded(document)[:-1] + b", " + member + b"}"


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * depth + b"0" + closing * depth


# By what is wrong: the body, its Content-Type, and what the refusal's detail must say.
BODIES: dict[str, tuple[bytes, str, tuple[str, ...]]] = {
    "nothing at all": (b"", OCI_MANIFEST, ("is not JSON",)),
    "a million layers": (
        b'{"schemaVersion":2,"config":{},"layers":[' + ENTRIES + b"]}",
        OCI_MANIFEST,
        ("`config.size`",),
    ),
    "a million layers behind a config": (
        with_text({k: v for k, v in VALID.items() if k != "layers"}, b'"layers":[' + ENTRIES + b"]"),
        OCI_MANIFEST,
        ("`layers` has 1000001 entries", f"at most {DESCRIPTORS_MAX}"),
    ),
    "a million children": (
        b'{"schemaVersion":2,"manifests":[' + ENTRIES + b"]}",
        OCI_INDEX,
        ("`manifests` has 1000001 entries", f"at most {DESCRIPTORS_MAX}"),
    ),
    "layers and manifests both": (
        encoded({**VALID, "manifests": [CHILD]}),
        OCI_MANIFEST,
        ("no `manifests`", "index"),
    ),
    "manifests and layers both": (
        encoded({**EMPTY, "layers": [CONFIG]}),
        OCI_INDEX,
        ("no `layers`", "image manifest"),
    ),
    "manifests and a config": (
        encoded({**EMPTY, "config": CONFIG}),
        OCI_INDEX,
        ("no `config`", "image manifest"),
    ),
    "100,000 lists deep": (with_text(VALID, b'"k":' + nested(100_000)), OCI_MANIFEST, ("nested too deeply",)),
    "100,000 objects deep": (
        with_text(VALID, b'"k":' + nested(100_000, b'{"a":', b"}")),
        OCI_MANIFEST,
        ("nested too deeply",),
    ),
    "100,000 lists deep, unclosed": (b"[" * 100_000, OCI_MANIFEST, ("nested too deeply",)),
    "deep annotations": (
        with_text(VALID, b'"annotations":' + nested(500, b'{"a":', b"}")),
        OCI_MANIFEST,
        ("`annotations`",),
    ),
    "a deep size": (
        encoded({**EMPTY, "manifests": [{**CHILD, "size": [[[[]]]]}]}),
        OCI_INDEX,
        ("`manifests[0].size`",),
    ),
    "a key twice": (with_text(EMPTY, b'"manifests": []'), OCI_INDEX, ("'manifests' stands twice",)),
    "a key twice in a descriptor": (
        encoded({**EMPTY, "manifests": [CHILD]}).replace(b'"size": 2', b'"size": 2, "size": 3'),
        OCI_INDEX,
        ("'size' stands twice",),
    ),
    "a key twice, spelt in two ways": (
        encoded({**EMPTY, "manifests": [CHILD]}).replace(b'"size": 2', b'"size": 2, "\\u0073ize": 3'),
        OCI_INDEX,
        ("'size' stands twice",),
    ),
    "a long key twice": (
        with_text(EMPTY, b'"%b":1,"%b":2' % (b"k" * 10**6, b"k" * 10**6)),
        OCI_INDEX,
        ("stands twice",),
    ),
    "size 2^63": (
        encoded({**EMPTY, "manifests": [{**CHILD, "size": 2**63}]}),
        OCI_INDEX,
        ("`manifests[0].size`", str(2**63)),
    ),
    "size -1": (
        encoded({**EMPTY, "manifests": [{**CHILD, "size": -1}]}),
        OCI_INDEX,
        ("whole number of bytes, not -1",),
    ),
    "size -2^63": (
        encoded({**VALID, "layers": [{**CONFIG, "size": -(2**63)}]}),
        OCI_MANIFEST,
        ("`layers[0].size`",),
    ),
    "size 1.0": (encoded({**VALID, "layers": [{**CONFIG, "size": 1.0}]}), OCI_MANIFEST, ("not 1.0",)),
    "size 1e400": (encoded(VALID).replace(b'"size": 2', b'"size": 1e400'), OCI_MANIFEST, ("not inf",)),
    "size -0.0": (encoded(VALID).replace(b'"size": 2', b'"size": -0.0'), OCI_MANIFEST, ("not -0.0",)),
    "size text": (encoded({**VALID, "layers": [{**CONFIG, "size": "2"}]}), OCI_MANIFEST, ("not '2'",)),
    "size true": (encoded({**VALID, "layers": [{**CONFIG, "size": True}]}), OCI_MANIFEST, ("not True",)),
    "size null": (encoded({**VALID, "layers": [{**CONFIG, "size": None}]}), OCI_MANIFEST, ("not None",)),
    "size of 4,300 digits": (
        encoded(VALID).replace(b'"size": 2', b'"size": ' + b"9" * 4300),
        OCI_MANIFEST,
        ("`config.size`",),
    ),
    "size of 100,000 digits": (
        encoded(VALID).replace(b'"size": 2', b'"size": ' + b"9" * 10**5),
        OCI_MANIFEST,
        ("too long",),
    ),
    "100,000 digits elsewhere": (
        with_text(VALID, b'"k": ' + b"9" * 10**5),
        OCI_MANIFEST,
        ("a number that is too long",),
    ),
    "sizes that add up": (
        encoded({**VALID, "layers": [{**CONFIG, "size": 2**62}] * 2}),
        OCI_MANIFEST,
        ("together state more than",),
    ),
    "sizes of blobs in an index that add up": (
        encoded({**EMPTY, "manifests": [{**CONFIG, "size": 2**62}] * 2}),
        OCI_INDEX,
        ("together state more than",),
    ),
    "NaN": (with_text(VALID, b'"k": NaN'), OCI_MANIFEST, ("NaN is not a JSON value",)),
    "Infinity": (with_text(VALID, b'"k": Infinity'), OCI_MANIFEST, ("Infinity is not a JSON value",)),
    "-Infinity as a size": (
        encoded(VALID).replace(b'"size": 2', b'"size": -Infinity'),
        OCI_MANIFEST,
        ("-Infinity is not",),
    ),
    "a byte order mark": (b"\xef\xbb\xbf" + encoded(VALID), OCI_MANIFEST, ("is not JSON", "BOM")),
    "UTF-16": (encoded(VALID).decode().encode("utf-16"), OCI_MANIFEST, ("is not UTF-8: byte 0",)),
    "UTF-32": (encoded(VALID).decode().encode("utf-32-be"), OCI_MANIFEST, ("is not JSON",)),
    "Latin-1": (with_text(VALID, b'"k": "\xe9"'), OCI_MANIFEST, ("is not UTF-8: byte",)),
    "an overlong slash": (with_text(VALID, b'"k": "\xc0\xaf"'), OCI_MANIFEST, ("is not UTF-8: byte",)),
    "an encoded surrogate": (with_text(VALID, b'"k": "\xed\xa0\x80"'), OCI_MANIFEST, ("is not UTF-8: byte",)),
    "half a character at the end": (encoded(VALID) + b"\xe2\x82", OCI_MANIFEST, ("is not UTF-8: byte",)),
    "NUL bytes": (b"\0" * 1000, OCI_MANIFEST, ("is not JSON",)),
    "a NUL in artifactType": (
        encoded({**VALID, "artifactType": "a/b\0"}),
        OCI_MANIFEST,
        ("`artifactType`", r"\\x00"),
    ),
    "a NUL in an index's artifactType": (
        encoded({**EMPTY, "artifactType": "\0"}),
        OCI_INDEX,
        ("`artifactType`", r"\\x00"),
    ),
    "a NUL in a media type": (
        encoded({**VALID, "layers": [{**CONFIG, "mediaType": "a\0"}]}),
        OCI_MANIFEST,
        (r"\\x00",),
    ),
    "a lone surrogate in a media type": (
        encoded({**VALID, "layers": [{**CONFIG, "mediaType": "\ud800"}]}),
        OCI_MANIFEST,
        ("at most 255 characters",),
    ),
    "a lone surrogate in a digest": (
        encoded({**VALID, "layers": [{**CONFIG, "digest": "sha256:\udfff"}]}),
        OCI_MANIFEST,
        ("expected algorithm:hex",),
    ),
    "a line break in a digest": (
        encoded({**EMPTY, "manifests": [{**CHILD, "digest": ABSENT + "\n"}]}),
        OCI_INDEX,
        (r"\\n",),
    ),
    "a path for a digest": (
        encoded({**EMPTY, "manifests": [{**CHILD, "digest": "sha256:../../x"}]}),
        OCI_INDEX,
        ("`manifests[0].digest`",),
    ),
    "an upper-case digest": (
        encoded({**VALID, "subject": {**CHILD, "digest": ABSENT.upper()}}),
        OCI_MANIFEST,
        ("`subject.digest`",),
    ),
    "a short sha512": (
        encoded({**VALID, "subject": {**CHILD, "digest": "sha512:" + "0" * 64}}),
        OCI_MANIFEST,
        ("expected 128 lower-case",),
    ),
    "a subject that is an index's child": (
        encoded({**EMPTY, "subject": []}),
        OCI_INDEX,
        ("`subject` must be a descriptor",),
    ),
    "somebody else's type": (
        encoded(VALID),
        "application/vnd.cncf.helm.chart.v1+json",
        ("unsupported manifest media type",),
    ),
    "no type that anyone has": (encoded(VALID), "\xff\xfe", ("unsupported manifest media type",)),
    "a no-break space before the type": (
        encoded(VALID),
        f"\xa0{OCI_MANIFEST}",
        ("unsupported manifest media type",),
    ),
    "a type with a NUL": (encoded(VALID), f"{OCI_MANIFEST}\0", ("unsupported manifest media type",)),
    "two types": (encoded(VALID), f"{OCI_MANIFEST},{OCI_INDEX}", ("unsupported manifest media type",)),
    "a type of 60,000 characters": (encoded(VALID), "x" * 60_000, ("unsupported manifest media type",)),
    "an image sent as an index": (encoded(VALID), OCI_INDEX, ("the Content-Type is " + OCI_INDEX,)),
    "an image sent as Docker's": (
        encoded(VALID),
        DOCKER_MANIFEST,
        ("the Content-Type is " + DOCKER_MANIFEST,),
    ),
    "an index sent as an image": (encoded(EMPTY), OCI_MANIFEST, ("the Content-Type is " + OCI_MANIFEST,)),
    "an index sent as Docker's": (encoded(EMPTY), DOCKER_LIST, ("the Content-Type is " + DOCKER_LIST,)),
    "parameters that say otherwise": (
        encoded(EMPTY),
        f"{OCI_MANIFEST}; x={OCI_INDEX}",
        ("the Content-Type is " + OCI_MANIFEST,),
    ),
}


@served()
async def test_manifest_when_hostile_then_gets_400_saying_what_is_wrong_and_changes_nothing(
    registry: Registry, tmp_path: Path
) -> None:
    await registry.push_blob("a/b", b"{}")
    await registry.push_image("a/b", "latest")
    async with unchanged(registry, tmp_path):
        for case, (body, content_type, words) in BODIES.items():
            assert len(body) <= MANIFEST_BYTES_MAX, case
            answer = await ask(registry, "PUT", TARGET, [("Content-Type", content_type)], body)
            assert (case, answer.status_code) == (case, 400), answer.text[:300]
            assert_refused(answer, ManifestInvalid, *words)
            assert len(answer.content) < 1500, case


@served()
async def test_manifest_when_larger_than_allowed_then_gets_413_without_being_read_to_its_end(
    registry: Registry, tmp_path: Path
) -> None:
    await registry.push_blob("a/b", b"{}")
    padded = encoded(VALID) + b" " * (MANIFEST_BYTES_MAX - len(encoded(VALID)))
    async with unchanged(registry, tmp_path):
        # It says so: not a byte of it is needed to refuse it.
        for stated in (MANIFEST_BYTES_MAX + 1, 2**31, 10**18 - 1):
            request = Conversation(registry, "PUT", TARGET, [("Content-Length", str(stated))])
            request.give(b"", last=True)
            answer = await request.answer()
            assert answer is not None
            assert_refused(answer, ManifestTooLarge, f"at most {MANIFEST_BYTES_MAX} bytes")
        # It does not say so: what is too much is noticed as it comes.
        request = Conversation(registry, "PUT", TARGET)
        for _ in range(1000):
            request.give(b"x" * 65_536)
        request.give(b"", last=True)
        answer = await request.answer()
        assert answer is not None
        assert_refused(answer, ManifestTooLarge, f"at most {MANIFEST_BYTES_MAX} bytes")
        assert registry.seen.requests[-1]["received"] < MANIFEST_BYTES_MAX + 2 * 1024 * 1024
        await expect_refusal(registry, "PUT", TARGET, ManifestTooLarge, "at most", body=padded + b" ")
        # It says less than it is, or nothing that is a number.
        stated = (("Content-Length", "-1"),)
        await expect_refusal(
            registry, "PUT", TARGET, SizeInvalid, "'-1'", headers=stated, body=encoded(VALID)
        )
    assert (await ask(registry, "PUT", TARGET, body=padded)).status_code == 201


# Texts that JSON allows and that databases, headers or terminals may choke on.
ODD_TEXTS = [
    "\0", "a\0b", "\ud800", "\udfff\ud800", "\U0001f433", "\u2028", "\r\nX-Injected: 1", "\x1b[2J", "\x7f", "\ufeff",
    "\uffff",
    "\u202e", "", " ", "'; DROP TABLE manifests; --", "\\", '"', "</script>", "x" * 100_000, "{}", "\\u0000",
]  # fmt: skip


@served()
async def test_annotations_when_they_hold_any_text_then_come_back_as_they_were(registry: Registry) -> None:
    """They are stored beside the manifest for the list of referrers, unlike all else that is only read."""
    subject = await registry.push_image("a/b", "subject")
    annotations = {f"{number} {text}": text for number, text in enumerate(ODD_TEXTS)}
    named = {"mediaType": subject.media_type, "digest": subject.digest(), "size": len(subject.payload)}
    referrer = image(b"a layer", subject=named, annotations=annotations)
    assert (await registry.put_manifest("a/b", "referrer", referrer)).status_code == 201
    answer = await registry.client.get(f"/v2/a/b/referrers/{subject.digest()}")
    assert answer.status_code == 200
    assert json.loads(answer.content)["manifests"][0]["annotations"] == annotations
    answer = await registry.client.get("/v2/a/b/manifests/referrer")
    assert (answer.status_code, answer.content) == (200, referrer.payload)


@served()
async def test_unknown_members_when_they_hold_anything_then_are_stored_as_they_came(
    registry: Registry,
) -> None:
    """What nobody knows yet is allowed (OCI image spec, "Extensibility"), whatever JSON it is."""
    await registry.push_blob("a/b", b"{}")
    deep = [nested(200), nested(200, b'{"a":', b"}")]
    odd = [b"1e400", b"9" * 4300, b'"\\ud800"', b'"\\u0000"', b"-0", b"[" + b"{}," * 50_000 + b"{}]"]
    for number, member in enumerate(deep + odd):
        payload = with_text(VALID, b'"org.example.extension": ' + member)
        assert (await put(registry, "a/b", f"v{number}", payload, OCI_MANIFEST)).status_code == 201
        assert (await registry.client.get(f"/v2/a/b/manifests/v{number}")).content == payload


@served()
async def test_docker_list_when_stored_with_anything_in_it_then_old_clients_get_an_answer(
    registry: Registry,
) -> None:
    """A list is read again when a client that knows no lists asks for it: whatever could be stored can be read."""
    child = await registry.push_image("a/b", "child")
    for depth in (10, 500, 900, 940, *range(950, 1000, 2)):
        entry = descriptor(child.payload, child.media_type, platform={"os": "linux", "architecture": "amd64"})
        document = {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [entry]}
        answer = await put(registry, "a/b", "list", with_text(document, b'"k":' + nested(depth)), DOCKER_LIST)
        if answer.status_code == 400:
            assert_refused(answer, ManifestInvalid, "nested too deeply")
            continue
        old = await registry.client.get(
            "/v2/a/b/manifests/list", headers={"Accept": f"{OCI_MANIFEST}, {DOCKER_MANIFEST}"}
        )
        assert (depth, old.status_code, old.content) == (depth, 200, child.payload)


def test_docker_list_when_deeper_than_what_is_left_of_the_stack_then_has_no_child() -> None:
    """It was stored by a request whose stack was shorter, or by an interpreter that goes deeper."""
    entry = {**CHILD, "platform": {"os": "linux", "architecture": "amd64"}}
    deep = with_text({"schemaVersion": 2, "manifests": [entry]}, b'"k":' + nested(900))

    def below(frames: int) -> Digest | None:
        return below(frames - 1) if frames else linux_amd64_child(deep)

    assert str(below(0)) == ABSENT
    assert below(100) is None


@served()
async def test_manifest_when_as_costly_to_read_as_can_be_then_takes_no_longer_than_large_valid_ones(
    registry: Registry,
) -> None:
    """4 MiB of the worst hold a process up for half a second, 4 MiB of layers for a third of one."""
    layers = [{**CONFIG, "digest": f"sha256:{number:064x}"} for number in range(20_000)]
    valid = encoded({"schemaVersion": 2, "config": CONFIG, "layers": layers})
    usual = await seconds_of(registry, valid)
    costly = {
        "objects": b"[" + b"{}," * 1_390_000 + b"{}]",
        "keys": b"{" + b",".join(b'"%x":1' % number for number in range(400_000)) + b"}",
    }
    for case, member in costly.items():
        seconds = await seconds_of(registry, with_text(VALID, b'"k": ' + member))
        assert seconds < 10 * max(usual, 0.1), case


async def seconds_of(registry: Registry, body: bytes) -> float:
    """How long a manifest whose blobs are missing takes to be read and refused."""
    assert len(body) <= MANIFEST_BYTES_MAX
    began = time.process_time()
    answer = await ask(registry, "PUT", TARGET, body=body)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "MANIFEST_BLOB_UNKNOWN")
    return time.process_time() - began


@served()
async def test_index_when_as_large_as_allowed_then_each_missing_child_is_named_once(
    registry: Registry,
) -> None:
    entries = [{**CHILD, "digest": f"sha256:{number:064x}"} for number in range(20_000)]
    body = json.dumps(
        {"schemaVersion": 2, "manifests": entries + entries[:10]}, separators=(",", ":")
    ).encode()
    assert len(body) <= MANIFEST_BYTES_MAX
    answer = await ask(registry, "PUT", TARGET, [("Content-Type", OCI_INDEX)], body)
    assert answer.status_code == 400
    found = [entry["detail"]["digest"] for entry in answer.json()["errors"]]
    assert sorted(found) == [entry["digest"] for entry in entries]
    assert await registry.rows("SELECT 1 FROM repositories") == []


@served()
async def test_index_of_itself_or_of_a_loop_when_it_cannot_be_then_is_refused(registry: Registry) -> None:
    """No manifest can hold its own digest; a loop of two would have to be pushed in both orders."""
    first = index(image(b"absent"))
    await expect_loop_refused(registry, first.payload)
    second = encoded({**EMPTY, "manifests": [descriptor(first.payload, OCI_INDEX)]})
    await expect_loop_refused(registry, second)


async def expect_loop_refused(registry: Registry, payload: bytes) -> None:
    answer = await ask(registry, "PUT", TARGET, [("Content-Type", OCI_INDEX)], payload)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "MANIFEST_BLOB_UNKNOWN")
