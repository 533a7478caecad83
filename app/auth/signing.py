"""The key that the built-in token service signs with: a PEM file that only this replica needs to read.

The file is made once, whole, with mode 600; however many processes start at once, one makes it and all read the same.
A key signs with the one algorithm that its kind has: P-256 ES256, P-384 ES384, P-521 ES512, Ed25519 EdDSA, RSA RS256.
To sign a token takes about 0.1 ms of processor time with ES256 and with EdDSA, 0.3 ms with ES384 and 2 ms with RS256.
To read an RSA key takes 0.1 s, since it is checked; the others take less than a millisecond.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from app.auth import secretfiles
from app.auth.key_ids import thumbprint
from app.auth.keys import RSA_BITS_MIN, KeyFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

FILE_BYTES_MAX: Final = 64 * 1024
_RSA_BITS: Final = 3072
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_NEW: Final[Mapping[str, Callable[[], PrivateKey]]] = {
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "EDDSA": ed25519.Ed25519PrivateKey.generate,
    "RS256": lambda: rsa.generate_private_key(65537, _RSA_BITS),
}


class SigningKey:
    """A private key. Nothing that is printed of it holds any of its secret."""

    def __init__(self, key: PrivateKey, algorithm: str) -> None:
        self._key: Final = key
        self.algorithm: Final = algorithm
        # RFC 7638.
        self.kid: Final = thumbprint(key.public_key())
        self.public_pem: Final = (
            key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        )

    def __repr__(self) -> str:
        return f"<SigningKey {self.kid} {self.algorithm}>"

    @property
    def private_pem(self) -> bytes:
        """What its file holds (PKCS#8)."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A token that says `claims`."""
        return jwt.encode(dict(claims), self._key, self.algorithm, {"typ": "JWT", "kid": self.kid})


def ensure_key(path: Path, algorithm: str) -> bool:
    """Make the file with a new key if there is none; returns whether this call did. Raises KeyFileError.

    `algorithm` is ES256, ES384, EdDSA or RS256 (of 3,072 bits), in any case. A key that is there stays as it is,
    whatever it signs with.
    """
    try:
        return not path.exists() and secretfiles.create(path, new_key(algorithm).private_pem)
    except OSError as error:
        raise KeyFileError(f"{path}: the key cannot be made: {secretfiles.reason(error)}") from error


def new_key(algorithm: str) -> SigningKey:
    """A key that is nowhere yet. Whoever must trust it is told before `write_key`."""
    return _signing_key(_NEW[algorithm.upper()]())


def write_key(path: Path, key: SigningKey) -> None:
    """Put the key in the place of the one that is there, of which nothing remains. Raises KeyFileError.

    Owner and group stay as they were, so that a rotation by root takes nothing from the service. Tokens of the old
    key hold as long as its public half is trusted.
    """
    try:
        secretfiles.replace(path, key.private_pem)
    except OSError as error:
        raise KeyFileError(f"{path}: the key cannot be replaced: {secretfiles.reason(error)}") from error


def read_signing_key(path: Path) -> SigningKey:
    """The key of the file. Raises KeyFileError, also where others on the machine could read it and need not."""
    key = _loaded(path, _content(path))
    try:
        return _signing_key(key)
    except ValueError as error:
        raise KeyFileError(f"{path}: {error}") from None


def _signing_key(key: object) -> SigningKey:
    """The key with its algorithm. Raises ValueError if it is none that may sign."""
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= RSA_BITS_MIN:
        return SigningKey(key, "RS256")
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return SigningKey(key, "EdDSA")
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return SigningKey(key, _CURVES[key.curve.name])
    raise ValueError(
        "its key is too weak or of a kind that cannot sign tokens; it may be on P-256, P-384 or P-521, an Ed25519 "
        f"key, or RSA of at least {RSA_BITS_MIN} bits"
    )


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            _check_private(path, file.fileno())
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise KeyFileError(f"{path}: the key cannot be read: {error.strerror}") from error
    if len(content) > FILE_BYTES_MAX:
        raise KeyFileError(f"{path}: larger than {FILE_BYTES_MAX // 1024} KiB, so hardly a key")
    return content


def _check_private(path: Path, descriptor: int) -> None:
    """Refuse what anybody on the machine can read or write, if the operator can change that.

    A mounted secret is read-only or belongs to somebody else, and its mode is the orchestrator's (0644 as a rule).
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError(f"{path}: not a regular file")
    is_ours = status.st_uid == os.geteuid() and not os.fstatvfs(descriptor).f_flag & os.ST_RDONLY
    if is_ours and status.st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise KeyFileError(
            f"{path}: everybody on this machine can read or change the key; run: chmod 600 {path}"
        )


def _loaded(path: Path, content: bytes) -> object:
    try:
        return load_pem_private_key(content, None)
    except TypeError:
        raise KeyFileError(
            f"{path}: protected by a password, which nobody is there to type; take it off with `openssl pkey`"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError(f"{path}: there is no private key in it that can be read (PEM, PKCS#8)") from None
