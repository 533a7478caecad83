"""Time tells nothing: whoever fails to log in has cost the same work, and secrets are compared in constant time.

Work is counted, not measured: slow hashes with their costs, and statements of the database. Stands for Harbor
CVE-2019-19030 and CVE-2023-20902 (which names exist, and what a secret begins with, told by the time).
"""

from __future__ import annotations

import ast
import asyncio
import re
import threading
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import argon2.low_level
import bcrypt
import pytest
from argon2.profiles import RFC_9106_LOW_MEMORY
from prometheus_client import CollectorRegistry

import app
from app.auth.passwords import hash_password, new_secret
from app.store import accounts
from tests.security.support import add_account, basic, guarded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence

    import httpx

    from app.store.engine import Target
    from tests.support.registry import Registry

PASSWORD: Final = "correct horse battery"


@contextmanager
def slow_hashes() -> Generator[list[str]]:
    """The slow hashes that threads which begin within make, each with what it costs."""
    made: list[str] = []

    def watch(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code is argon2.low_level.verify_secret.__code__:
            known = argon2.extract_parameters(frame.f_locals["hash"].decode())
            made.append(f"argon2 {known}")
        elif event == "c_call" and argument is bcrypt.checkpw:
            made.append(f"bcrypt {frame.f_locals['hashed'][4:6]}")

    threading.setprofile(watch)
    try:
        yield made
    finally:
        threading.setprofile(None)


def statements(counted: CollectorRegistry) -> Counter[str]:
    """How many statements were run, by name."""
    return Counter({
        sample.labels["query"]: int(sample.value)
        for family in counted.collect()
        for sample in family.samples
        if sample.name == "registry_database_query_duration_seconds_count"
    })  # fmt: skip


def told(answer: httpx.Response) -> tuple[Any, ...]:
    """All that a client is told."""
    headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    return answer.status_code, answer.content, headers


async def work_of(
    counted: CollectorRegistry, made: list[str], request: Callable[[], Awaitable[httpx.Response]]
) -> tuple[Any, ...]:
    """What a client is told and what that took."""
    made.clear()
    before = statements(counted)
    answer = await request()
    # The replica looks at the announced keys from time to time, whoever asks for what.
    took = statements(counted) - before
    took.pop("signing_keys.trusted", None)
    return *told(answer), tuple(made), dict(took)


def test_login_when_it_fails_costs_the_same_and_says_the_same_whether_there_is_such_an_account_or_not(
    database: Target, tmp_path: Path
) -> None:
    async def add_people(registry: Registry) -> None:
        hashed = hash_password(PASSWORD)
        for name in ("alice", "disabled"):
            await registry.database.write(
                lambda c, name=name: accounts.add(c, name, "person", secret_hash=hashed)
            )
        await registry.database.write(lambda c: accounts.set_disabled(c, "disabled", is_disabled=True))
        await registry.database.write(lambda c: accounts.add(c, "no-password", "person"))
        await add_account(registry.database, "robot", new_secret(), kind="robot")
        await add_account(registry.database, "root", PASSWORD, is_admin=True)
        await registry.rows("UPDATE account_secrets SET hash = $1 WHERE hash LIKE '$argon2id$%'", hashed)

    async def scenario(made: list[str]) -> None:
        counted = CollectorRegistry()
        auth = {"issuer": {"key": str(tmp_path / "key.pem")}}
        async with guarded(database, tmp_path / "objects", auth, counted=counted) as registry:
            await add_people(registry)

            async def ask(name: str, password: str) -> tuple[Any, ...]:
                headers = {"Authorization": basic(name, password)}
                return await work_of(
                    counted, made, lambda: registry.client.get("/auth/token", headers=headers)
                )

            wrong = await ask("alice", "wrong")
            assert wrong[0] == 401
            # One, as slow as all others that were ever made here.
            assert wrong[3] == (f"argon2 {RFC_9106_LOW_MEMORY}",)
            assert sum(wrong[4].values()) >= 3
            for name, password in (
                *(("nobody", "wrong"), ("root", "wrong"), ("robot", "wrong"), ("robot", new_secret())),
                *(("disabled", PASSWORD), ("no-password", PASSWORD)),
            ):
                assert await ask(name, password) == wrong, name
            # What cannot be a password is refused without one, again for all alike.
            assert (await ask("alice", ""))[:4] == (await ask("nobody", ""))[:4] == (*wrong[:3], ())

    with slow_hashes() as made:
        asyncio.run(scenario(made))


def test_refresh_token_when_refused_costs_the_same_whether_it_is_made_up_or_another_services(
    database: Target, tmp_path: Path
) -> None:
    async def scenario() -> None:
        counted = CollectorRegistry()
        auth = {"issuer": {"key": str(tmp_path / "key.pem")}}
        async with guarded(database, tmp_path / "objects", auth, counted=counted) as registry:
            await add_account(registry.database, "alice", PASSWORD)
            login = await registry.client.get(
                "/auth/token?offline_token=true", headers={"Authorization": basic("alice", PASSWORD)}
            )
            await registry.rows("UPDATE refresh_tokens SET service = 'another'")

            async def come_back(token: str) -> tuple[Any, ...]:
                form = {"grant_type": "refresh_token", "refresh_token": token}
                return await work_of(counted, [], lambda: registry.client.post("/auth/token", data=form))

            made_up = await come_back("rgr_made-up")
            assert made_up[0] == 401
            assert await come_back(login.json()["refresh_token"]) == made_up
            await registry.rows("UPDATE refresh_tokens SET service = 'registry', expires_at = now()")
            assert await come_back(login.json()["refresh_token"]) == made_up

    asyncio.run(scenario())


def bcrypt_work(made: Sequence[str]) -> int:
    """Rounds: each cost is twice the one before."""
    return sum(2 ** int(each.removeprefix("bcrypt ")) for each in made)


@pytest.mark.parametrize("costs", [(4, 4), (4, 6)])
def test_basic_when_it_fails_costs_the_same_whether_the_file_has_such_a_user_or_not(
    costs: tuple[int, int], database: Target, tmp_path: Path
) -> None:
    users = tmp_path / "htpasswd"
    hashes = [bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(cost)).decode() for cost in costs]
    users.write_text(f"alice:{hashes[0]}\nbob:{hashes[1]}\n")

    async def scenario(made: list[str]) -> None:
        counted = CollectorRegistry()
        auth = {"htpasswd": {"realm": "ours", "path": str(users)}}
        async with guarded(database, tmp_path / "objects", auth, counted=counted) as registry:

            async def ask(name: str) -> tuple[Any, ...]:
                headers = {"Authorization": basic(name, "wrong")}
                *answer, slow, took = await work_of(
                    counted, made, lambda: registry.client.get("/v2/", headers=headers)
                )
                return *answer, bcrypt_work(slow), took

            wrong = await ask("alice")
            assert (wrong[0], wrong[3]) == (401, 2 ** max(costs))
            for name in ("bob", "nobody", "", "ALICE", "x" * 300):
                assert await ask(name) == wrong, name

    with slow_hashes() as made:
        asyncio.run(scenario(made))


# The code.

# What handles secrets, as far as it compares anything.
PLACES: Final = (
    *("auth", "services/access", "services/issue_token.py", "services/logins.py", "services/signing_ring.py"),
    *("store/accounts.py", "store/refresh_tokens.py", "http/guard.py", "http/token.py", "cli/accounts.py"),
)
_SECRET: Final = re.compile(
    r"(?i)(?:\A|_)(?:secret|password|passwd|hash|hashed|token|signature|seal|mac|tag)s?\Z"
)
# Functions that take no less time for a secret that is nearly right.
_MAKES_SECRETS: Final = frozenset({"hexdigest", "digest", "hashpw"})


def comparisons(source: str) -> Iterator[tuple[int, str]]:
    """Comparisons, of two values that are not known beforehand, one of which is called like a secret."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Compare):
            continue
        for operator, left, right in zip(
            node.ops, [node.left, *node.comparators], node.comparators, strict=False
        ):
            if not isinstance(operator, ast.Eq | ast.NotEq):
                continue
            sides = (left, right)
            if any(isinstance(side, ast.Constant) for side in sides):
                continue
            if any(_is_secret(side) for side in sides):
                yield node.lineno, ast.unparse(node)


def _is_secret(side: ast.expr) -> bool:
    if isinstance(side, ast.Call):
        return isinstance(side.func, ast.Attribute) and side.func.attr in _MAKES_SECRETS
    name = side.id if isinstance(side, ast.Name) else side.attr if isinstance(side, ast.Attribute) else ""
    return _SECRET.search(name) is not None


def test_comparison_when_it_is_of_secrets_is_found() -> None:
    """The test of the test."""
    for source in (
        "given == stored_hash",
        "secret.hash != other",
        "x == y == token",
        "if hashlib.sha256(a).hexdigest() == b: pass",
        "return_ = self._password == password",
    ):
        assert list(comparisons(source)), source
    for source in ("kind == 'token'", "hmac.compare_digest(token, other)", "len(token) == size", "a == b"):
        assert not list(comparisons(source)), source


def test_secret_when_compared_is_compared_in_constant_time() -> None:
    assert app.__file__ is not None
    root = Path(app.__file__).parent
    files = {
        file for place in PLACES for file in (root / place, *(root / place).glob("*.py")) if file.is_file()
    }
    assert len(files) > len(PLACES)
    found = [
        f"{file.relative_to(root)}:{line}: {text}"
        for file in sorted(files)
        for line, text in comparisons(file.read_text())
    ]
    assert found == [], "compare secrets with hmac.compare_digest"
    # Which is what is used.
    assert "hmac.compare_digest(" in (root / "auth/passwords.py").read_text()
