"""Digests: their text, their database form, and that nothing else gets through."""

from __future__ import annotations

import hashlib
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.digest import Algorithm, Digest
from app.domain.errors import DigestInvalid, DigestUnsupported

MODEST = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SHA256 = hashlib.sha256(b"").hexdigest()
SHA512 = hashlib.sha512(b"").hexdigest()
MALFORMED = [
    "", ":", "sha256", "sha256:", ":" + SHA256, SHA256, f"sha256:{SHA256[:-1]}", f"sha256:{SHA256}0",
    f"sha512:{SHA256}", f"sha256:{SHA512}", f"sha256:{SHA256.upper()}", f"SHA256:{SHA256}", f"sha256:{SHA256}\n",
    f" sha256:{SHA256}", f"sha256: {SHA256}", f"sha256:{SHA256}\x00", "sha256:" + "g" * 64, "sha256:" + "\u0663" * 64,
    "sha256:" + "\uff10" * 64, "sha256:../../etc/passwd", f"sha256:sha256:{SHA256}", "sha256:%2e%2e", "\ud800:\ud800",
    f"sha256:{SHA256},sha256:{SHA256}", "+:a", "md5+:a", "md5:", "md5:a b", "md5:a/b", "MD5:abc", "a:" * 5000,
    ":" + "a" * 100_000, "sha256:" + "a" * 100_000,
]  # fmt: skip
SOMEBODY_ELSES = [
    "md5:d41d8cd98f00b204e9800998ecf8427e", f"blake3:{SHA256}", "a.b-c_d+e:=_-Z",
    "sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g",
]  # fmt: skip

digests = st.sampled_from(Algorithm).flatmap(
    lambda algorithm: st.binary(min_size=algorithm.size, max_size=algorithm.size).map(
        lambda raw: Digest(algorithm, raw.hex())
    )
)


@MODEST
@given(digests)
def test_digest_when_written_and_read_is_the_same(digest: Digest) -> None:
    assert Digest.parse(str(digest)) == digest
    assert Digest.unpack(digest.packed) == digest
    assert len(digest.packed) == digest.algorithm.size + 1


@MODEST
@given(st.binary(max_size=200), st.sampled_from(Algorithm))
def test_digest_when_computed_is_hashlibs(content: bytes, algorithm: Algorithm) -> None:
    digest = Digest.of(content, algorithm)
    assert str(digest) == f"{algorithm.label}:{hashlib.new(algorithm.label, content).hexdigest()}"
    assert Digest.parse(str(digest)) == digest


@pytest.mark.parametrize("text", MALFORMED, ids=lambda text: repr(text)[:40])
def test_digest_when_malformed_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(DigestInvalid) as refused:
        Digest.parse(text)
    assert not isinstance(refused.value, DigestUnsupported)
    assert len(refused.value.detail) < 1000


@pytest.mark.parametrize("text", SOMEBODY_ELSES)
def test_digest_when_of_an_algorithm_that_is_not_ours_is_refused_as_such(text: str) -> None:
    with pytest.raises(DigestUnsupported, match="use sha256 or sha512"):
        Digest.parse(text)


@MODEST
@given(
    st.text(max_size=200)
    | st.text("sha256:0f", max_size=200)
    | st.text("0123456789abcdefg", max_size=65).map("sha256:".__add__)
)
def test_digest_when_any_text_is_itself_or_refused(text: str) -> None:
    with suppress(DigestInvalid):
        assert str(Digest.parse(text)) == text


@MODEST
@given(
    st.binary(max_size=70)
    | digests.map(lambda digest: digest.packed + b"x")
    | digests.map(lambda digest: digest.packed)
)
def test_packed_digest_when_any_bytes_is_a_digest_or_a_value_error(packed: bytes) -> None:
    with suppress(ValueError):
        assert Digest.unpack(packed).packed == packed


def test_algorithms_when_named_are_two() -> None:
    assert [Algorithm.parse(name) for name in ("sha256", "sha512")] == list(Algorithm)
    for name in ("", "SHA256", "sha-256", "sha384", "md5", "sha256 ", "\ud800"):
        with pytest.raises(DigestInvalid):
            Algorithm.parse(name)


def test_algorithm_codes_when_stored_are_these_for_ever() -> None:
    assert {algorithm.code: algorithm.label for algorithm in Algorithm} == {1: "sha256", 2: "sha512"}
    assert [Algorithm.of_code(code).label for code in (1, 2)] == ["sha256", "sha512"]
    with pytest.raises(ValueError, match="code 3"):
        Algorithm.of_code(3)
