"""Registries that ask who somebody is: with the built-in token service, and with one outside. The people are the same.

alice may do everything in team/ and public/, bob may pull from team/, carol may do everything in hidden/, and
everybody may pull from public/.
"""

from __future__ import annotations

import asyncio
import io
import re
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import httpx

from app.auth.passwords import hash_password
from app.cli import run
from app.config import load
from app.domain.access import Action
from app.store import accounts, grants
from app.wiring.parts import open_database
from tests.support.images import Package
from tests.support.issuer import EVERYTHING, SERVICE, Project, outside
from tests.support.processes import wait_for
from tests.support.served import serve

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from app.store.engine import Connection
    from tests.support.issuer import Issuer
    from tests.support.registry import Image
    from tests.support.served import Served

PASSWORDS: Final = {name: f"the password of {name}" for name in ("alice", "bob", "carol")}
PROJECTS: Final = (
    Project("team", {"alice": EVERYTHING, "bob": ["pull"]}, number=1),
    Project("public", {"alice": EVERYTHING}, is_public=True, number=2),
    Project("hidden", {"carol": EVERYTHING}, number=3),
)
_SETTINGS: Final[dict[str, Any]] = {
    "HTTP_WORKERS": "1",
    "GC_DISABLED": "true",
    "LOG_ACCESSLOG": "{disabled: false, formatter: text}",
}
_REFUSAL: Final = re.compile("denied|unauthorized|forbidden|invalid username", re.IGNORECASE)


@dataclass(frozen=True)
class Guarded:
    """A registry that asks, and where tokens for it are. `issuer` is None where it issues them itself."""

    registry: Served
    realm: str
    service: str
    issuer: Issuer | None = None

    @property
    def address(self) -> str:
        return self.registry.address

    def token(self, user: str, *scopes: str) -> str:
        """A token with what the user gets of these scopes; for anybody if `user` is empty."""
        answer = httpx.get(
            self.realm,
            params={"service": self.service, "scope": scopes},
            auth=(user, PASSWORDS[user]) if user else None,
            trust_env=False,
        )
        assert answer.status_code == 200, answer.text
        return answer.json()["token"]

    @contextmanager
    def seen_by(self, user: str, repository: str) -> Generator[Served]:
        """The registry as the user meets it who has a token for all that they may do in the repository."""
        token = self.token(user, f"repository:{repository}:pull,push,delete")
        with self.registry.apart(headers={"Authorization": f"Bearer {token}"}) as seen:
            yield seen

    def push(self, user: str, repository: str, image: Image, tag: str = "v1") -> None:
        with self.seen_by(user, repository) as registry:
            registry.push(repository, tag, Package(image))

    def mounts(self, target: str, source: str) -> set[int]:
        """How mounts from one repository into the other were answered: 201 is one that succeeded."""
        asked = f"from={quote(source, safe='')}&"
        return {
            access.status
            for access in self.registry.accesses()
            if access.method == "POST"
            and access.target.startswith(f"/v2/{target}/")
            and asked in f"{access.target}&"
        }

    def command(self, *words: str, given: str = "") -> str:
        """What the command line prints: `registry WORDS… CONFIG`. `given` is its standard input.

        In this process, where everything is loaded already.
        """
        output, errors, stdin = io.StringIO(), io.StringIO(), sys.stdin
        sys.stdin = io.StringIO(given)
        try:
            with redirect_stdout(output), redirect_stderr(errors):
                code = run([*words, str(configuration(self.registry))])
        finally:
            sys.stdin = stdin
        assert code == 0, f"{' '.join(words)}: {output.getvalue()}\n{errors.getvalue()}"
        return output.getvalue()


@contextmanager
def built_in(data: Path) -> Generator[Guarded]:
    """A registry as `make serve` runs it, once it has accounts."""
    with serve(data, **_SETTINGS) as registry:
        asyncio.run(_add_people(configuration(registry)))
        assert wait_for(lambda: registry.client.get(f"{registry.url}/v2/").status_code == 401, 20)
        yield Guarded(registry, f"{registry.url}/auth/token", "registry")


@contextmanager
def with_issuer(data: Path) -> Generator[Guarded]:
    """A registry whose tokens come from elsewhere."""
    with (
        outside(data.parent, PASSWORDS, PROJECTS) as issuer,
        serve(data, **(_SETTINGS | issuer.settings())) as registry,
    ):
        yield Guarded(registry, issuer.realm, SERVICE, issuer)


def is_refusal(said: str) -> bool:
    """Whether a client's words tell its user that it is a matter of rights."""
    return _REFUSAL.search(said) is not None


def configuration(registry: Served) -> Path:
    """The file with which other commands find the registry."""
    return registry.data / "config.yml"


async def _add_people(config: Path) -> None:
    """The same rights as PROJECTS have, in the store, as each command takes half a second."""
    database = await open_database(load(config, {}).settings, None)

    async def add(c: Connection) -> None:
        ids = {
            name: await accounts.add(c, name, "person", secret_hash=hash_password(password))
            for name, password in PASSWORDS.items()
        }
        for project in PROJECTS:
            pattern = f"{project.path}/**"
            for name, actions in project.members.items():
                await grants.add(c, ids[name], pattern, [Action(action) for action in actions])
            if project.is_public:
                await grants.add(c, None, pattern, [Action.PULL])

    try:
        await database.write(add)
    finally:
        await database.close()
