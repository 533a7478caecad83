"""What is taken back is refused, and when: at once wherever somebody logs in, and a token at its end at the latest.

    disabled account, changed password, removed or expired secret      no login, no refresh token: at once
    removed grant                                                      not in the next token
    token that was given before that                                   until it ends: auth.issuer.expiresin, and 60 s
    distrusted signing key                                             within 10 seconds, on every replica
    user removed from an htpasswd file                                 within 2 seconds

Stands for zot CVE-2025-23208 (rights that outlive the group they came from) and Distribution CVE-2026-35172.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import bcrypt
import jwt
import pytest

from app.auth.compact import TokenRefused
from app.auth.jwts import LEEWAY_SECONDS, Verifier
from app.auth.passwords import hash_secret
from app.domain.access import Action
from app.services.signing_ring import key_set
from app.store import accounts, grants, signing_keys
from tests.security.support import (
    add_account,
    basic,
    change_password,
    database_section,
    disable,
    guarded,
    remove,
)
from tests.support.served import CHECKOUT, environment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import httpx

    from app.store.engine import Target
    from tests.support.registry import Registry

PASSWORD: Final = "correct horse battery"
SCOPE: Final = "repository:team/app:pull,push"
SECONDS: Final = 90
# How often replicas look at the keys, and a bit.
DISTRUSTED_SECONDS: Final = 15.0
# How often a file is looked at, and a bit.
REREAD_SECONDS: Final = 2.0


def issuer(root: Path, name: str = "key.pem") -> dict[str, Any]:
    return {"issuer": {"key": str(root / name), "expiresin": f"{SECONDS}s"}}


async def log_in(registry: Registry, name: str = "alice", secret: str = PASSWORD) -> httpx.Response:
    query = {"scope": SCOPE, "offline_token": "true"}
    return await registry.client.get(
        "/auth/token", params=query, headers={"Authorization": basic(name, secret)}
    )


async def come_back(registry: Registry, refresh_token: str) -> httpx.Response:
    form = {"grant_type": "refresh_token", "refresh_token": refresh_token, "scope": SCOPE}
    return await registry.client.post("/auth/token", data=form)


async def may_pull(registry: Registry, token: str) -> bool:
    headers = {"Authorization": f"Bearer {token}"}
    answer = await registry.client.get("/v2/team/app/tags/list", headers=headers)
    assert answer.status_code in (404, 401)
    return answer.status_code == 404


async def until(condition: Callable[[], Awaitable[bool]], seconds: float) -> float:
    """After how many seconds it was true. Fails when it does not become so in time."""
    began = time.monotonic()
    while not await condition():
        assert time.monotonic() - began < seconds, "it is not so after all that time"
        await asyncio.sleep(0.05)
    return time.monotonic() - began


@pytest.mark.parametrize("end", [disable, change_password, remove])
def test_account_when_it_is_ended_can_neither_log_in_nor_come_back_and_its_token_ends_by_itself(
    end: Callable[[Registry, int], Awaitable[None]], database: Target, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with guarded(database, tmp_path / "objects", issuer(tmp_path)) as registry:
            number = await add_account(registry.database, "alice", PASSWORD, {"team/**": "pull"})
            given = (await log_in(registry)).json()
            # The password is remembered as right by now, which must not help.
            assert (await log_in(registry)).status_code == 200
            await end(registry, number)
            assert (await log_in(registry)).status_code == 401
            assert (await come_back(registry, given["refresh_token"])).status_code == 401
            await assert_ends(registry, given["token"])

    asyncio.run(scenario())


async def assert_ends(registry: Registry, token: str) -> None:
    """The token is good for now, and refused once the time is over that tokens live for."""
    assert await may_pull(registry, token)
    issued = jwt.decode(token, options={"verify_signature": False})
    end = issued["iat"] + SECONDS
    assert issued["exp"] == end
    keys = key_set(await registry.database.read(signing_keys.trusted))

    def at(moment: float) -> Verifier:
        return Verifier(lambda: keys, issuer="registry", service="registry", now=lambda: moment)

    assert at(end).verify(token)
    with pytest.raises(TokenRefused) as refused:
        at(end + LEEWAY_SECONDS).verify(token)
    assert refused.value.kind == "expired"


def test_grant_when_it_is_removed_is_in_no_token_that_comes_later(database: Target, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guarded(database, tmp_path / "objects", issuer(tmp_path)) as registry:
            number = await add_account(registry.database, "alice", PASSWORD, {"team/**": "pull,push"})
            given = (await log_in(registry)).json()
            assert await may_pull(registry, given["token"])
            await registry.database.write(lambda c: grants.remove(c, number, "team/**", [Action.PULL]))
            for answer in (await log_in(registry), await come_back(registry, given["refresh_token"])):
                assert answer.json()["scope"] == "repository:team/app:push"
                assert not await may_pull(registry, answer.json()["token"])
            await registry.database.write(lambda c: grants.remove(c, number, "team/**", [Action.PUSH]))
            for answer in (await log_in(registry), await come_back(registry, given["refresh_token"])):
                assert answer.json()["scope"] == ""
            await assert_ends(registry, given["token"])

    asyncio.run(scenario())


def test_admin_when_no_longer_one_gets_what_is_granted(database: Target, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guarded(database, tmp_path / "objects", issuer(tmp_path)) as registry:
            await add_account(registry.database, "alice", PASSWORD, is_admin=True)
            given = (await log_in(registry)).json()
            assert given["scope"] == SCOPE
            await registry.database.write(lambda c: accounts.set_admin(c, "alice", is_admin=False))
            for answer in (await log_in(registry), await come_back(registry, given["refresh_token"])):
                assert answer.json()["scope"] == ""

    asyncio.run(scenario())


def test_robot_when_a_secret_is_removed_or_expires_cannot_log_in_with_it_but_with_others(
    database: Target, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with guarded(database, tmp_path / "objects", issuer(tmp_path)) as registry:
            number = await add_account(registry.database, "robot", "first", {"team/**": "pull"}, kind="robot")
            second = await registry.database.write(
                lambda c: accounts.add_secret(c, number, hash_secret("second"))
            )
            assert second is not None
            for secret in ("first", "second"):
                assert (await log_in(registry, "robot", secret)).status_code == 200
            await registry.database.write(lambda c: accounts.remove_secret(c, number, second))
            assert (await log_in(registry, "robot", "second")).status_code == 401
            assert (await log_in(registry, "robot", "first")).status_code == 200
            await registry.rows("UPDATE account_secrets SET expires_at = now()")
            assert (await log_in(registry, "robot", "first")).status_code == 401

    asyncio.run(scenario())


def test_user_when_removed_from_the_file_is_refused_within_two_seconds(
    database: Target, tmp_path: Path
) -> None:
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    users = tmp_path / "htpasswd"
    users.write_text(f"alice:{hashed}\nbob:{hashed}\n")

    async def scenario() -> None:
        auth = {"htpasswd": {"realm": "ours", "path": str(users)}}
        async with guarded(database, tmp_path / "objects", auth) as registry:

            async def status(name: str) -> int:
                headers = {"Authorization": basic(name, PASSWORD)}
                return (await registry.client.get("/v2/", headers=headers)).status_code

            async def is_refused() -> bool:
                # Asked all the time, so that it is a password that was right a moment ago.
                return await status("alice") == 401

            assert (await status("alice"), await status("bob")) == (200, 200)
            users.write_text(f"bob:{hashed}\n")
            await until(is_refused, REREAD_SECONDS + 2.0)
            assert await status("bob") == 200

    asyncio.run(scenario())


def test_key_when_distrusted_has_its_tokens_refused_by_every_replica_soon(
    database: Target, tmp_path: Path
) -> None:
    """As an administrator does it: rotate the key that has leaked, then distrust it."""
    config = tmp_path / "config.json"
    tree = {
        "version": "0.1",
        "http": {"addr": "127.0.0.1:0"},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "objects")}},
        "database": database_section(database),
        "auth": issuer(tmp_path),
    }
    config.write_text(json.dumps(tree))

    async def run(*words: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from app.cli import main; main()"),
            *(*words, str(config)),
            cwd=CHECKOUT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()

    async def scenario() -> None:
        async with (
            guarded(database, tmp_path / "objects", issuer(tmp_path)) as one,
            guarded(database, tmp_path / "objects", issuer(tmp_path, "other.pem")) as two,
        ):
            await add_account(one.database, "alice", PASSWORD, {"team/**": "pull"})
            leaked = (await log_in(one)).json()["token"]
            others = (await log_in(two)).json()["token"]
            for replica in (one, two):
                assert await may_pull(replica, leaked)
            kid = jwt.get_unverified_header(leaked)["kid"]
            await run("issuer", "rotate")
            await run("issuer", "distrust", kid)
            for replica in (one, two):

                async def is_refused(replica: Registry = replica) -> bool:
                    return not await may_pull(replica, leaked)

                await until(is_refused, DISTRUSTED_SECONDS)
                assert await may_pull(replica, others)
                assert await may_pull(replica, (await log_in(one)).json()["token"])

    asyncio.run(scenario())
