"""What the registry reads out of a manifest, and that whatever else comes is refused with a sentence."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.digest import Algorithm, Digest
from app.domain.errors import ManifestInvalid
from app.domain.limits import DESCRIPTORS_MAX
from app.domain.manifests import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MANIFEST_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    Manifest,
    Platform,
    parse_manifest,
)

MODEST = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LAYER = "application/vnd.oci.image.layer.v1.tar"
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"


def digest(text: str, algorithm: Algorithm = Algorithm.SHA256) -> Digest:
    return Digest.of(text.encode(), algorithm)


def entry(text: str, media_type: str = LAYER, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(digest(text)), "size": len(text), **more}


IMAGE: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": OCI_MANIFEST,
    "config": entry("config", "a/config"),
    "layers": [entry("one"), entry("three", FOREIGN, urls=["https://example.com/three"])],
    "subject": entry("subject", OCI_MANIFEST),
    "annotations": {"k": "v"},
}
INDEX: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": OCI_INDEX,
    "manifests": [
        entry("child", OCI_MANIFEST, platform={"os": "linux", "architecture": "amd64"}),
        entry("inner", OCI_INDEX),
        entry("old", DOCKER_MANIFEST, platform={"os": "linux"}),
        entry("cached layer"),
    ],
    "artifactType": "a/index",
}


def parse(document: object, content_type: str | None = None) -> Manifest:
    return parse_manifest(json.dumps(document).encode(), content_type)


def test_image_when_read_gives_config_layers_subject_and_type() -> None:
    found = parse(IMAGE, OCI_MANIFEST + "; charset=utf-8")
    assert found.media_type == OCI_MANIFEST
    assert found.config is not None
    assert (found.config.digest, found.config.size) == (digest("config"), 6)
    assert [layer.digest for layer in found.layers] == [digest("one"), digest("three")]
    assert [layer.is_foreign for layer in found.layers] == [False, True]
    assert found.children == ()
    assert found.subject == digest("subject")
    assert found.artifact_type == "a/config"
    assert found.annotations == {"k": "v"}
    assert found.size_bytes == len("configonethree")


def test_index_when_read_tells_manifests_from_blobs() -> None:
    found = parse(INDEX)
    assert found.media_type == OCI_INDEX
    assert found.config is None
    assert [child.digest for child in found.children] == [digest("child"), digest("inner"), digest("old")]
    assert [child.platform for child in found.children] == [
        Platform("amd64", "linux"),
        None,
        Platform("", "linux"),
    ]
    assert [blob.digest for blob in found.layers] == [digest("cached layer")]
    assert found.artifact_type == "a/index"
    assert (found.subject, found.annotations) == (None, None)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"artifactType": "a/own"}, "a/own"),
        ({"artifactType": ""}, "a/config"),
        ({"artifactType": None}, "a/config"),
        ({}, "a/config"),
    ],
)
def test_artifact_type_of_an_image_when_missing_is_its_configs(
    changes: dict[str, Any], expected: str
) -> None:
    assert parse({**IMAGE, **changes}).artifact_type == expected


@pytest.mark.parametrize(
    ("media_type", "content_type", "expected"),
    [
        (OCI_MANIFEST, None, OCI_MANIFEST),
        (OCI_MANIFEST, "", OCI_MANIFEST),
        (None, None, OCI_MANIFEST),
        (None, OCI_MANIFEST, OCI_MANIFEST),
        (None, f" {OCI_MANIFEST.upper()} ;x", OCI_MANIFEST),
        (DOCKER_MANIFEST, DOCKER_MANIFEST, DOCKER_MANIFEST),
        (DOCKER_MANIFEST, None, DOCKER_MANIFEST),
    ],
)
def test_media_type_when_told_once_or_twice_is_that(
    media_type: str | None, content_type: str | None, expected: str
) -> None:
    assert parse({**IMAGE, "mediaType": media_type}, content_type).media_type == expected


def test_subject_of_a_docker_type_when_there_is_not_read() -> None:
    assert parse({**IMAGE, "mediaType": DOCKER_MANIFEST}).subject is None
    assert parse({**INDEX, "mediaType": DOCKER_LIST, "subject": "nonsense"}).subject is None


def test_sha512_when_used_is_read() -> None:
    text = str(digest("x", Algorithm.SHA512))
    found = parse({**IMAGE, "subject": {**entry("x"), "digest": text}})
    assert str(found.subject) == text


def test_payload_when_read_is_kept_as_it_came() -> None:
    payload = b' {"manifests" : [ ] ,\r\n"schemaVersion":2.0}\n'
    assert parse_manifest(payload, None).payload is payload


def test_descriptors_when_more_than_allowed_are_refused_quickly() -> None:
    began = time.process_time()
    for count in (DESCRIPTORS_MAX + 1, 1_000_000):
        with pytest.raises(ManifestInvalid, match="at most"):
            parse_manifest(b'{"schemaVersion":2,"manifests":[' + b"{}," * (count - 1) + b"{}]}", None)
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    "payload", [b"[" * 10**6, b'{"a":' * 10**6, b'{"k":' + b"[" * 50_000 + b"]" * 50_000 + b"}"]
)
def test_nesting_when_too_deep_is_refused(payload: bytes) -> None:
    with pytest.raises(ManifestInvalid, match="deep"):
        parse_manifest(payload, None)


def test_detail_when_something_long_is_wrong_is_short() -> None:
    for document in (
        {**IMAGE, "schemaVersion": "x" * 10**6},
        {**IMAGE, "mediaType": "x" * 10**6},
        {"x" * 10**6: 1},
    ):
        with pytest.raises(ManifestInvalid) as refused:
            parse(document)
        assert len(refused.value.detail) < 1000


odd_texts = [*sorted(MANIFEST_TYPES), LAYER, str(digest("x")), "sha256:x", "\x00", "\ud800"]
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | numbers | st.text(max_size=20) | st.sampled_from(odd_texts)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
types = st.none() | st.sampled_from(sorted(MANIFEST_TYPES)) | st.text(max_size=30)


def is_manifest_or_refused(payload: bytes, content_type: str | None) -> Manifest | None:
    try:
        found = parse_manifest(payload, content_type)
    except ManifestInvalid as error:
        assert isinstance(error.detail, str)  # noqa: PT017
        assert 0 < len(error.detail) < 1000  # noqa: PT017
        json.dumps(error.documents())
        return None
    assert found.media_type in MANIFEST_TYPES
    assert 0 <= found.size_bytes <= 2**63 - 1
    for part in (*found.layers, *found.children, *([found.config] if found.config else [])):
        assert Digest.parse(str(part.digest)) == part.digest
        assert 0 <= part.size <= 2**63 - 1
        assert part.media_type.isprintable()
    return found


@MODEST
@given(st.binary(max_size=200), types)
def test_manifest_when_any_bytes_is_read_or_refused(payload: bytes, content_type: str | None) -> None:
    is_manifest_or_refused(payload, content_type)


@MODEST
@given(st.dictionaries(st.sampled_from([*IMAGE, *INDEX, "x"]), values, max_size=6), types)
def test_manifest_when_any_object_is_read_or_refused(
    document: dict[str, Any], content_type: str | None
) -> None:
    is_manifest_or_refused(json.dumps(document).encode(), content_type)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to each value inside."""
    found = [path] if path else []
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    elif isinstance(value, list):
        inner = list(enumerate(value))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return found + [place for key, part in inner for place in places(part, (*path, key))]


@MODEST
@given(st.data())
def test_manifest_when_one_value_of_it_is_replaced_is_read_or_refused(data: st.DataObject) -> None:
    document = copy.deepcopy(data.draw(st.sampled_from([IMAGE, INDEX])))
    *way, key = data.draw(st.sampled_from(places(document)))
    holder: Any = document
    for step in way:
        holder = holder[step]
    if data.draw(st.booleans()):
        holder[key] = data.draw(values)
    else:
        del holder[key]
    is_manifest_or_refused(
        json.dumps(document).encode(), data.draw(st.none() | st.just(document.get("mediaType")))
    )


@MODEST
@given(st.data())
def test_manifest_when_one_byte_of_it_is_changed_is_read_or_refused(data: st.DataObject) -> None:
    payload = bytearray(json.dumps(data.draw(st.sampled_from([IMAGE, INDEX]))).encode())
    position = data.draw(st.integers(0, len(payload) - 1))
    payload[position] = data.draw(st.integers(0, 255))
    is_manifest_or_refused(bytes(payload), None)


contents = st.text("abc", max_size=5)


@MODEST
@given(
    st.lists(contents, max_size=5),
    st.none() | contents,
    st.dictionaries(st.text(max_size=9), st.text(max_size=9)),
)
def test_image_when_written_and_read_is_the_same(
    layers: list[str], subject: str | None, annotations: dict[str, str]
) -> None:
    document = {**IMAGE, "layers": [entry(text) for text in layers], "annotations": annotations}
    document["subject"] = None if subject is None else entry(subject)
    found = parse(document, OCI_MANIFEST)
    assert [(layer.digest, layer.size) for layer in found.layers] == [(digest(t), len(t)) for t in layers]
    assert found.subject == (None if subject is None else digest(subject))
    assert found.annotations == annotations
