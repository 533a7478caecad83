"""Certificates for tests, made in a moment: roots, intermediates, and who they vouch for."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Identity:
    """A certificate and its key. `chain` is what a server sends, in PEM: itself and the intermediates above it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: bytes

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def issue(self, name: str, *, ca: bool = False) -> Identity:
        """One that this one has signed: for localhost, or a CA."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _signed(name, key, self.certificate.subject, self.key, ca=ca)
        above = b"" if self.certificate.issuer == self.certificate.subject else self.chain
        return Identity(certificate, key, certificate.public_bytes(Encoding.PEM) + above)

    def written(self, directory: Path, name: str) -> dict[str, str]:
        """Chain and key as files, by the names that the settings have for them."""
        files = {"certificate": directory / f"{name}.crt", "key": directory / f"{name}.key"}
        replace(files["certificate"], self.chain)
        replace(files["key"], self.key_pem)
        return {setting: str(file) for setting, file in files.items()}


def root(name: str) -> Identity:
    """A CA of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _signed(name, key, _named(name), key, ca=True)
    return Identity(certificate, key, certificate.public_bytes(Encoding.PEM))


def replace(file: Path, content: bytes) -> None:
    """Put a file in the place of another at once, as certbot and editors do."""
    fresh = file.with_name(f"{file.name}.fresh")
    fresh.write_bytes(content)
    os.replace(fresh, file)  # noqa: PTH105


def _signed(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Name, by: ec.EllipticCurvePrivateKey, *, ca: bool
) -> x509.Certificate:
    now = datetime.now(UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    builder = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(by, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
