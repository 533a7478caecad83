"""A token service outside of both registries, as far as they know one: its certificate, and a token that it has signed.

Signed as GitLab does (RS256, libtrust's id for the key), with the claims that GitLab writes; but it holds for longer
than any run, so that what is measured is its use and nothing else.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from app.auth.key_ids import libtrust_id

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_REALM: Final = "http://127.0.0.1/jwt/auth"
_SERVICE: Final = "container_registry"
_NAME: Final = "gitlab-issuer"
_EARLIER: Final = timedelta(seconds=5)
_VALID: Final = timedelta(days=1)


class OutsideIssuer:
    """See the module. The certificate lies in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._key: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._certificate: Final = directory / "outside.pem"
        self._certificate.write_bytes(self._certified())

    def settings(self) -> dict[str, str]:
        """The keys of `auth.token`."""
        return {
            "realm": _REALM,
            "service": _SERVICE,
            "issuer": _NAME,
            "rootcertbundle": str(self._certificate),
        }

    def headers(self, repository: str) -> dict[str, str]:
        """What lets a client pull from the repository and push to it."""
        return {"Authorization": f"Bearer {self.token(repository, ('pull', 'push'))}"}

    def token(self, repository: str, actions: Sequence[str]) -> str:
        """A token that allows that."""
        now = datetime.now(UTC)
        claims: dict[str, Any] = {
            "iss": _NAME,
            "aud": _SERVICE,
            "sub": "bench",
            "jti": str(uuid4()),
            "iat": now,
            "nbf": now - _EARLIER,
            "exp": now + _VALID,
            "auth_type": "gitlab_or_ldap",
            "access": [
                {
                    "type": "repository",
                    "name": repository,
                    "actions": list(actions),
                    "meta": {"project_path": repository, "project_id": 1, "root_namespace_id": 1},
                }
            ],
        }
        kid = libtrust_id(self._key.public_key())
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": kid})

    def _certified(self) -> bytes:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _NAME)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder(name, name, self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _EARLIER)
            .not_valid_after(now + _VALID)
            .sign(self._key, SHA256())
        )
        return certificate.public_bytes(Encoding.PEM)
