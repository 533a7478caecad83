"""The built-in token service: both of its forms, what it grants, what it refuses, and what ends when."""

from __future__ import annotations

import asyncio
import base64
import functools
import inspect
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import jwt
import pytest

from app.auth.compact import TOKEN_CHARS_MAX
from app.auth.passwords import hash_password, hash_secret, new_secret
from app.auth.signing import new_key, write_key
from app.config import Settings
from app.domain.access import Action
from app.http.call import ApiRules
from app.services import signing_ring
from app.services.logins import WAITING_MAX
from app.store import accounts, grants, logins, refresh_tokens, signing_keys
from app.wiring.access import prepare
from app.wiring.admission import admission
from tests.http.support import refused, served
from tests.security.support import change_password, disable, remove
from tests.support.postgres import connected
from tests.support.registry import open_registry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    import httpx

    from app.store.engine import Target
    from tests.support.registry import Registry

PASSWORD: Final = "correct horse battery"
FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
WRONG: Final = (
    '{"error":"invalid_grant","error_description":"incorrect username or password","errors":'
    '[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}\n'
)
EVERYTHING: Final = frozenset({Action.PULL, Action.PUSH, Action.DELETE})


def settings(root: Path, **issuer: Any) -> Settings:
    return Settings.model_validate(
        {
            "version": "0.1",
            "http": {"addr": ":0"},
            "storage": {"inmemory": {}},
            "auth": {"issuer": {"key": str(root / "key.pem"), **issuer}},
        }
    )


@asynccontextmanager
async def issuing(target: Target, root: Path, **issuer: Any) -> AsyncGenerator[Registry]:
    """A registry with the token service, from an address that the test chooses by X-Test-Address."""
    chosen = settings(root, **issuer)
    prepare(chosen)
    rules = ApiRules(delete_enabled=True, login_bucket=address_of)
    async with open_registry(
        target,
        root / "objects",
        rules=rules,
        with_access=lambda database, stack: admission(chosen, database, stack),
    ) as registry:
        yield registry


def address_of(scope: Any) -> str:
    return dict(scope["headers"]).get(b"x-test-address", b"192.0.2.1").decode()


def issued(**issuer: Any) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]:
    """Make a coroutine function a test of a registry with the token service."""

    def decorate(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        def run(database: Target, tmp_path: Path, **arguments: Any) -> None:
            async def scenario() -> None:
                async with issuing(database, tmp_path / "first", **issuer) as registry:
                    await test(registry, **arguments)

            asyncio.run(scenario())

        seen: Any = functools.update_wrapper(run, test)
        del seen.__wrapped__
        own = [p.replace(kind=p.KEYWORD_ONLY) for p in list(inspect.signature(test).parameters.values())[1:]]
        fixtures = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY) for n in ("database", "tmp_path")]
        seen.__signature__ = inspect.Signature([*fixtures, *own])
        return seen

    return decorate


@functools.cache
def hashed(password: str) -> str:
    return hash_password(password)


async def person(registry: Registry, name: str, *rights: tuple[str, frozenset[Action]], **more: Any) -> int:
    async def work(c: Any) -> int:
        number = await accounts.add(c, name, "person", secret_hash=hashed(PASSWORD), **more)
        for pattern, actions in rights:
            await grants.add(c, number, pattern, actions)
        return number

    return await registry.database.write(work)


async def get(
    registry: Registry,
    scope: str = "",
    *,
    user: str = "",
    password: str = PASSWORD,
    service: str = "registry",
    **more: str,
) -> httpx.Response:
    headers = {"X-Test-Address": more.pop("address", "192.0.2.1")}
    if user:
        headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    query = [("service", service), *(("scope", one) for one in scope.split("|") if one), *more.items()]
    return await registry.client.get("/auth/token", params=query, headers=headers)


async def post(registry: Registry, **fields: str) -> httpx.Response:
    usual = {"service": "registry", "client_id": "test"}
    return await registry.client.post("/auth/token", data={**usual, **fields}, headers=FORM)


def access(answer: httpx.Response) -> dict[str, list[str]]:
    """What the token in the answer allows, by type and name."""
    assert answer.status_code == 200, answer.text
    claims = jwt.decode(answer.json()["token"], options={"verify_signature": False})
    return {f"{entry['type']}:{entry['name']}": entry["actions"] for entry in claims["access"]}


async def status(registry: Registry, path: str, answer: httpx.Response, method: str = "GET") -> int:
    headers = {"Authorization": f"Bearer {answer.json()['token']}"}
    return (await registry.client.request(method, path, headers=headers)).status_code


@issued()
async def test_token_when_asked_for_in_both_forms_has_what_clients_read(registry: Registry) -> None:
    await person(registry, "alice", ("team/**", EVERYTHING))
    scope = "repository:team/app:pull,push"
    for answer in (
        await get(registry, scope, user="alice", client_id="docker", account="alice"),
        await post(registry, grant_type="password", username="alice", password=PASSWORD, scope=scope),
    ):
        document = answer.json()
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Cache-Control"] == "no-store"
        assert document["token"] == document["access_token"]
        assert (document["expires_in"], document["scope"]) == (300, scope)
        assert "refresh_token" not in document
        began = datetime.fromisoformat(document["issued_at"])
        assert abs(datetime.now(UTC) - began) < timedelta(seconds=30)
        claims = jwt.decode(document["token"], options={"verify_signature": False})
        header = jwt.get_unverified_header(document["token"])
        assert (header["alg"], header["typ"]) == ("ES256", "JWT")
        assert (claims["iss"], claims["aud"], claims["sub"]) == ("registry", "registry", "alice")
        assert claims["auth_type"] == "person"
        assert claims["exp"] - claims["iat"] == 300
        assert await status(registry, "/v2/", answer) == 200
        assert await status(registry, "/v2/team/app/tags/list", answer) == 404
        assert await status(registry, "/v2/team/other/tags/list", answer) == 401


@issued()
async def test_token_when_only_some_is_allowed_has_that_and_is_no_error(registry: Registry) -> None:
    await person(registry, "bob", ("team/*", frozenset({Action.PULL})), ("team/mine", EVERYTHING))
    for scope, expected in (
        ("repository:team/app:pull,push", {"repository:team/app": ["pull"]}),
        ("repository:team/mine:push,pull,delete", {"repository:team/mine": ["pull", "push", "delete"]}),
        ("repository:team/mine:*", {"repository:team/mine": ["pull", "push", "delete"]}),
        ("repository:team/app:*", {"repository:team/app": ["pull"]}),
        ("repository:other/app:pull", {}),
        ("repository:team/app:pull|repository:team/mine:push",
         {"repository:team/app": ["pull"], "repository:team/mine": ["push"]}),
        ("repository:team/app:pull repository:team/mine:push",
         {"repository:team/app": ["pull"], "repository:team/mine": ["push"]}),
        ("repository:team/mine:pull|repository:team/mine:push", {"repository:team/mine": ["pull", "push"]}),
        ("repository(plugin):team/app:pull", {"repository:team/app": ["pull"]}),
        ("registry:catalog:*", {}),
        ("repository:host:5000/team/app:pull", {}),
        ("repository:team/app/deep:pull", {}),
        ("repository:team/*:pull", {}),
        ("other:team/app:pull", {}),
        ("", {}),
    ):  # fmt: skip
        assert access(await get(registry, scope, user="bob")) == expected, scope


@issued()
async def test_token_when_an_admin_asks_allows_everything_asked_for(registry: Registry) -> None:
    await person(registry, "root", is_admin=True)
    scope = "repository:any/thing:pull,push,delete|registry:catalog:*"
    answer = await get(registry, scope, user="root")
    assert access(answer) == {"repository:any/thing": ["pull", "push", "delete"], "registry:catalog": ["*"]}
    assert await status(registry, "/v2/_catalog", answer) == 200


@issued()
async def test_token_when_nobody_asks_allows_what_everybody_may(registry: Registry) -> None:
    await registry.database.write(lambda c: grants.add(c, None, "public/**", {Action.PULL}))
    await person(registry, "alice")
    scope = "repository:public/app:pull,push|repository:private/app:pull|registry:catalog:*"
    for answer in (await get(registry, scope), await get(registry, scope, user="alice")):
        assert access(answer) == {"repository:public/app": ["pull"]}
    anonymous = await get(registry, scope)
    assert jwt.decode(anonymous.json()["token"], options={"verify_signature": False})["sub"] == ""
    assert await status(registry, "/v2/public/app/tags/list", anonymous) == 404
    assert await status(registry, "/v2/private/app/tags/list", anonymous) == 401
    assert (await registry.client.get("/v2/")).status_code == 401
    await registry.database.write(lambda c: grants.add(c, None, "", {Action.CATALOG}))
    assert await status(registry, "/v2/_catalog", await get(registry, "registry:catalog:*")) == 200


@issued()
async def test_login_when_it_fails_has_one_answer_whatever_was_wrong(registry: Registry) -> None:
    await person(registry, "alice")
    await person(registry, "gone")
    await registry.database.write(lambda c: accounts.set_disabled(c, "gone", is_disabled=True))
    answers = [
        await get(registry, user="alice", password="wrong"),
        await get(registry, user="nobody"),
        await get(registry, user="gone"),
        await get(registry, user="ALICE"),
        await get(registry, user="al\0ice"),
        await get(registry, user="alice", password=""),
        await post(registry, grant_type="password", username="nobody", password="x"),
        await post(registry, grant_type="refresh_token", refresh_token="rgr_none"),
    ]
    assert {(a.status_code, a.text, a.headers["WWW-Authenticate"]) for a in answers} == {
        (
            401,
            WRONG,
            'Basic realm="registry"',
        )
    }


@issued()
async def test_request_when_malformed_is_told_what_would_be_right(registry: Registry) -> None:
    await person(registry, "alice")
    known = {"grant_type": "password", "username": "alice", "password": PASSWORD}
    for answer, oauth in (
        (await get(registry, service="other"), "invalid_request"),
        (await get(registry, "repository:a/b"), "invalid_scope"),
        (await get(registry, "repository:a/b:pull,"), "invalid_scope"),
        (await get(registry, "repository:a/b:PULL"), "invalid_scope"),
        (await get(registry, ":a/b:pull"), "invalid_scope"),
        (await get(registry, "repository::pull"), "invalid_scope"),
        (await get(registry, "|".join(["repository:a/b:pull"] * 101)), "invalid_scope"),
        (await get(registry, f"repository:{'a' * 1024}:pull"), "invalid_scope"),
        (await post(registry, grant_type="authorization_code"), "unsupported_grant_type"),
        (await post(registry, grant_type="password", username="alice"), "invalid_request"),
        (await post(registry), "invalid_request"),
        (await registry.client.post("/auth/token", json=known), "invalid_request"),
        (await registry.client.post("/auth/token", content=b"x" * 40_000, headers=FORM), "invalid_request"),
        (
            await registry.client.post(
                "/auth/token", content=b"grant_type=password&username=a&username=b&password=c", headers=FORM
            ),
            "invalid_request",
        ),
    ):
        document = answer.json()
        assert (answer.status_code, document["error"]) == (400, oauth), answer.text
        assert document["errors"][0]["code"] == "TOKEN_REQUEST_INVALID"
        assert document["errors"][0]["detail"]


@issued()
async def test_refresh_token_when_used_stands_for_the_account_until_it_is_revoked(registry: Registry) -> None:
    number = await person(registry, "alice", ("team/**", EVERYTHING))
    first = await get(registry, user="alice", offline_token="true")
    token = first.json()["refresh_token"]
    stored = await registry.rows("SELECT hash, client_id FROM refresh_tokens")
    assert len(stored) == 1
    assert token.encode() not in bytes(stored[0]["hash"])
    ask = {"grant_type": "refresh_token", "refresh_token": token, "scope": "repository:team/app:pull"}
    for _ in range(2):
        answer = await post(registry, **ask)
        assert access(answer) == {"repository:team/app": ["pull"]}
        assert "refresh_token" not in answer.json()
    await registry.database.write(lambda c: grants.remove(c, number, "team/**", EVERYTHING))
    assert access(await post(registry, **ask)) == {}
    assert await registry.database.write(lambda c: refresh_tokens.revoke_all(c, number)) == 1
    assert (await post(registry, **ask)).status_code == 401


@pytest.mark.parametrize("how", ["password", "disabled", "expired", "removed"])
@issued()
async def test_refresh_token_when_its_ground_is_gone_ends_at_once(registry: Registry, how: str) -> None:
    number = await person(registry, "alice")
    answer = await post(
        registry, grant_type="password", username="alice", password=PASSWORD, access_type="offline"
    )
    token = answer.json()["refresh_token"]
    assert (await post(registry, grant_type="refresh_token", refresh_token=token)).status_code == 200
    if how == "password":
        await registry.database.write(lambda c: accounts.set_password(c, number, hashed("another one")))
    elif how == "disabled":
        await registry.database.write(lambda c: accounts.set_disabled(c, "alice", is_disabled=True))
        await registry.database.write(lambda c: accounts.set_disabled(c, "alice", is_disabled=False))
    elif how == "expired":
        await registry.rows("UPDATE refresh_tokens SET expires_at = now()")
    else:
        await registry.database.write(lambda c: accounts.remove(c, "alice"))
    assert (await post(registry, grant_type="refresh_token", refresh_token=token)).status_code == 401


@issued()
async def test_robot_when_it_has_several_secrets_logs_in_with_each_until_it_ends(registry: Registry) -> None:
    first, second = new_secret(), new_secret()

    async def work(c: Any) -> tuple[int, int]:
        number = await accounts.add(c, "ci", "robot", secret_hash=hash_secret(first))
        return number, await accounts.add_secret(
            c, number, hash_secret(second), label="new", lifetime=timedelta(days=1)
        )

    number, second_id = await registry.database.write(work)
    for secret in (first, second):
        answer = await get(registry, user="ci", password=secret, offline_token="true")
        assert answer.status_code == 200
        # A robot's secret can be taken back by itself; docker keeps it instead.
        assert "refresh_token" not in answer.json()
    assert (await get(registry, user="ci", password=new_secret())).status_code == 401
    used = await registry.rows("SELECT last_used_at FROM account_secrets")
    assert all(row["last_used_at"] is not None for row in used)
    assert await registry.database.write(lambda c: accounts.remove_secret(c, number, second_id))
    assert (await get(registry, user="ci", password=second)).status_code == 401
    await registry.rows("UPDATE account_secrets SET expires_at = now()")
    assert (await get(registry, user="ci", password=first)).status_code == 401


@issued()
async def test_login_when_an_address_fails_too_often_waits_and_others_do_not(registry: Registry) -> None:
    await person(registry, "alice")
    await person(registry, "mallory")
    assert (await get(registry, user="guess-0", password="x")).status_code == 401
    # The waits must outlast this test on a slow machine.
    for n in range(16):
        await registry.database.write(lambda c, n=n: logins.failed(c, "192.0.2.1", f"guess-{n}"))
    blocked = await get(registry, user="alice")
    assert blocked.status_code == 429
    assert blocked.json()["errors"][0]["code"] == "TOOMANYREQUESTS"
    assert int(blocked.headers["Retry-After"]) >= 1
    elsewhere = await get(registry, user="alice", address="192.0.2.2")
    assert elsewhere.status_code == 200
    # Now the password is remembered: who shares the address with a guesser is not kept out.
    assert (await get(registry, user="alice")).status_code == 200
    # A success of another account takes nothing back.
    assert (await get(registry, user="mallory", address="192.0.2.3")).status_code == 200
    assert (await get(registry, user="mallory")).status_code == 200
    assert (await get(registry, user="guess-0", password="x")).status_code == 429
    await registry.rows("UPDATE login_failures SET last_failed_at = last_failed_at - interval '15 minutes'")
    assert (await get(registry, user="guess-0", password="x")).status_code == 401


@issued()
async def test_login_when_many_come_at_once_is_counted_each_time(registry: Registry) -> None:
    await person(registry, "alice")
    for n in range(6):
        await registry.database.write(lambda c, n=n: logins.failed(c, "192.0.2.1", f"guess-{n}"))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(get(registry, user="alice", password=f"guess {n}")) for n in range(12)]
    found = [task.result().status_code for task in tasks]
    assert set(found) <= {401, 429, 503}
    # Four more make ten; what waits for its turn meanwhile is refused then, unless a second has passed.
    assert 4 <= found.count(401) <= 8
    failures = await registry.rows("SELECT sum(failures)::int AS n FROM login_failures")
    assert failures == [{"n": 6 + found.count(401)}]


@issued()
async def test_login_when_the_password_can_be_nobodys_is_refused_and_writes_nothing(
    registry: Registry,
) -> None:
    await person(registry, "alice")
    for password in ("", "x" * 1025, "a\0b"):
        for user in ("alice", "nobody"):
            answer = await get(registry, user=user, password=password)
            assert (answer.status_code, answer.text) == (401, WRONG)
    assert await registry.rows("SELECT * FROM login_failures") == []
    assert (await get(registry, user="alice", password="x" * 1024)).status_code == 401
    assert len(await registry.rows("SELECT * FROM login_failures")) == 1


@issued()
async def test_login_when_more_come_at_once_than_may_wait_is_not_told_of_failures(registry: Registry) -> None:
    """All of them have the right password, as a farm of builders behind one address has."""
    await person(registry, "alice")
    async with asyncio.TaskGroup() as group, connected(registry.target) as raw, raw.transaction():
        # What a login writes when the password was right: the first of them ends after this.
        await raw.execute("LOCK TABLE login_failures IN EXCLUSIVE MODE")
        tasks = [group.create_task(get(registry, user="alice")) for _ in range(WAITING_MAX + 5)]
        async with asyncio.timeout(30):
            while sum(task.done() for task in tasks) < 5:
                await asyncio.sleep(0.02)
        refusals = [task.result() for task in tasks if task.done()]
    for answer in refusals:
        refused(answer, 429, "TOOMANYREQUESTS")
        assert answer.headers["Retry-After"] == "1"
        assert "at once" in answer.json()["errors"][0]["detail"]
    assert [task.result().status_code for task in tasks].count(200) == WAITING_MAX


def test_login_when_many_come_at_once_to_two_replicas_is_counted_by_both_together(
    database: Target, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with issuing(database, tmp_path / "1") as one, issuing(database, tmp_path / "2") as two:
            await person(one, "alice")
            for n in range(6):
                await one.database.write(lambda c, n=n: logins.failed(c, "192.0.2.1", f"guess-{n}"))
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(get(replica, user="alice", password=f"guess {n}"))
                    for n in range(8)
                    for replica in (one, two)
                ]
            answers = [task.result() for task in tasks]
            found = [answer.status_code for answer in answers]
            assert set(found) <= {401, 429, 503}
            # Each has one attempt under way when the tenth fails, and may look at others when a second has passed.
            assert 4 <= found.count(401) <= 9
            assert all(int(a.headers["Retry-After"]) >= 1 for a in answers if a.status_code == 429)
            failures = await one.rows("SELECT sum(failures)::int AS n FROM login_failures")
            assert failures == [{"n": 6 + found.count(401)}]
            # Elsewhere the account is open, at both.
            for replica, address in ((one, "192.0.2.2"), (two, "192.0.2.3")):
                assert (await get(replica, user="alice", address=address)).status_code == 200

    asyncio.run(scenario())


@issued(onceusersexist=True)
async def test_registry_when_it_has_no_accounts_is_open_until_the_first(registry: Registry) -> None:
    assert (await registry.client.get("/v2/")).status_code == 200
    assert (await registry.client.get("/v2/a/b/tags/list")).status_code == 404
    await person(registry, "alice")
    async with asyncio.timeout(20):
        while (await registry.client.get("/v2/")).status_code != 401:
            await asyncio.sleep(0.05)
    assert (await registry.client.get("/v2/a/b/tags/list")).status_code == 401
    await registry.database.write(lambda c: accounts.remove(c, "alice"))
    assert (await registry.client.get("/v2/")).status_code == 401


@issued(expiresin="2m", refreshexpiresin="0s", service="the registry", issuer="us")
async def test_terms_when_set_are_what_tokens_say(registry: Registry) -> None:
    await person(registry, "alice")
    wrong = await get(registry, user="alice")
    assert wrong.status_code == 400
    answer = await get(registry, user="alice", service="the registry", offline_token="true")
    document = answer.json()
    claims = jwt.decode(document["token"], options={"verify_signature": False})
    assert (claims["iss"], claims["aud"], document["expires_in"]) == ("us", "the registry", 120)
    assert "refresh_token" not in document


@served()
async def test_service_when_it_is_not_configured_is_not_there(registry: Registry) -> None:
    for method in ("GET", "POST"):
        refused(await registry.client.request(method, "/auth/token"), 404, "NOT_FOUND")


def test_registry_when_it_starts_with_accounts_is_closed_from_the_first_request(
    database: Target, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with issuing(database, tmp_path / "before") as registry:
            await person(registry, "alice")
        async with issuing(database, tmp_path / "after", onceusersexist=True) as registry:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(registry.client.get("/v2/")) for _ in range(20)]
            assert {task.result().status_code for task in tasks} == {401}

    asyncio.run(scenario())


def test_registry_when_access_control_cannot_begin_lets_nobody_in(database: Target, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuing(database, tmp_path, onceusersexist=True) as registry:
            key = tmp_path / "key.pem"
            content = key.read_bytes()
            key.write_text("no key")
            await person(registry, "alice")
            async with asyncio.timeout(20):
                while (await registry.client.get("/v2/")).status_code != 503:
                    await asyncio.sleep(0.05)
            for path in ("/v2/", "/v2/a/b/tags/list", "/auth/token"):
                for _ in range(3):
                    refused(await registry.client.get(path), 503, "UNAVAILABLE")
            key.write_bytes(content)
            assert (await registry.client.get("/v2/")).status_code == 401

    asyncio.run(scenario())


def test_replicas_when_each_has_its_own_key_take_each_others_tokens(database: Target, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with issuing(database, tmp_path / "1") as one, issuing(database, tmp_path / "2") as two:
            await person(one, "alice", is_admin=True)
            first, second = await get(one, user="alice"), await get(two, user="alice")
            kids = {jwt.get_unverified_header(a.json()["token"])["kid"] for a in (first, second)}
            assert len(kids) == 2
            for replica in (one, two):
                for answer in (first, second):
                    assert await status(replica, "/v2/", answer) == 200
            # A key that is distrusted is trusted by nobody who comes later.
            for kid in kids:
                assert await one.database.write(lambda c, kid=kid: signing_keys.distrust(c, kid))
            async with issuing(database, tmp_path / "3") as three:
                assert await status(three, "/v2/", first) == 401

    asyncio.run(scenario())


# Keys.


def made_up() -> str:
    """A token of a key that nobody has announced."""
    claims = {"iss": "registry", "aud": "registry", "exp": int(time.time()) + 300}
    return new_key("es256").sign(claims)


async def may_come(registry: Registry, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return (await registry.client.get("/v2/", headers=headers)).status_code


@issued()
async def test_tokens_with_made_up_keys_when_many_come_at_once_share_a_look(registry: Registry) -> None:
    """Whoever announces a key waits for the same turn as they do."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(may_come(registry, made_up())) for _ in range(20)]
    assert {task.result() for task in tasks} == {401}
    # There is one look a second.
    assert time.monotonic() - began < 10


@issued()
async def test_key_when_the_database_forgets_it_is_announced_again(registry: Registry) -> None:
    """As after the database was put back to a time before the key."""
    await person(registry, "alice")
    assert await status(registry, "/v2/", await get(registry, user="alice")) == 200
    await registry.rows("DELETE FROM signing_keys")
    assert await may_come(registry, made_up()) == 401  # who meets a stranger's key looks
    answer = await get(registry, user="alice")
    assert await status(registry, "/v2/", answer) == 200
    kid = jwt.get_unverified_header(answer.json()["token"])["kid"]
    assert await registry.rows("SELECT kid FROM signing_keys") == [{"kid": kid}]


def test_key_when_distrusted_is_not_announced_again_and_issues_no_tokens_until_it_is_changed(
    database: Target, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with issuing(database, tmp_path) as registry:
            await person(registry, "alice")
            leaked = (await get(registry, user="alice")).json()["token"]
            kid = jwt.get_unverified_header(leaked)["kid"]
            assert await registry.database.write(lambda c: signing_keys.distrust(c, kid))
            assert await may_come(registry, made_up()) == 401
            for _ in range(2):
                assert await may_come(registry, leaked) == 401
                refused(await get(registry, user="alice"), 503, "UNAVAILABLE")
            async with (
                issuing(database, tmp_path) as restarted,
                issuing(database, tmp_path / "other") as other,
            ):
                refused(await get(restarted, user="alice"), 503, "UNAVAILABLE")
                assert await status(restarted, "/v2/", await get(other, user="alice")) == 200
            write_key(tmp_path / "key.pem", new_key("es256"))
            async with asyncio.timeout(20):
                while (answer := await get(registry, user="alice")).status_code == 503:
                    await asyncio.sleep(0.05)
            assert await status(registry, "/v2/", answer) == 200
            assert await may_come(registry, leaked) == 401

    asyncio.run(scenario())


def test_keys_when_a_look_fails_for_any_reason_are_looked_at_again(
    database: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing_ring, "_FRESH_SECONDS", 0.05)

    async def scenario() -> None:
        async with issuing(database, tmp_path) as registry:
            await person(registry, "alice")
            token = (await get(registry, user="alice")).json()["token"]
            # What nobody has foreseen: something that is neither a lost connection nor a busy server.
            await registry.rows("ALTER TABLE signing_keys RENAME TO elsewhere")
            with pytest.raises(asyncpg.UndefinedTableError):
                await registry.database.read(signing_keys.trusted)
            await asyncio.sleep(0.5)  # for some looks, which cannot be seen from here
            assert await may_come(registry, token) == 200
            await registry.rows("ALTER TABLE elsewhere RENAME TO signing_keys")
            await registry.rows("UPDATE signing_keys SET expires_at = now(), distrusted_at = now()")
            async with asyncio.timeout(20):
                while await may_come(registry, token) == 200:
                    await asyncio.sleep(0.05)

    asyncio.run(scenario())


@issued()
async def test_token_when_it_would_be_too_long_to_be_accepted_is_not_issued(registry: Registry) -> None:
    await person(registry, "root", is_admin=True)

    async def ask(count: int) -> httpx.Response:
        names = [f"{'a' * 240}/{number}" for number in range(count)]
        scopes = "|".join(f"repository:{n}:pull,push,delete" for n in names)
        return await get(registry, scopes, user="root", offline_token="true")

    answer = await ask(100)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_scope")
    assert await registry.rows("SELECT * FROM refresh_tokens") == []
    answer = await ask(75)
    assert TOKEN_CHARS_MAX * 0.9 < len(answer.json()["token"]) <= TOKEN_CHARS_MAX
    assert await status(registry, "/v2/", answer) == 200


@issued()
async def test_form_when_its_letters_are_not_escaped_is_utf_8(registry: Registry) -> None:
    password = "pä+ss&wörter ☃"
    await registry.database.write(
        lambda c: accounts.add(c, "ute", "person", secret_hash=hash_password(password))
    )
    form = f"grant_type=password&username=ute&password={password.replace('+', '%2B').replace('&', '%26')}"
    for body, expected in ((form.encode(), 200), (form.replace("☃", "").encode("latin-1"), 401)):
        answer = await registry.client.post("/auth/token", content=body, headers=FORM)
        assert answer.status_code == expected, answer.text


async def take_back(registry: Registry, number: int) -> None:
    await registry.database.write(lambda c: grants.remove(c, number, "team/**", EVERYTHING))


WAITING_LOCKS: Final = """
    SELECT count(*) FROM pg_locks JOIN pg_database AS d ON d.oid = database
    WHERE NOT granted AND datname = current_database()
"""


@pytest.mark.parametrize(
    ("change", "expected"), [(disable, 401), (change_password, 401), (remove, 401), (take_back, 200)]
)
@issued()
async def test_login_when_the_account_changes_while_it_waits_is_decided_by_what_is_so_then(
    registry: Registry, change: Callable[[Registry, int], Awaitable[None]], expected: int
) -> None:
    number = await person(registry, "alice", ("team/**", EVERYTHING))
    async with asyncio.TaskGroup() as group, connected(registry.target) as raw:
        async with raw.transaction():
            # What a login writes when the password was right.
            await raw.execute("LOCK TABLE login_failures IN EXCLUSIVE MODE")
            asking = group.create_task(get(registry, "repository:team/app:pull", user="alice"))
            async with asyncio.timeout(20):
                while not await raw.fetchval(WAITING_LOCKS):
                    await asyncio.sleep(0.02)
            await change(registry, number)
        answer = await asking
    assert answer.status_code == expected
    if expected == 200:
        assert access(answer) == {}
