"""What tokens call the key that they are signed with. An id says which keys to try, and proves nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

if TYPE_CHECKING:
    from collections.abc import Mapping

PublicKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


def thumbprint(public_key: PublicKey) -> str:
    """The key's id by RFC 7638."""
    return _jwk_hash(_members(public_key))


def libtrust_id(public_key: PublicKey) -> str:
    """The key's id in GitLab's tokens, in those of Distribution 2 and of most token services."""
    der = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    text = base64.b32encode(hashlib.sha256(der).digest()[:30]).decode()
    return ":".join(text[at : at + 4] for at in range(0, len(text), 4))


def distribution_id(public_key: PublicKey) -> str | None:
    """What Distribution 3 takes for the thumbprint, and token services that follow it, where it is another.

    For a curve it hashes the curve's generator in place of the key's point, so that all keys of a curve share one
    id; for Ed25519 it writes OTP for OKP. An id only says which keys to try.
    """
    members = _members(public_key)
    if isinstance(public_key, ed25519.Ed25519PublicKey):
        return _jwk_hash({**members, "kty": "OTP"})
    if isinstance(public_key, rsa.RSAPublicKey):
        return None
    point = ec.derive_private_key(1, public_key.curve).public_key().public_numbers()
    return _jwk_hash({**members, "x": _number(point.x), "y": _number(point.y)})


def _number(value: int) -> str:
    data = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _members(public_key: PublicKey) -> dict[str, str]:
    if isinstance(public_key, rsa.RSAPublicKey):
        whole, names = RSAAlgorithm.to_jwk(public_key, as_dict=True), ("e", "kty", "n")
    elif isinstance(public_key, ec.EllipticCurvePublicKey):
        whole, names = ECAlgorithm.to_jwk(public_key, as_dict=True), ("crv", "kty", "x", "y")
    else:
        whole, names = OKPAlgorithm.to_jwk(public_key, as_dict=True), ("crv", "kty", "x")
    return {name: whole[name] for name in names}


def _jwk_hash(members: Mapping[str, str]) -> str:
    text = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
