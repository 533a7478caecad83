"""What these tests share: the registry as `serve` wires it, with access control, in this process and as a server.

async with guarded(database, tmp_path, {"issuer": {"key": str(tmp_path / "key.pem")}}) as registry:
    await add_account(registry.database, "alice", "a password", {"team-a/**": "pull,push"})
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import httpx
import jwt
from argon2 import PasswordHasher
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from prometheus_client import CollectorRegistry

from app.auth.passwords import hash_secret
from app.config import load
from app.domain.access import Action
from app.runtime.metrics import Metrics
from app.store import accounts, grants
from app.wiring.serving import assemble
from tests.support.postgres import create, drop
from tests.support.registry import Registry, Seen
from tests.support.served import serve

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterable, Mapping
    from pathlib import Path

    from app.store.accounts import Kind
    from app.store.engine import Connection, Database, Target
    from tests.support.served import Served

TEMPLATE: Final = "registry_template"
SERVICE, ISSUER, REALM = "the-registry", "the-issuer", "https://tokens.test/token"

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = r'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_PARAMETER: Final = re.compile(rf"({_WORD})=({_QUOTED})")
_CHALLENGE: Final = re.compile(rf"({_WORD}) ({_WORD}={_QUOTED}(?:,{_WORD}={_QUOTED})*)")


def basic(name: str, password: str) -> str:
    """Credentials as RFC 7617 has them."""
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


class Outside:
    """A token service that is not ours. `directory` gets its key set."""

    def __init__(self, directory: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        public = {**ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True), "kid": "outside"}
        self.jwks = directory / "jwks.json"
        self.jwks.write_text(json.dumps({"keys": [public]}))

    def auth(self, **more: Any) -> dict[str, Any]:
        """The section `auth` of a registry that believes it."""
        keys = {"realm": REALM, "service": SERVICE, "issuer": ISSUER, "jwks": str(self.jwks)}
        return {"token": {**keys, **more}}

    def token(self, *access: dict[str, Any], **claims: Any) -> str:
        """A token that is good but for what `claims` changes."""
        now = int(time.time())
        usual = {"iss": ISSUER, "aud": SERVICE, "sub": "alice", "nbf": now - 5, "exp": now + 3600}
        return jwt.encode({**usual, "access": list(access), **claims}, self._key, "ES256", {"kid": "outside"})


def entry(name: str, *actions: str) -> dict[str, Any]:
    """An entry of a token's `access`."""
    return {"type": "repository", "name": name, "actions": list(actions)}


@asynccontextmanager
async def guarded(
    target: Target,
    root: Path,
    auth: Mapping[str, Any],
    *,
    counted: CollectorRegistry | None = None,
    **sections: Any,
) -> AsyncGenerator[Registry]:
    """The registry that `serve` would run with this section `auth`, on `target` and the directory `root`.

    `counted` takes its metrics.
    """
    tree: dict[str, Any] = {
        "http": {"addr": "127.0.0.1:0"},
        "storage": {"filesystem": {"rootdirectory": str(root)}, "delete": {"enabled": True}},
        "database": database_section(target),
        "auth": auth,
        **sections,
    }
    settings = load(None, {}, base=tree).settings
    if settings.auth.provider != "none":
        from app.wiring.access import prepare  # noqa: PLC0415  (as `serve` does it)

        prepare(settings)
    assembly = await assemble(settings, Metrics(counted or CollectorRegistry()))
    try:
        transport = httpx.ASGITransport(app=assembly.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://registry.test") as client:
            services = assembly.app._services  # pyright: ignore[reportPrivateUsage]
            yield Registry(assembly.app, client, services, assembly.database, assembly.driver, target, Seen())
    finally:
        await assembly.close()


def database_section(target: Target) -> dict[str, Any]:
    known = {name: value for name, value in asdict(target).items() if name in {"host", "port", "user"}}
    return {**known, "dbname": target.database, "sslmode": "disable"}


def quick_hash(password: str) -> str:
    """A password's hash of the usual kind, that takes no time."""
    return PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(password)


async def add_account(
    database: Database,
    name: str,
    secret: str,
    granted: Mapping[str, str] | None = None,
    *,
    kind: Kind = "person",
    is_admin: bool = False,
) -> int:
    """A new account, with actions by pattern; the empty pattern is the catalog's."""
    hashed = quick_hash(secret) if kind == "person" else hash_secret(secret)

    async def add(c: Connection) -> int:
        account = await accounts.add(c, name, kind, is_admin=is_admin, secret_hash=hashed)
        await _grant(c, account, granted or {})
        return account

    return await database.write(add)


async def grant_everybody(database: Database, granted: Mapping[str, str]) -> None:
    await database.write(lambda c: _grant(c, None, granted))


async def _grant(c: Connection, account: int | None, granted: Mapping[str, str]) -> None:
    for pattern, actions in granted.items():
        await grants.add(c, account, pattern, [Action(action) for action in actions.split(",")])


class Challenge(NamedTuple):
    """A parsed challenge (RFC 9110 §11.3)."""

    scheme: str
    parameters: dict[str, str]


def challenge_of(header: str) -> Challenge:
    """The one challenge that the header is, to its last byte. Fails if it is anything else."""
    found = _CHALLENGE.fullmatch(header)
    assert found is not None, f"no challenge: {header!r}"
    pairs = _PARAMETER.findall(found[2])
    parameters = {key: re.sub(r"\\(.)", r"\1", value[1:-1]) for key, value in pairs}
    assert len(parameters) == len(pairs), f"a parameter twice: {header!r}"
    return Challenge(found[1], parameters)


@contextmanager
def running(
    server: Target, name: str, directory: Path, auth: Mapping[str, Any], **settings: str
) -> Generator[Served]:
    """A real server of one worker with a database of its own, which is dropped at the end. Needs the template."""
    target = asyncio.run(create(server, name, template=TEMPLATE))
    given = {f"DATABASE_{key.upper()}": str(value) for key, value in database_section(target).items()}
    given |= {"HTTP_WORKERS": "1", "AUTH": json.dumps(auth), **settings}
    try:
        with serve(directory / "data", words=None, logs=None, client=None, **given) as served:
            yield served
    finally:
        asyncio.run(drop(server, name))


def spellings(secret: str) -> Iterable[bytes]:
    """The secret as it may turn up: as it is, percent-encoded, in base64 at any of three places, in hex."""
    raw = secret.encode()
    yield raw
    yield "".join(f"%{byte:02X}" for byte in raw).encode()
    yield raw.hex().encode()
    for before in range(3):
        # What stands around it decides the first and last characters.
        encoded = base64.b64encode(b"\0" * before + raw)
        yield encoded[4 if before else 0 : -4]


# What an administrator does to alice, whose account has the id `number`, so that her password is of no use.


async def disable(registry: Registry, number: int) -> None:
    await registry.database.write(lambda c: accounts.set_disabled(c, "alice", is_disabled=True))


async def change_password(registry: Registry, number: int) -> None:
    await registry.database.write(lambda c: accounts.set_password(c, number, quick_hash("another one")))


async def remove(registry: Registry, number: int) -> None:
    await registry.database.write(lambda c: accounts.remove(c, "alice"))
