"""The keys that tokens are verified with: which files are accepted, what tokens may call them, what they may verify."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from app.auth.keys import FILE_BYTES_MAX, KeyFileError, libtrust_id, read_keys, thumbprint, trusted
from tests.auth.tokens import altered, base64url, certificate, pem, private_key, signed, verifier

if TYPE_CHECKING:
    from pathlib import Path

# RFC 7638, 3.1, and Distribution's P-256 generator (SEC 2, 2.4.2).
RFC_JWK = {
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3"
    "oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6"
    "qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJ"
    "zKnqDKgw",
    "e": "AQAB",
}
RFC_THUMBPRINT = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
P256_X = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
P256_Y = "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"


def jwk_of(key: Any, **others: Any) -> dict[str, Any]:
    """The public key as JSON Web Key."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        return RSAAlgorithm.to_jwk(public, as_dict=True) | others
    if isinstance(public, ec.EllipticCurvePublicKey):
        return ECAlgorithm.to_jwk(public, as_dict=True) | others
    return OKPAlgorithm.to_jwk(public, as_dict=True) | others


def jwks(path: Path, *keys: Any) -> str:
    file = path / "jwks.json"
    file.write_text(json.dumps({"keys": keys}))
    return str(file)


def bundle(path: Path, content: bytes) -> str:
    file = path / "bundle.pem"
    file.write_bytes(content)
    return str(file)


def refusal(rootcertbundle: str = "", jwks: str = "") -> str:
    with pytest.raises(KeyFileError) as refused:
        read_keys(rootcertbundle, jwks)
    return str(refused.value)


def test_thumbprint_of_the_rfcs_key_then_it_is_the_rfcs() -> None:
    assert thumbprint(RSAAlgorithm.from_jwk(RFC_JWK)) == RFC_THUMBPRINT


def test_libtrust_id_then_it_is_twelve_groups_of_the_hash_of_the_public_key() -> None:
    key = private_key("RS256").public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    name = libtrust_id(key)
    assert [len(group) for group in name.split(":")] == [4] * 12
    assert base64.b32decode(name.replace(":", "")) == hashlib.sha256(der).digest()[:30]


def test_read_keys_when_the_bundle_has_several_certificates_then_each_is_known_by_each_of_its_ids(
    tmp_path: Path,
) -> None:
    keys = [private_key("RS256"), private_key("ES256"), private_key("ES512"), private_key("EdDSA")]
    words = b"An explanation, as openssl writes it\n"
    found = read_keys(bundle(tmp_path, words + pem(*map(certificate, keys))), "")
    assert len(found.candidates(None)) == 4
    for key, algorithm in zip(keys, ("RS256", "ES256", "ES512", "EdDSA"), strict=True):
        for name in (thumbprint(key.public_key()), libtrust_id(key.public_key())):
            (only,) = found.candidates(name)
            assert algorithm in only.algorithms
            assert not any(one.startswith("HS") for one in only.algorithms)
    assert found.candidates("another") == ()


def test_candidates_when_the_id_is_what_distribution_takes_for_a_thumbprint_then_the_key_is_found() -> None:
    x, y = (base64url(bytes.fromhex(number)) for number in (P256_X, P256_Y))
    hashed = hashlib.sha256(f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'.encode()).digest()
    assert base64url(hashed) in trusted(private_key("ES256").public_key()).ids
    assert base64url(hashed) not in trusted(private_key("ES384").public_key()).ids
    x = jwk_of(private_key("EdDSA"))["x"]
    hashed = hashlib.sha256(f'{{"crv":"Ed25519","kty":"OTP","x":"{x}"}}'.encode()).digest()
    assert base64url(hashed) in trusted(private_key("EdDSA").public_key()).ids


def test_read_keys_when_a_set_has_keys_for_other_purposes_then_they_are_passed_over(tmp_path: Path) -> None:
    key = private_key("ES256")
    found = read_keys(
        "",
        jwks(
            tmp_path,
            jwk_of(key, kid="for encryption", use="enc"),
            jwk_of(key, kid="for wrapping", key_ops=["wrapKey"]),
            jwk_of(private_key("RS256"), kid="RSA for encryption", alg="RSA-OAEP"),
            {"kty": "EC", "crv": "secp256k1", "kid": "other curve", "x": "AA", "y": "AA"},
            {"kty": "from the future", "kid": "unknown"},
            jwk_of(key, kid="good", use="sig", alg="ES256"),
        ),
    )
    (only,) = found.candidates(None)
    assert only.ids[0] == "good"
    assert found.candidates("good") == (only,)


def test_read_keys_when_a_key_says_its_algorithm_then_it_verifies_by_that_alone(tmp_path: Path) -> None:
    secret = base64url(bytes(64))
    found = read_keys(
        "",
        jwks(
            tmp_path,
            jwk_of(private_key("RS256"), kid="any"),
            jwk_of(private_key("RS256"), kid="one", alg="PS384"),
            {"kty": "oct", "kid": "any secret", "k": secret},
            {"kty": "oct", "kid": "short secret", "k": base64url(bytes(40))},
            {"kty": "oct", "kid": "one secret", "k": secret, "alg": "HS512"},
        ),
    )
    algorithms = {name: set(found.candidates(name)[0].algorithms) for name in found.ids if len(name) < 20}
    assert algorithms == {
        "any": {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"},
        "one": {"PS384"},
        "any secret": {"HS256", "HS384", "HS512"},
        "short secret": {"HS256"},
        "one secret": {"HS512"},
    }


def test_read_keys_when_two_keys_have_one_kid_then_both_are_tried(tmp_path: Path) -> None:
    first, second = private_key("ES256"), private_key("ES256", 1)
    found = read_keys("", jwks(tmp_path, jwk_of(first, kid="same"), jwk_of(second, kid="same")))
    assert len(found.candidates("same")) == 2
    for key in (first, second):
        verifier(found).verify(signed(key, kid="same"))


def test_read_keys_when_a_set_has_private_keys_then_only_the_public_halves_are_kept(tmp_path: Path) -> None:
    entries = [
        RSAAlgorithm.to_jwk(private_key("RS256"), as_dict=True),
        ECAlgorithm.to_jwk(private_key("ES256"), as_dict=True),
        OKPAlgorithm.to_jwk(private_key("EdDSA"), as_dict=True),
    ]
    for key in read_keys("", jwks(tmp_path, *entries)).candidates(None):
        assert not hasattr(key.material, "private_numbers")
        assert not hasattr(key.material, "private_bytes")


def test_repr_of_a_secret_then_it_does_not_show_it(tmp_path: Path) -> None:
    secret = b"canary-canary-canary-canary-canary"
    found = read_keys("", jwks(tmp_path, {"kty": "oct", "kid": "s", "k": base64url(secret)}))
    shown = repr(found) + repr(found.candidates("s")) + str(vars(found))
    assert "canary" not in shown
    assert base64url(hashlib.sha256(secret).digest()) not in shown


def test_read_keys_when_both_files_are_given_then_both_count(tmp_path: Path) -> None:
    found = read_keys(
        bundle(tmp_path, pem(certificate(private_key("RS256")))), jwks(tmp_path, jwk_of(private_key("ES256")))
    )
    assert len(found.candidates(None)) == 2


CERTIFICATE = b"-----BEGIN CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "there is no certificate in it"),
        (b"\x00\xff" * 100, "there is no certificate in it"),
        (CERTIFICATE, "one of its certificates is damaged"),
        (CERTIFICATE + b"MIIB\n-----END CERTIFICATE-----\n", "one of its certificates is damaged"),
        (b"x" * (FILE_BYTES_MAX + 1), "larger than 1048576 bytes"),
    ],
)
def test_read_keys_when_the_bundle_is_no_good_then_one_sentence_names_the_file(
    tmp_path: Path, content: bytes, why: str
) -> None:
    name = bundle(tmp_path, content)
    assert refusal(name).startswith(f"{name}: {why}")


@pytest.mark.parametrize("serial", [0x00, 0x80])
def test_read_keys_when_gitlab_made_the_certificate_then_it_is_read_without_a_word(
    tmp_path: Path, serial: int
) -> None:
    """Its serial number is 0, of which the library warns that it will not read it some day."""
    key = private_key("RS256")
    der = altered(certificate(key, serial=1), b"\x02\x01\x01", bytes([2, 1, serial]))
    found = read_keys(bundle(tmp_path, pem_of(der)), "")
    verifier(found).verify(signed(key, alg="RS256", kid=libtrust_id(key.public_key())))


def test_read_keys_when_a_certificate_is_of_an_unknown_version_then_it_is_damaged(tmp_path: Path) -> None:
    der = altered(certificate(private_key("RS256")), b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x2a")
    name = bundle(tmp_path, pem_of(der))
    assert refusal(name) == f"{name}: one of its certificates is damaged"


def pem_of(der: bytes) -> bytes:
    return CERTIFICATE + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


def test_read_keys_when_one_certificate_of_several_is_damaged_then_none_is_used(tmp_path: Path) -> None:
    good = pem(certificate(private_key("RS256")))
    assert "damaged" in refusal(bundle(tmp_path, good + good.replace(b"MII", b"AAA")))


def test_read_keys_when_the_bundle_is_a_private_key_then_it_is_refused_without_a_word_of_it(
    tmp_path: Path,
) -> None:
    content = private_key("RS256").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    said = refusal(bundle(tmp_path, content))
    assert "there is no certificate in it" in said
    assert content.splitlines()[1].decode() not in said


def test_read_keys_when_the_only_certificates_key_is_too_short_or_strange_then_it_says_so(
    tmp_path: Path,
) -> None:
    short = rsa.generate_private_key(65537, 1024)
    assert "1024 bits is too short; 2048" in refusal(bundle(tmp_path, pem(certificate(short))))
    strange: Any = ec.generate_private_key(ec.SECP256K1())
    assert "of a kind that is not accepted" in refusal(bundle(tmp_path, pem(certificate(strange))))
    with pytest.raises(ValueError, match="of a kind"):
        trusted(ed448.Ed448PrivateKey.generate().public_key())


def test_read_keys_when_a_file_is_not_there_then_it_names_it(tmp_path: Path) -> None:
    for arguments in ((str(tmp_path / "none"), ""), ("", str(tmp_path / "none"))):
        assert refusal(*arguments) == f"{tmp_path / 'none'}: No such file or directory"
    assert refusal(str(tmp_path)).endswith("Is a directory")


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ("", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[]", "it is not a JSON Web Key Set"),
        ("{}", "it is not a JSON Web Key Set"),
        ('{"keys": {}}', "it is not a JSON Web Key Set"),
        ('{"keys": []}', "there is no key that could verify a token"),
        ('{"keys": [7]}', "key 1: it is not a JSON object"),
        ('{"keys": [{}]}', "key 1: its `kty` is not a string"),
        ('{"keys": [{"kty": ["RSA"]}]}', "key 1: its `kty` is not a string"),
        ('{"keys": [{"kty": "RSA"}]}', "key 1: it is not a proper key of the type RSA"),
        ('{"keys": [{"kty": "RSA", "n": 7, "e": "AQAB"}]}', "key 1: it is not a proper key of the type RSA"),
        ('{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}', "key 1: it is not a proper key"),
        ('{"keys": [{"kty": "EC", "crv": ["P-256"], "x": "AA", "y": "AA"}]}', "there is no key"),
        ('{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AA"}]}', "key 1: it is not a proper key"),
        ('{"keys": [{"kty": "oct"}]}', "key 1: it is not a proper key of the type oct"),
        ('{"keys": [{"kty": "oct", "k": ""}]}', "key 1: it is not a proper key of the type oct"),
        ('{"keys": [{"kty": "oct", "k": "c2hvcnQ"}]}', "key 1: a secret of 5 bytes is too short"),
    ],
)
def test_read_keys_when_the_set_is_no_good_then_one_sentence_names_the_file(
    tmp_path: Path, document: str, why: str
) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(document)
    assert refusal(jwks=str(file)).startswith(f"{file}: {why}")


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ({"kid": 7}, "its `kid` is not a string"),
        ({"alg": "RS256"}, "it is said to be for RS256, which it cannot be used for"),
        ({"alg": "HS256"}, "it is said to be for HS256, which it cannot be used for"),
    ],
)
def test_read_keys_when_a_key_says_something_wrong_of_itself_then_the_file_is_refused(
    tmp_path: Path, key: dict[str, Any], why: str
) -> None:
    assert refusal(jwks=jwks(tmp_path, jwk_of(private_key("ES256"), **key))).endswith(f"key 1: {why}")
