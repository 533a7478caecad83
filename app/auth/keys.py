"""The keys that tokens may be verified with.

A key comes from a file of the operator's or from the registry's own database, never from a token. What it may verify
is decided when it is read: an RSA key RS* and PS*, a curve its own ES*, Ed25519 EdDSA, a secret of a JSON Web Key Set
HS*. So no token can choose to have a public key taken for a secret, and a certificate can never verify HS*.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import jwt
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

from app.auth import chains
from app.auth.key_ids import PublicKey, distribution_id, libtrust_id, thumbprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

FILE_BYTES_MAX: Final = 1024 * 1024
# RFC 7518, 3.3.
RSA_BITS_MIN: Final = 2048
# RFC 7518, 3.2: a secret is at least as long as the hash.
_SECRET_BYTES_MIN: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
ALGORITHMS: Final = (*_CURVES.values(), *_RSA, "EdDSA", *_SECRET_BYTES_MIN)

_FROM_JWK: Final[Mapping[str, Callable[[dict[str, Any]], Any]]] = {
    "RSA": RSAAlgorithm.from_jwk,
    "EC": ECAlgorithm.from_jwk,
    "OKP": OKPAlgorithm.from_jwk,
    "oct": HMACAlgorithm.from_jwk,
}


_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})


class KeyFileError(Exception):
    """A file of keys that cannot be used. The text is a sentence for the operator."""


class KeyUnusableError(ValueError):
    """A key that is no good for verifying tokens. The text is a clause that says why."""


@dataclass(frozen=True, eq=False)
class TrustedKey:
    """A public key or a secret, what it may be called by tokens, and what it may verify."""

    material: PublicKey | bytes = field(repr=False)
    ids: tuple[str, ...]
    algorithms: frozenset[str]


class KeySet:
    """Keys, and the certificates up to which those that a token brings must lead. It never changes."""

    def __init__(self, keys: Iterable[TrustedKey], roots: Iterable[x509.Certificate] = ()) -> None:
        self._keys: Final = tuple(keys)
        self._roots: Final = tuple(roots)
        by_id: dict[str, tuple[TrustedKey, ...]] = {}
        for key in self._keys:
            for name in key.ids:
                by_id[name] = (*by_id.get(name, ()), key)
        self._by_id: Final = by_id

    def candidates(self, kid: str | None) -> Sequence[TrustedKey]:
        """The keys of that id; all of them if the token gives none."""
        return self._keys if kid is None else self._by_id.get(kid, ())

    @property
    def ids(self) -> Sequence[str]:
        """What tokens may call the keys."""
        return tuple(self._by_id)

    @property
    def follows_certificates(self) -> bool:
        """Whether there is anything that the certificates of a token could lead to."""
        return bool(self._roots)

    def certified(self, chain: Sequence[bytes], now: float) -> tuple[TrustedKey, float]:
        """The key of the first certificate, if they lead to one that is trusted, and until when they do.

        Raises TokenRefused.
        """
        leaf, until = chains.verified(chain, self._roots, now)
        try:
            return trusted(leaf.public_key()), until
        except (KeyUnusableError, UnsupportedAlgorithm, ValueError):
            raise chains.refused(
                "the signer's certificate has a key of a kind that is not accepted"
            ) from None


def read_keys(rootcertbundle: str, jwks: str) -> KeySet:
    """The keys of the files; a name may be empty. Raises KeyFileError."""
    roots = _certificates(rootcertbundle) if rootcertbundle else ()
    keys = [*_certified_keys(rootcertbundle, roots), *(_set_keys(jwks) if jwks else ())]
    if not keys:
        names = " and ".join(filter(None, (rootcertbundle, jwks)))
        raise KeyFileError(f"{names}: there is no key that could verify a token")
    return KeySet(keys, roots)


def trusted(public_key: object, *, kid: str | None = None, algorithm: str | None = None) -> TrustedKey:
    """The public key, for all that it may verify or for `algorithm` alone. Raises KeyUnusableError."""
    possible = _verifiable(public_key)
    key = cast("PublicKey", public_key)
    names = (kid, thumbprint(key), libtrust_id(key), distribution_id(key))
    return TrustedKey(
        key, tuple(dict.fromkeys(name for name in names if name)), _narrowed(possible, algorithm)
    )


def _verifiable(key: object) -> frozenset[str]:
    """The algorithms that the key is for. Raises KeyUnusableError."""
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < RSA_BITS_MIN:
            raise KeyUnusableError(
                f"an RSA key of {key.key_size} bits is too short; {RSA_BITS_MIN} are needed"
            )
        return frozenset(_RSA)
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return frozenset({_CURVES[key.curve.name]})
    if isinstance(key, ed25519.Ed25519PublicKey):
        return frozenset({"EdDSA"})
    if isinstance(key, bytes):
        if len(key) < min(_SECRET_BYTES_MIN.values()):
            raise KeyUnusableError(f"a secret of {len(key)} bytes is too short; HS256 needs 32")
        return frozenset(name for name, least in _SECRET_BYTES_MIN.items() if len(key) >= least)
    raise KeyUnusableError(
        "it is of a kind that is not accepted; expected RSA, P-256, P-384, P-521 or Ed25519"
    )


def _narrowed(possible: frozenset[str], algorithm: str | None) -> frozenset[str]:
    if algorithm is None:
        return possible
    if algorithm not in possible:
        raise KeyUnusableError(f"it is said to be for {algorithm}, which it cannot be used for")
    return frozenset({algorithm})


def _read(name: str) -> bytes:
    try:
        with Path(name).open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise KeyFileError(f"{name}: {error.strerror or error}") from error
    if len(data) > FILE_BYTES_MAX:
        raise KeyFileError(f"{name}: larger than {FILE_BYTES_MAX} bytes, so hardly a file of keys")
    return data


def _certificates(name: str) -> Sequence[x509.Certificate]:
    data = _read(name)
    if b"-----BEGIN CERTIFICATE-----" not in data:
        raise KeyFileError(f"{name}: there is no certificate in it (-----BEGIN CERTIFICATE-----)")
    try:
        with chains.unwarned():
            return x509.load_pem_x509_certificates(data)
    except chains.UNREADABLE:
        raise KeyFileError(f"{name}: one of its certificates is damaged") from None


def _certified_keys(name: str, roots: Sequence[x509.Certificate]) -> Iterable[TrustedKey]:
    """The keys of the certificates. One that tokens cannot be signed with may still issue certificates."""
    for number, certificate in enumerate(roots, 1):
        try:
            yield trusted(certificate.public_key())
        except (KeyUnusableError, UnsupportedAlgorithm, ValueError) as error:
            if len(roots) == 1:
                raise KeyFileError(f"{name}: certificate {number}: {error}") from None


def _set_keys(name: str) -> Iterable[TrustedKey]:
    try:
        whole = json.loads(_read(name))
    except (ValueError, RecursionError):
        raise KeyFileError(f"{name}: it is not JSON") from None
    entries = cast("Any", whole).get("keys") if isinstance(whole, dict) else None
    if not isinstance(entries, list):
        raise KeyFileError(f'{name}: it is not a JSON Web Key Set: expected {{"keys": […]}}')
    for number, entry in enumerate(cast("list[Any]", entries), 1):
        try:
            key = from_jwk(entry)
        except KeyUnusableError as error:
            raise KeyFileError(f"{name}: key {number}: {error}") from None
        if key is not None:
            yield key


def from_jwk(entry: Any) -> TrustedKey | None:
    """The key of a JSON Web Key; None if it is one for other purposes. Raises KeyUnusableError.

    Of a private key only the public half is kept. What others' sets hold beside keys for signatures, and kinds of
    keys that are not known here, is passed over (RFC 7517, 5).
    """
    if not isinstance(entry, dict):
        raise KeyUnusableError("it is not a JSON object")
    jwk = cast("dict[str, Any]", entry)
    if not isinstance(jwk.get("kty"), str):
        raise KeyUnusableError("its `kty` is not a string")
    if not _is_for_tokens(jwk):
        return None
    kid = jwk.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise KeyUnusableError("its `kid` is not a string")
    key = _material(jwk)
    if isinstance(key, bytes):
        return TrustedKey(key, (kid,) if kid else (), _narrowed(_verifiable(key), jwk.get("alg")))
    return trusted(key, kid=kid, algorithm=jwk.get("alg"))


def _is_for_tokens(jwk: Mapping[str, Any]) -> bool:
    operations = jwk.get("key_ops")
    return (
        jwk.get("use", "sig") == "sig"
        and (not isinstance(operations, list) or "verify" in operations or "sign" in operations)
        and jwk.get("alg") in (None, *ALGORITHMS)
        and jwk.get("kty") in _FROM_JWK
        and jwk.get("crv") in (None, "P-256", "P-384", "P-521", "Ed25519")
    )


def _material(jwk: dict[str, Any]) -> Any:
    """The public key, or the secret."""
    public = {name: value for name, value in jwk.items() if name not in _PRIVATE}
    try:
        return _FROM_JWK[jwk["kty"]](public)
    except (jwt.InvalidKeyError, KeyError, TypeError, ValueError, UnsupportedAlgorithm, AttributeError):
        raise KeyUnusableError(f"it is not a proper key of the type {jwk['kty']}") from None
