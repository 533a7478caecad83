"""A token service outside the registry, which answers as GitLab's `/jwt/auth` does.

    with outside(tmp_path, users={"alice": "secret"}, projects=[Project("team/app", {"alice": EVERYTHING})]) as issuer:
        with serve(tmp_path / "data", **issuer.settings()) as registry:
            ...

It knows one form, GET with Basic credentials or none; its answers hold a `token` and nothing else; tokens are signed
with RS256 and name the key by its libtrust id. It shares no code with what verifies them. What it was asked is kept in
`asked`. Its key is changed in steps, as an administrator does: `prepare_key`, `use_new_key`, `forget_old_key`.
"""

from __future__ import annotations

import base64
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence
    from pathlib import Path

NAME: Final = "gitlab-issuer"
SERVICE: Final = "container_registry"
EVERYTHING: Final = ("pull", "push", "delete")
_EARLIER_SECONDS: Final = 5


@dataclass(frozen=True)
class Project:
    """A project, whose repositories are at its path and below. `members` says who may do what there."""

    path: str
    members: Mapping[str, Sequence[str]] = field(default_factory=dict[str, "Sequence[str]"])
    is_public: bool = False
    number: int = 1
    tag_deny_access_patterns: Mapping[str, Sequence[str]] | None = None
    tag_immutable_patterns: Sequence[str] | None = None

    def holds(self, repository: str) -> bool:
        return repository == self.path or repository.startswith(f"{self.path}/")

    def allowed(self, user: str, wanted: Iterable[str]) -> list[str]:
        """What of it the user may do: to pull what is public, everybody; `*`, whoever may do everything."""
        rights = {*self.members.get(user, ()), *(["pull"] if self.is_public else [])}
        rights |= {"*"} if rights.issuperset(EVERYTHING) else set()
        return [action for action in wanted if action in rights]

    def meta(self) -> dict[str, Any]:
        patterns = {
            "tag_deny_access_patterns": self.tag_deny_access_patterns,
            "tag_immutable_patterns": self.tag_immutable_patterns,
        }
        return {
            "project_path": self.path.lower(),
            "project_id": self.number,
            "root_namespace_id": 1000 + self.number,
            **{name: value for name, value in patterns.items() if value is not None},
        }


@dataclass(frozen=True)
class Asked:
    """A request and how it was answered. `user` is empty without credentials, and with wrong ones."""

    method: str
    service: str
    scopes: tuple[str, ...]
    account: str
    client_id: str
    user: str
    status: int


class _Answer(NamedTuple):
    status: int
    document: dict[str, Any]
    user: str = ""


class Pair:
    """A key and a certificate that it has signed itself."""

    def __init__(self, common_name: str) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder(name, name, self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(self._key, SHA256())
        )
        self.certificate: Final = certificate.public_bytes(Encoding.PEM).decode()
        der = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        text = base64.b32encode(sha256(der).digest()[:30]).decode()
        self.kid: Final = ":".join(text[at : at + 4] for at in range(0, 48, 4))

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A token of these claims (RFC 7515, compact)."""
        header = {"typ": "JWT", "alg": "RS256", "kid": self.kid}
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in (header, dict(claims)))
        return f"{signed}.{_encoded(self._key.sign(signed.encode(), padding.PKCS1v15(), SHA256()))}"


class Issuer:
    """The service. `bundle` is the file of certificates that the registry is given."""

    def __init__(self, bundle: Path, users: Mapping[str, str], projects: Iterable[Project]) -> None:
        self.bundle: Final = bundle
        self.users: Final = dict(users)
        self.projects: Final = {project.path: project for project in projects}
        self.asked: Final[list[Asked]] = []
        self.seconds = 300
        self.url = ""
        self._pairs = [Pair("first")]
        self._current = self._pairs[0]
        self.write_bundle()

    @property
    def realm(self) -> str:
        return f"{self.url}/jwt/auth"

    def provider(self) -> dict[str, Any]:
        """What `auth` of the registry's settings is to hold."""
        bundle = str(self.bundle)
        return {"token": {"realm": self.realm, "service": SERVICE, "issuer": NAME, "rootcertbundle": bundle}}

    def settings(self) -> dict[str, str]:
        """The same as `tests.support.served.overrides` takes it."""
        return {"AUTH": json.dumps(self.provider())}

    # The keys.

    def prepare_key(self) -> Pair:
        """Have a new key trusted beside the one in use."""
        pair = Pair(f"number {len(self._pairs) + 1}")
        self._pairs.append(pair)
        self.write_bundle()
        return pair

    def use_new_key(self) -> None:
        self._current = self._pairs[-1]

    def forget_old_key(self) -> None:
        """Have the key in use trusted alone."""
        self._pairs = [self._current]
        self.write_bundle()

    def write_bundle(self) -> None:
        """Put the certificates in the place of whatever the file holds, as a whole."""
        new = self.bundle.with_suffix(".new")
        new.write_text("".join(pair.certificate for pair in self._pairs))
        new.replace(self.bundle)

    # The tokens.

    def token(self, user: str, *scopes: str, pair: Pair | None = None) -> str:
        """What the user gets who asks for these scopes, signed with the key in use unless `pair` is another."""
        pair, now = pair or self._current, int(time())
        nested = {"iss": NAME, "jti": str(uuid4()), "exp": now + self.seconds, "user_info": _user_info(user)}
        return pair.sign(
            {
                "iss": NAME,
                "aud": SERVICE,
                "sub": user,
                "jti": str(uuid4()),
                "iat": now,
                "nbf": now - _EARLIER_SECONDS,
                "exp": now + self.seconds,
                "auth_type": "personal_access_token" if user else "none",
                "access": self.access(user, scopes),
                **({"user": pair.sign(nested)} if user else {}),
            }
        )

    def access(self, user: str, scopes: Iterable[str]) -> list[dict[str, Any]]:
        """The claim. What is not allowed is left out without a word."""
        entries = (self._entry(user, *scope.split(":", 2)) for scope in scopes if scope.count(":") >= 2)
        return [entry for entry in entries if entry is not None]

    def _entry(self, user: str, kind: str, name: str, actions: str) -> dict[str, Any] | None:
        project = next((project for project in self.projects.values() if project.holds(name)), None)
        if kind != "repository" or project is None:
            return None
        allowed = project.allowed(user, actions.split(","))
        entry = {"type": kind, "name": name, "actions": allowed, "meta": project.meta()}
        return entry if allowed else None

    # The requests.

    def answer(self, method: str, target: str, authorization: str | None) -> _Answer:
        """Answer a request, and remember it."""
        query = parse_qs(urlsplit(target).query)
        one = {name: values[0] for name, values in query.items()}
        scopes = tuple(scope for value in query.get("scope", []) for scope in value.split())
        answer = self._answer(method, urlsplit(target).path, one.get("service", ""), scopes, authorization)
        self.asked.append(
            Asked(
                method,
                one.get("service", ""),
                scopes,
                one.get("account", ""),
                one.get("client_id", ""),
                answer.user,
                answer.status,
            )
        )
        return answer

    def _answer(
        self, method: str, path: str, service: str, scopes: Sequence[str], authorization: str | None
    ) -> _Answer:
        if (method, path, service) != ("GET", "/jwt/auth", SERVICE):
            return _Answer(404, {"message": "404 Not Found"})
        user = self._user(authorization)
        if user is None:
            return _Answer(401, _error("UNAUTHORIZED", "HTTP Basic: Access denied"))
        if not self.access(user, scopes) if scopes else not user:
            return _Answer(403, _error("DENIED", "access forbidden"), user)
        return _Answer(200, {"token": self.token(user, *scopes)}, user)

    def _user(self, authorization: str | None) -> str | None:
        """Who it is: nobody in particular without credentials, and None with wrong ones."""
        if authorization is None:
            return ""
        name, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        is_right = compare_digest(self.users.get(name, "").encode(), password.encode())
        return name if name in self.users and is_right else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, issuer: Issuer, *request: Any) -> None:
        self._issuer = issuer
        super().__init__(*request)

    def do_GET(self) -> None:
        answer = self._issuer.answer(self.command, self.path, self.headers.get("Authorization"))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.dumps(answer.document).encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815  (http.server's name)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (http.server's name)
        """Say nothing: `Issuer.asked` has it all."""


@contextmanager
def outside(directory: Path, users: Mapping[str, str], projects: Iterable[Project]) -> Generator[Issuer]:
    """The service, on a port of its own, with its bundle in the directory."""
    issuer = Issuer(directory / "bundle.pem", users, projects)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, issuer))
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _user_info(user: str) -> dict[str, Any]:
    return {"token_type": "personal_access_token", "username": user, "user_id": sum(user.encode())}


def _error(code: str, message: str) -> dict[str, Any]:
    return {"errors": [{"code": code, "message": message}]}


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
