"""Tokens made by hand: keys, certificates, and compact JWS of whatever is asked for, also what nobody makes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from jwt.algorithms import get_default_algorithms

from app.auth.jwts import Verifier
from app.auth.keys import KeySet, trusted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

NOW: Final = 1_800_000_000.0
ISSUER: Final = "gitlab-issuer"
SERVICE: Final = "container_registry"
_CURVES: Final = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


@cache
def private_key(kind: str, number: int = 0) -> Any:
    """A private key of the algorithm; the same for the same number."""
    del number
    if kind in _CURVES:
        return ec.generate_private_key(_CURVES[kind])
    if kind == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 2048)


def certificate(
    key: PrivateKey,
    subject: str = "token signer",
    *,
    issuer: str | None = None,
    issuer_key: PrivateKey | None = None,
    ca: bool | None = None,
    signs_certificates: bool | None = None,
    days: tuple[float, float] = (-30, 30),
    now: float = NOW,
    serial: int | None = None,
) -> x509.Certificate:
    """A certificate, by its own key unless there is an issuer's. `days` is from when until when, from now."""
    moment = datetime.fromtimestamp(now, UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer or subject))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number() if serial is None else serial)
        .not_valid_before(moment + timedelta(days=days[0]))
        .not_valid_after(moment + timedelta(days=days[1]))
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if signs_certificates is not None:
        usage = dict.fromkeys(
            (
                *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
                *("crl_sign", "encipher_only", "decipher_only"),
            ),
            False,
        )
        builder = builder.add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=signs_certificates, **usage), critical=True
        )
    signer = issuer_key or key
    return builder.sign(signer, None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def altered(one: x509.Certificate, old: bytes, new: bytes) -> bytes:
    """The certificate in DER with other bytes in one place, which nobody has signed."""
    der = one.public_bytes(Encoding.DER)
    assert old in der
    assert len(old) == len(new)
    return der.replace(old, new, 1)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def x5c(*certificates: x509.Certificate) -> list[str]:
    """The certificates as a token's header has them."""
    return [base64.b64encode(one.public_bytes(Encoding.DER)).decode() for one in certificates]


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(**others: Any) -> dict[str, Any]:
    """Claims that are accepted, with others over them; `...` takes one away."""
    usual = {
        "iss": ISSUER,
        "aud": SERVICE,
        "sub": "alice",
        "iat": int(NOW),
        "nbf": int(NOW) - 5,
        "exp": int(NOW) + 300,
        "jti": "b6e6c8f6",
        "access": [access("team/app", "pull", "push")],
    }
    return {name: value for name, value in (usual | others).items() if value is not ...}


def access(name: str, *actions: str, type: str = "repository", **others: Any) -> dict[str, Any]:  # noqa: A002
    return {"type": type, "name": name, "actions": [*actions], **others}


def raw(header: Mapping[str, Any] | bytes, body: Mapping[str, Any] | bytes) -> str:
    """What is signed: two segments."""
    segments = (one if isinstance(one, bytes) else json.dumps(one).encode() for one in (header, body))
    return ".".join(map(base64url, segments))


def signed(
    key: Any,
    body: Mapping[str, Any] | bytes | None = None,
    *,
    alg: str = "ES256",
    kid: str | None = None,
    header: Mapping[str, Any] | bytes | None = None,
    **others: Any,
) -> str:
    """A token by the key, with this header or a usual one, and these others in it."""
    usual = {"typ": "JWT", "alg": alg} | ({} if kid is None else {"kid": kid}) | others
    text = raw(usual if header is None else header, claims() if body is None else body)
    return f"{text}.{base64url(signature(key, alg, text.encode()))}"


def signature(key: Any, alg: str, text: bytes) -> bytes:
    if alg.startswith("HS"):
        # By hand, so that the key may be anything.
        return hmac.new(key, text, getattr(hashlib, f"sha{alg[2:]}")).digest()
    return get_default_algorithms()[alg].sign(text, key)


@dataclass
class Clock:
    """A clock that stands still."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


def key_set(*keys: PrivateKey, roots: tuple[x509.Certificate, ...] = ()) -> KeySet:
    """The public halves."""
    return KeySet([trusted(key.public_key()) for key in keys], roots)


def verifier(keys: KeySet | Callable[[], KeySet], **others: Any) -> Verifier:
    source = (lambda: keys) if isinstance(keys, KeySet) else keys
    return Verifier(source, **{"issuer": ISSUER, "service": SERVICE, "now": Clock()} | others)
