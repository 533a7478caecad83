"""Bearer tokens that must be refused: each test names the class of attack, or the CVE, that it stands for.

`README.md` of this directory has the list. What a good token is: tests/auth/test_jwts.py.
"""

from __future__ import annotations

import base64
import json
import tracemalloc
from functools import cache
from itertools import count
from time import process_time
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.auth.compact import TOKEN_CHARS_MAX, TokenRefused
from app.auth.keys import ALGORITHMS, libtrust_id, read_keys, thumbprint
from tests.auth.test_keys import bundle, jwk_of, jwks
from tests.auth.tokens import (
    altered,
    base64url,
    certificate,
    claims,
    key_set,
    pem,
    private_key,
    raw,
    signed,
    verifier,
    x5c,
)
from tests.support.effort import EFFORT

if TYPE_CHECKING:
    from cryptography import x509

    from app.auth.jwts import Verifier

RSA = private_key("RS256")
KEY = private_key("ES256")
STRANGER = private_key("ES256", 9)
KID = thumbprint(KEY.public_key())


def refusal(checks: Verifier, token: str) -> TokenRefused:
    """Why the token is refused. The reason is a sentence, and has nothing of the token but what was asked of it."""
    with pytest.raises(TokenRefused) as info:
        checks.verify(token)
    reason = info.value.reason
    assert reason
    assert len(reason) < 500
    assert reason.isprintable()
    signature = token.rpartition(".")[2]
    assert len(signature) < 8 or signature not in reason
    return info.value


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory) -> Verifier:
    """A registry that trusts two certificates and a secret, and accepts every algorithm."""
    secret = {"kty": "oct", "kid": "secret", "k": base64url(bytes(range(64)))}
    certificates, tmp_path = pem(certificate(RSA), certificate(KEY)), tmp_path_factory.mktemp("keys")
    return verifier(read_keys(bundle(tmp_path, certificates), jwks(tmp_path, secret)), algorithms=ALGORITHMS)


# alg


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "nOnE", "none ", " none", "", "no\u00f1e", "NONE\u0000"]
)
@pytest.mark.parametrize("kid", [None, KID], ids=["no kid", "kid"])
def test_alg_none_in_any_spelling_is_refused(checks: Verifier, alg: str, kid: str | None) -> None:
    """CVE-2015-9235 and its relatives."""
    header = {"typ": "JWT", "alg": alg} | ({"kid": kid} if kid else {})
    text = raw(header, claims())
    assert refusal(checks, f"{text}.").kind == "malformed"
    assert refusal(checks, f"{text}.{base64url(b'x' * 64)}").kind == "algorithm"
    assert refusal(checks, f"{text}.{signed(KEY).rpartition('.')[2]}").kind == "algorithm"


@pytest.mark.parametrize(
    "alg", ["es256", "ES256 ", "ES256K", "HS1", "RS1", "ES521", "A128KW", "dir", "Ed25519", "x" * 9000]
)
def test_alg_that_is_not_listed_is_refused(checks: Verifier, alg: str) -> None:
    text = raw({"alg": alg, "kid": KID}, claims())
    assert refusal(checks, f"{text}.{signed(KEY).rpartition('.')[2]}").kind == "algorithm"


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("with_kid", [True, False])
def test_public_key_as_hmac_secret_is_refused(checks: Verifier, alg: str, with_kid: bool) -> None:
    """CVE-2016-10555, CVE-2022-29217: whatever an attacker can know of the key, taken for a secret."""
    public = RSA.public_key()
    cert = certificate(RSA)
    known = [
        pem(cert),
        pem(cert).strip(),
        cert.public_bytes(Encoding.DER),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        json.dumps(jwk_of(RSA)).encode(),
        thumbprint(public).encode(),
        b"",
    ]
    for secret in known:
        for kid in (thumbprint(public), libtrust_id(public)) if with_kid else (None,):
            found = refusal(checks, signed(secret, alg=alg, kid=kid))
            assert found.kind == ("algorithm" if with_kid else "signature")


@pytest.mark.parametrize("alg", ["ES384", "ES512", "RS256", "PS256", "EdDSA", "HS256"])
def test_algorithm_of_another_kind_of_key_is_refused(checks: Verifier, alg: str) -> None:
    """Confusion of curves and kinds: the key decides, not the header."""
    text = raw({"alg": alg, "kid": KID}, claims())
    for length in (32, 64, 96, 132, 256):
        assert refusal(checks, f"{text}.{base64url(bytes(length))}").kind == "algorithm"


# Signatures


@pytest.mark.parametrize("length", [1, 32, 63, 64, 65, 70, 72, 128, 256, 257, 8192])
@pytest.mark.parametrize("fill", [b"\x00", b"\xff", b"\x30"])
@pytest.mark.parametrize(("alg", "key"), [("ES256", KEY), ("RS256", RSA), ("PS512", RSA)])
def test_signature_of_any_shape_is_refused(
    checks: Verifier, alg: str, key: Any, length: int, fill: bytes
) -> None:
    """CVE-2022-21449: r = s = 0, and other lengths and fillings."""
    text = raw({"alg": alg, "kid": thumbprint(key.public_key())}, claims())
    assert refusal(checks, f"{text}.{base64url(fill * length)}").kind == "signature"


def test_signature_of_other_claims_is_refused(checks: Verifier) -> None:
    """A signature cut from a good token."""
    body = claims(access=[{"type": "repository", "name": "other", "actions": ["*"]}])
    header, _, signature = signed(KEY, kid=KID).split(".")
    assert refusal(checks, f"{header}.{base64url(json.dumps(body).encode())}.{signature}").kind == "signature"


# Keys that the token brings


def test_jwk_in_the_header_is_never_used(checks: Verifier) -> None:
    """CVE-2025-24976, CVE-2018-0114: `jwk` is the signer's own, alone or under a trusted key's id."""
    jwk = jwk_of(STRANGER)
    for others in ({}, {"kid": KID}, {"kid": thumbprint(STRANGER.public_key())}):
        for key in (jwk, jwk | {"kid": KID}, jwk | {"x5c": x5c(certificate(STRANGER))}, [jwk], "jwk", None):
            assert refusal(checks, signed(STRANGER, jwk=key, **others)).kind in ("signature", "unknown_key")


def test_jwk_that_is_trusted_changes_nothing(checks: Verifier) -> None:
    checks.verify(signed(KEY, jwk=jwk_of(KEY)))
    assert refusal(checks, signed(STRANGER, jwk=jwk_of(KEY))).kind == "signature"


@pytest.mark.parametrize("name", ["jku", "x5u", "x5t", "x5t#S256"])
@pytest.mark.parametrize("value", ["http://127.0.0.1:1/keys", "file:///etc/passwd", "http://registry/", 7])
def test_addresses_of_keys_are_never_followed(checks: Verifier, name: str, value: Any) -> None:
    """CVE-2018-1000531's class, and SSRF by `jku` and `x5u`."""
    assert refusal(checks, signed(STRANGER, **{name: value})).kind == "signature"
    checks.verify(signed(KEY, **{name: value}))


@pytest.mark.parametrize(
    "kid", ["../../../dev/null", "/dev/null", "' OR 1=1 --", "keys/\x00", "|id", "", "*", "secret"]
)
def test_kid_is_looked_up_and_nothing_else(checks: Verifier, kid: str) -> None:
    """Path traversal and injection by `kid`; an empty secret."""
    for secret in (b"", b"\x00", KID.encode()):
        assert refusal(checks, signed(secret, alg="HS256", kid=kid)).kind in ("signature", "unknown_key")
    assert refusal(checks, signed(STRANGER, kid=kid)).kind in ("signature", "unknown_key", "algorithm")


# Certificates that the token brings

ROOT_KEY = private_key("ES256", 2)
ROOT = certificate(ROOT_KEY, "root", ca=True, signs_certificates=True)
MIDDLE_KEY = private_key("ES256", 3)


def issued(key: Any, name: str, by: str = "root", by_key: Any = ROOT_KEY, **others: Any) -> x509.Certificate:
    return certificate(key, name, issuer=by, issuer_key=by_key, **others)


def leaf(by: str, by_key: Any, **others: Any) -> x509.Certificate:
    return issued(STRANGER, "leaf", by, by_key, **others)


AUTHORITY: dict[str, Any] = {"ca": True, "signs_certificates": True}


@cache
def chains() -> dict[str, list[x509.Certificate]]:
    good = issued(MIDDLE_KEY, "middle", **AUTHORITY)
    own = certificate(STRANGER, "root", **AUTHORITY)
    past, future = (-30, -1), (1, 30)
    keys = [private_key("ES256", 20 + n) for n in range(8)]
    long = [issued(keys[n], str(n), str(n - 1), keys[n - 1], **AUTHORITY) for n in range(1, 8)]
    return {
        "self-signed": [certificate(STRANGER)],
        "self-signed with the root's name": [own],
        "self-signed with the root's name, then the root": [own, ROOT],
        "by a namesake of the root": [leaf("root", STRANGER), own],
        "by a namesake of the root, then the root": [leaf("root", STRANGER), ROOT],
        "not signed by whom it names": [leaf("root", MIDDLE_KEY)],
        "middle is missing": [leaf("middle", MIDDLE_KEY)],
        "middle is no authority": [leaf("middle", MIDDLE_KEY), issued(MIDDLE_KEY, "middle", ca=False)],
        "middle does not say what it is": [leaf("middle", MIDDLE_KEY), issued(MIDDLE_KEY, "middle")],
        "middle may not sign certificates": [
            leaf("middle", MIDDLE_KEY),
            issued(MIDDLE_KEY, "middle", ca=True, signs_certificates=False),
        ],
        "middle has expired": [
            leaf("middle", MIDDLE_KEY),
            issued(MIDDLE_KEY, "middle", days=past, **AUTHORITY),
        ],
        "middle is not valid yet": [
            leaf("middle", MIDDLE_KEY),
            issued(MIDDLE_KEY, "middle", days=future, **AUTHORITY),
        ],
        "leaf has expired": [leaf("root", ROOT_KEY, days=past)],
        "leaf is not valid yet": [leaf("root", ROOT_KEY, days=future)],
        "the root first": [ROOT, leaf("root", ROOT_KEY)],
        "a good authority's, but not the signer's": [good],
        "too long": [leaf("7", keys[7]), *reversed(long), issued(keys[0], "0", **AUTHORITY)],
        "too many": [leaf("root", ROOT_KEY)] * 30,
    }


@pytest.mark.parametrize("name", chains())
def test_certificates_that_lead_nowhere_are_refused(name: str) -> None:
    """CVE-2025-24976's sibling: `x5c` that only looks right."""
    checks = verifier(key_set(ROOT_KEY, roots=(ROOT,)))
    found = refusal(checks, signed(STRANGER, x5c=x5c(*chains()[name]), kid=thumbprint(ROOT_KEY.public_key())))
    # The two that are trusted but not the signer's fail with the signature.
    is_trusted = name in ("the root first", "a good authority's, but not the signer's")
    assert found.kind == ("signature" if is_trusted else "certificates")


def test_certificates_when_the_trusted_one_has_expired_then_they_lead_nowhere() -> None:
    old = certificate(ROOT_KEY, "root", days=(-30, -1), **AUTHORITY)
    found = refusal(verifier(key_set(roots=(old,))), signed(STRANGER, x5c=x5c(leaf("root", ROOT_KEY))))
    assert found.kind == "certificates"


def test_certificates_when_the_trusted_one_is_no_authority_then_it_issues_nothing() -> None:
    """A bundle of signers' own certificates, as GitLab has, makes none of them an authority."""
    own = certificate(KEY, "root")
    chain = [issued(STRANGER, "leaf", "root", KEY), own]
    assert refusal(verifier(key_set(roots=(own,))), signed(STRANGER, x5c=x5c(*chain))).kind == "certificates"


def test_certificates_with_a_short_key_are_refused() -> None:
    short = rsa.generate_private_key(65537, 1024)
    checks = verifier(key_set(roots=(ROOT,)))
    found = refusal(checks, signed(short, alg="RS256", x5c=x5c(issued(short, "leaf"))))
    assert found.kind == "certificates"


@pytest.mark.parametrize(
    "value",
    [
        *([], {}, "MII", 7, True, [7], [None], [[]], [""], ["!"], ["MII"], ["AAAA"], ["\u00e9"]),
        x5c(certificate(STRANGER))[0],
        [x5c(certificate(STRANGER))[0] + "\n"],
        [base64.b64encode(pem(certificate(STRANGER))).decode()],
    ],
    ids=map(str, count()),
)
def test_certificates_that_are_malformed_are_refused(value: Any) -> None:
    found = refusal(verifier(key_set(KEY, roots=(ROOT,))), signed(KEY, x5c=value))
    assert found.kind in ("malformed", "certificates")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *((b"\xa0\x03\x02\x01\x02", bytes((0xA0, 3, 2, 1, version))) for version in (3, 42, 127, 255)),
        (b"\x02\x01\x01", b"\x02\x01\x00"),
        (b"\x02\x01\x01", b"\x02\x01\x80"),
    ],
    ids=["version 4", "version 43", "version 128", "version -1", "serial number 0", "serial number -128"],
)
def test_certificate_that_is_unusual_is_refused_and_nothing_else(old: bytes, new: bytes) -> None:
    """The library has an error of its own for versions, which made it 500, and warns of serial numbers."""
    chain = [base64.b64encode(altered(certificate(STRANGER, serial=1), old, new)).decode()]
    assert refusal(verifier(key_set(KEY, roots=(ROOT,))), signed(KEY, x5c=chain)).kind == "certificates"


def test_certificates_that_lead_in_circles_cost_little() -> None:
    """Four kilobytes without a right to anything kept a processor busy for 100 ms: all ways were tried."""
    signer = private_key("ES512", 3)
    circle = [certificate(signer, "middle", **AUTHORITY) for _ in range(4)]
    token = signed(STRANGER, x5c=x5c(leaf("middle", signer), *circle))
    checks = verifier(key_set(roots=(ROOT,)))
    assert "one name" in refusal(checks, token).reason
    began = process_time()
    for _ in range(10):
        refusal(checks, token)
    assert process_time() - began < 0.5


def test_certificates_when_all_of_them_issue_each_other_then_each_is_looked_at_once() -> None:
    """Without two of one name there is one way alone, at any depth."""
    names = ["a", "b", "c", "d"]
    keys = {name: private_key("ES512", 30 + number) for number, name in enumerate(names)}
    ring = [
        certificate(keys[name], name, issuer=by, issuer_key=keys[by], **AUTHORITY)
        for name, by in zip(names, [*names[1:], names[0]], strict=True)
    ]
    token = signed(STRANGER, x5c=x5c(leaf("a", keys["a"]), *ring))
    checks = verifier(key_set(roots=(ROOT,)))
    began = process_time()
    for _ in range(10):
        assert refusal(checks, token).kind == "certificates"
    assert process_time() - began < 0.5


def test_certificates_written_in_another_way_are_refused() -> None:
    """What is trusted stays so only in its one spelling."""
    checks, (good,) = verifier(key_set(roots=(ROOT,))), x5c(leaf("root", ROOT_KEY))
    checks.verify(signed(STRANGER, x5c=[good]))
    for other in (good[:64] + "\n" + good[64:], good[:64] + "!" + good[64:], good.replace("A", "\u0410")):
        assert refusal(checks, signed(STRANGER, x5c=[other])).kind == "malformed"


# Shape

SIGNATURE = base64url(b"s" * 64)


@pytest.mark.parametrize(
    "token",
    [
        *(
            "",
            " ",
            ".",
            "..",
            "...",
            "....",
            "a",
            "a.b",
            "a.b.c",
            "a.b.c.d",
            "\x00.\x00.\x00",
            "é.é.é",
            "\ud800",
        ),
        *(".." + SIGNATURE, "e30.e30.", "e30.." + SIGNATURE, ".e30." + SIGNATURE, "e30.e30." + SIGNATURE),
        signed(KEY) + ".",
        "." + signed(KEY),
        signed(KEY) + ".e30",
        signed(KEY) + "=",
        signed(KEY) + "==",
        signed(KEY) + "\n",
        " " + signed(KEY),
        signed(KEY).replace(".", ". "),
        signed(KEY).replace(".", "\uff0e"),
        signed(KEY).replace(".", ".."),
        "Bearer " + signed(KEY),
        json.dumps({"payload": "e30", "signatures": [{"protected": "e30", "signature": "AA"}]}),
        json.dumps({"payload": "e30", "protected": "e30", "signature": "AA"}),
        "e30.e30.e30.e30.e30",
    ],
    ids=map(str, count()),
)
def test_token_that_is_no_compact_jws_is_refused(checks: Verifier, token: str) -> None:
    """Shape: segments, padding, spaces, JSON serialisation, JWE."""
    assert refusal(checks, token).kind == "malformed"


def test_base64_written_in_another_way_is_refused(checks: Verifier) -> None:
    """One token, one text: unused bits, padding and the other alphabet make no second one."""
    header, body, signature = signed(KEY).split(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    # 64 bytes are 86 characters, and the last has four bits that mean nothing.
    other = signature[:-1] + alphabet[alphabet.index(signature[-1]) ^ 1]
    assert base64.urlsafe_b64decode(other + "==") == base64.urlsafe_b64decode(signature + "==")
    assert refusal(checks, f"{header}.{body}.{other}").kind == "malformed"
    for text in (signature[:40] + "\n" + signature[40:], signature[:40] + "=" + signature[40:]):
        assert refusal(checks, f"{header}.{body}.{text}").kind == "malformed"
    assert refusal(checks, f"{header}.{body}.+/{signature[2:]}").kind == "malformed"


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"", "not base64url"),
        (b"null", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b'"ES256"', "not a JSON object"),
        (b"{", "not JSON"),
        (b'{"alg":"ES256"} {}', "not JSON"),
        (b"{'alg':'ES256'}", "not JSON"),
        (b'\xef\xbb\xbf{"alg":"ES256"}', "not JSON"),
        ('{"alg":"ES256"}'.encode("utf-16"), "not UTF-8"),
        (b'{"alg":"ES256","x":"\xff"}', "not UTF-8"),
        (b'{"alg":"ES256","x":"\\ud800"}', "not UTF-8"),
        (b'{"alg":"none","alg":"ES256"}', "a key twice"),
        (b'{"alg":"ES256","x":{"a":1,"\\u0061":2}}', "a key twice"),
        (b'{"alg":"ES256","x":NaN}', "not JSON"),
        (b'{"alg":"ES256","x":-Infinity}', "not JSON"),
        (b'{"alg":"ES256","x":' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"alg":"ES256","x":' + b"[" * 33 + b"]" * 33 + b"}", "nested too deeply"),
        (b'{"alg":"ES256","x":' + b"[" * 8000 + b"]" * 8000 + b"}", "nested too deeply"),
        (b'{"alg":"ES256","x":' + b'{"a":' * 4000 + b"1" + b"}" * 4001, "nested too deeply"),
        (b"{}", "no `alg`"),
        (b'{"alg":null}', "no `alg`"),
        (b'{"alg":["ES256"]}', "`alg` in the token's header is not a string"),
        (b'{"alg":7}', "`alg` in the token's header is not a string"),
        (b'{"alg":"ES256","kid":7}', "`kid` in the token's header is not a string"),
        (b'{"alg":"ES256","kid":["a"]}', "`kid` in the token's header is not a string"),
        (b'{"alg":"ES256","typ":"JWE"}', "of the type 'JWE', not JWT"),
        (b'{"alg":"ES256","typ":"dpop+jwt"}', "of the type 'dpop+jwt', not JWT"),
        (b'{"alg":"ES256","typ":["JWT"]}', "`typ` in the token's header is not a string"),
        (b'{"alg":"ES256","crit":["b64"],"b64":false}', "`crit`"),
        (b'{"alg":"ES256","crit":[]}', "`crit`"),
        (b'{"alg":"ES256","crit":null}', "`crit`"),
    ],
)
def test_header_that_is_malformed_is_refused(checks: Verifier, header: bytes, words: str) -> None:
    """Malformed JSON: duplicate keys, NaN, depth, encodings; PyJWT's CVE-2026-1022xx: `crit`."""
    found = refusal(checks, signed(KEY, header=header))
    assert (found.kind, words in found.reason) == ("malformed", True), found.reason


@pytest.mark.parametrize(
    "body",
    [
        *(b"null", b"[]", b"7", b'""', b"{", b'{"iss":"a","iss":"gitlab-issuer"}', b'{"exp":NaN}', b"\xff"),
        *(
            b'{"exp":1e400}',
            b'{"exp":' + b"9" * 5000 + b"}",
            b"[" * 12000,
            b'{"a":' * 4000 + b"1" + b"}" * 4000,
        ),
        b'{"sub":"\\udc00"}',
    ],
)
def test_body_that_is_malformed_is_refused_though_it_is_signed(checks: Verifier, body: bytes) -> None:
    assert refusal(checks, signed(KEY, body)).kind in ("malformed", "issuer")


@pytest.mark.parametrize(
    "value", ["1e400", "-1e400", "1e308", "-1", "-0.5", "true", "1" + "0" * 300, '"1900000000"']
)
@pytest.mark.parametrize("name", ["exp", "nbf"])
def test_moment_that_is_no_number_of_seconds_is_refused(checks: Verifier, name: str, value: str) -> None:
    """Infinite, negative and enormous dates."""
    body = json.dumps(claims() | {name: "HERE"}).replace('"HERE"', value).encode()
    assert refusal(checks, signed(KEY, body)).kind == "malformed"


# Length


@pytest.mark.parametrize(
    "token",
    [
        "x" * (64 * 1024),
        "." * (8 * 1024 * 1024),
        signed(KEY, claims(padding="x" * 48 * 1024)),
        "e30." * (2 * 1024 * 1024),
        f"{base64url(b'[' * 100_000)}.e30.AA",
        signed(KEY, claims(padding="x" * TOKEN_CHARS_MAX)),
    ],
    ids=["letters", "dots", "signed", "segments", "deep", "just too long"],
)
def test_token_of_absurd_length_is_refused_before_it_is_parsed(checks: Verifier, token: str) -> None:
    """CVE-2025-30204: many dots; and lengths that nobody needs."""
    tracemalloc.start()
    try:
        with pytest.raises(TokenRefused, match="characters; at most 32768"):
            checks.verify(token)
        assert tracemalloc.get_traced_memory()[1] < 32 * 1024
    finally:
        tracemalloc.stop()


def test_token_of_many_dots_below_the_length_is_refused(checks: Verifier) -> None:
    """CVE-2025-30204."""
    assert refusal(checks, "." * TOKEN_CHARS_MAX).reason.startswith("the token has 32768 dots, not 2: ")


# Anything

PROPERTY = settings(max_examples=60 * EFFORT, deadline=None)
TRUSTING = verifier(key_set(KEY, RSA, roots=(ROOT,)))
GOOD = signed(KEY, kid=KID)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def outcome(token: str) -> bool:
    """Whether the token is accepted. Nothing but TokenRefused may be raised."""
    reason = None
    try:
        TRUSTING.verify(token)
    except TokenRefused as refused:
        reason = refused.reason
    assert reason is None or reason.isprintable()
    return reason is None


@PROPERTY
@given(
    st.text()
    | st.from_regex(r"[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,90}", fullmatch=True)
)
def test_any_text_is_refused(text: str) -> None:
    assert not outcome(text)


@PROPERTY
@given(
    st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "x5c", "jwk", "crit", "b64"]),
        st.sampled_from(["ES256", "RS256", "HS256", "none", "JWT", KID, [], {}, x5c(ROOT)]) | JSON,
    )
)
@example({"alg": "ES256", "x5c": x5c(ROOT)})
def test_any_header_over_a_good_tokens_rest_is_refused(header: dict[str, Any]) -> None:
    _, body, signature = GOOD.split(".")
    assert not outcome(f"{base64url(json.dumps(header).encode())}.{body}.{signature}")


@PROPERTY
@given(st.dictionaries(st.sampled_from(sorted(claims())), JSON, min_size=1))
def test_any_claims_that_are_signed_are_accepted_only_if_they_are_the_right_ones(
    body: dict[str, Any],
) -> None:
    """What a trusted issuer signs may be nonsense, too."""
    others = claims() | body
    if outcome(signed(KEY, others)):
        assert others["iss"] == "gitlab-issuer"
        assert others["aud"] == "container_registry" or "container_registry" in others["aud"]
        assert others["exp"] > TRUSTING._now() - 60


@PROPERTY
@given(st.data())
def test_a_good_token_with_one_change_is_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(GOOD) - 1))
    text = data.draw(st.text("ABCxyz019-_.= \n", max_size=2))
    changed = GOOD[:at] + text + GOOD[at + data.draw(st.integers(0, 2)) :]
    assert outcome(GOOD), "it is remembered, and so is nothing like it"
    assert outcome(changed) is (changed == GOOD)
