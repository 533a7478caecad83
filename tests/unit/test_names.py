"""Repository names, tags and references: what is one, what is not, and that there is no third outcome."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.digest import Digest
from app.domain.errors import DigestInvalid, NameInvalid, TagInvalid
from app.domain.names import parse_name, parse_reference, parse_tag

MODEST = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
GOOD_NAMES = [
    "a", "0", "a/b", "a.b", "a_b", "a__b", "a-b", "a--b", "a---------b", "a/b/c/d/e/f", "library/alpine", "0.0/0_0",
    "a-b.c_d__e/f--g", "a" * 255, "a/" * 127 + "a", "manifests", "blobs/uploads", "tags/list", "xn--n3h.com",
]  # fmt: skip
BAD_NAMES = [
    "", "/", "a/", "/a", "a//b", "A", "a/B", ".", "..", "a/..", ".a", "a.", "a..b", "_a", "a_", "a___b", "-a", "a-",
    "a.-b", "a._b", "a_.b", "a-_b", "a b", " a", "a\n", "a\r\n", "a\x00", "a:b",
    "a@b", "a\\b", "a%2fb", "\u00e9", "\uff41", "\u0430",
    "\u0663", "a\u200bb", "K", "\ud800", "a" * 256, "a/" * 128 + "a", "_catalog", "a/_oci", "localhost:5000/a",
]  # fmt: skip
GOOD_TAGS = [
    "latest",
    "1",
    "_",
    "A",
    "v1.0.0_build",
    "a-b.c_d",
    "_.-",
    "1..2",
    "x" * 128,
    "sha256-" + "0" * 64,
]
BAD_TAGS = [
    "",
    ".",
    "-",
    ".a",
    "-a",
    "a b",
    "a+b",
    "a/b",
    "a:b",
    "a\n",
    "a\x00",
    "\u00e9",
    "x" * 129,
    "\u0663",
    "\ud800",
    "a%20",
]

word = st.text("abcxyz0189", min_size=1, max_size=9)
separator = st.sampled_from([".", "_", "__", "-", "--", "-----"])
component = st.tuples(word, st.lists(st.tuples(separator, word).map("".join), max_size=3).map("".join)).map(
    "".join
)
text = st.text(max_size=300) | st.text("aA0._-/: \n", max_size=300)


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_name_when_well_formed_is_itself(name: str) -> None:
    assert parse_name(name) == name


@pytest.mark.parametrize("name", BAD_NAMES)
def test_name_when_malformed_is_refused_with_a_sentence(name: str) -> None:
    with pytest.raises(NameInvalid) as refused:
        parse_name(name)
    assert isinstance(refused.value.detail, str)
    assert len(refused.value.detail) < 600


@MODEST
@given(st.lists(component, min_size=1, max_size=5).map("/".join))
def test_name_when_built_by_the_grammar_is_itself(name: str) -> None:
    assert parse_name(name) == name


@MODEST
@given(text)
def test_name_when_any_text_is_itself_or_refused(name: str) -> None:
    try:
        assert parse_name(name) == name
    except NameInvalid:
        return
    assert name == name.lower()
    assert name.isascii()
    assert 0 < len(name) <= 255


@pytest.mark.parametrize("tag", GOOD_TAGS)
def test_tag_when_well_formed_is_itself(tag: str) -> None:
    assert parse_tag(tag) == parse_reference(tag) == tag


@pytest.mark.parametrize("tag", BAD_TAGS)
def test_tag_when_malformed_is_refused_with_a_sentence(tag: str) -> None:
    with pytest.raises(TagInvalid) as refused:
        parse_tag(tag)
    assert len(refused.value.detail) < 1000


@MODEST
@given(text)
def test_tag_when_any_text_is_itself_or_refused(tag: str) -> None:
    try:
        assert parse_tag(tag) == tag
    except TagInvalid:
        return
    assert tag.isascii()
    assert 0 < len(tag) <= 128


@MODEST
@given(text | text.map("sha256:".__add__))
def test_reference_when_any_text_is_a_tag_a_digest_or_refused(reference: str) -> None:
    try:
        found = parse_reference(reference)
    except (TagInvalid, DigestInvalid) as error:
        assert isinstance(error, DigestInvalid) == (":" in reference)  # noqa: PT017
        return
    assert str(found) == reference
    assert isinstance(found, Digest) == (":" in reference)


def test_names_when_made_to_be_slow_are_refused_quickly() -> None:
    began = time.process_time()
    for filler in ("a", "a-", "a_", "a__", "a.", "-", "_", "a/", "a--", "0"):
        for tail in ("!", "/", "-", "A", "\n"):
            with pytest.raises(NameInvalid):
                parse_name((filler * 300)[:254] + tail)
            with pytest.raises(TagInvalid):
                parse_tag("/" + (filler * 100_000) + tail)
    assert time.process_time() - began < 2
