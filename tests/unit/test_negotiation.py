"""What Accept headers mean, and which child of a list an old client gets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.digest import Digest
from app.domain.manifests import DOCKER_LIST, DOCKER_MANIFEST, MANIFEST_TYPES, OCI_INDEX, OCI_MANIFEST
from app.domain.negotiation import Accepted, linux_amd64_child

MODEST = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
DIGEST = Digest.of(b"child")


@pytest.mark.parametrize(
    ("headers", "refused", "rewritten"),
    [
        ([], set[str](), False),
        ([""], set[str](), False),
        (["*/*"], set[str](), False),
        (["application/*"], set[str](), False),
        (["*/*;q=0"], set[str](), False),
        ([f"{DOCKER_MANIFEST}, */*"], set[str](), False),
        ([DOCKER_MANIFEST], {OCI_MANIFEST, OCI_INDEX}, True),
        ([DOCKER_MANIFEST, DOCKER_LIST], {OCI_MANIFEST, OCI_INDEX}, False),
        ([DOCKER_LIST], {OCI_MANIFEST, OCI_INDEX}, False),
        ([OCI_MANIFEST], {OCI_INDEX}, True),
        ([f"{OCI_MANIFEST};q=1,{OCI_INDEX} ; q=0.5"], set[str](), True),
        ([OCI_INDEX.upper()], {OCI_MANIFEST}, True),
        (["text/html"], {OCI_MANIFEST, OCI_INDEX}, False),
        (["text/*"], {OCI_MANIFEST, OCI_INDEX}, False),
        (["application/json", " , ,"], {OCI_MANIFEST, OCI_INDEX}, False),
        ([OCI_MANIFEST + "x"], {OCI_MANIFEST, OCI_INDEX}, False),
    ],
)
def test_accept_when_given_refuses_and_rewrites_exactly_this(
    headers: list[str], refused: set[str], rewritten: bool
) -> None:
    accepted = Accepted(headers)
    assert {media_type for media_type in MANIFEST_TYPES if accepted.refusal(media_type)} == refused
    assert accepted.wants_child_of(DOCKER_LIST) == rewritten
    assert not any(accepted.wants_child_of(other) for other in MANIFEST_TYPES - {DOCKER_LIST})


@MODEST
@given(st.lists(st.text(max_size=100) | st.sampled_from(sorted(MANIFEST_TYPES)), max_size=5))
def test_accept_when_any_text_never_refuses_a_type_that_it_names(headers: list[str]) -> None:
    accepted = Accepted(headers)
    for media_type in MANIFEST_TYPES:
        refusal = accepted.refusal(media_type)
        assert refusal is None or media_type not in headers
        assert not accepted.wants_child_of(media_type) or media_type not in headers


def listed(entries: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": entries}).encode()


def entry(os: str = "linux", architecture: str = "amd64", **more: Any) -> dict[str, Any]:
    return {"digest": str(DIGEST), "platform": {"os": os, "architecture": architecture, **more}}


CHILDREN: list[tuple[Any, Digest | None]] = [
    ([entry()], DIGEST),
    ([entry(architecture="arm64"), {"digest": "x"}, entry("windows"), entry(variant="v2")], DIGEST),
    ([entry(), {**entry(), "digest": "x"}], DIGEST),
    ([entry("windows"), entry(architecture="arm64"), entry("LINUX")], None),
    ([{**entry(), "platform": None}, {**entry(), "platform": {}}, {"digest": str(DIGEST)}], None),
    ([], None),
    (None, None),
]


@pytest.mark.parametrize(("entries", "expected"), CHILDREN)
def test_child_for_linux_amd64_when_looked_for_is_the_first_of_that_platform(
    entries: object, expected: Digest | None
) -> None:
    assert linux_amd64_child(listed(entries)) == expected
