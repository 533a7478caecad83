"""Who may do what: every route, every method, every kind of caller, against a table written by hand.

The table here and the route table must have the same rows, so a new route without a row fails. What counts as refused
is the whole answer: status, code, challenge, detail; and that nothing has changed. What counts as let in is that the
handler has answered, whatever it found.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any, Final

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from app.auth.jwts import Verifier
from app.auth.keys import KeySet, trusted
from app.domain.access import Action, Door
from app.http.call import ApiRules
from app.http.routes import ENDPOINTS, match
from app.services.access.bearer import Bearer, Realm
from tests.http.support import ABSENT, contents, refused, served
from tests.support.registry import digest_of, image

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from tests.support.registry import Registry

KEY: Final = ec.generate_private_key(ec.SECP256R1())
ISSUER, SERVICE, REALM = "the-issuer", "the-registry", "https://tokens.test/token"
UPLOAD: Final = "00000000-0000-4000-8000-000000000000"
# Each endpoint's path with the parts filled in.
PATHS: Final = {
    "root": "/",
    "v2.base": "/v2/",
    "auth.token": "/auth/token",
    "v2.catalog": "/v2/_catalog",
    "v2.tags": "/v2/mine/app/tags/list",
    "v2.referrers": f"/v2/mine/app/referrers/{ABSENT}",
    "v2.manifest": "/v2/mine/app/manifests/latest",
    "v2.blob": f"/v2/mine/app/blobs/{ABSENT}",
    "v2.uploads": "/v2/mine/app/blobs/uploads/",
    "v2.upload": f"/v2/mine/app/blobs/uploads/{UPLOAD}",
}
# What each method demands, as the protocol has it: written a second time on purpose.
DEMANDS: Final = {
    ("root", "GET"): "open",
    ("root", "HEAD"): "open",
    ("v2.base", "GET"): "login",
    ("v2.base", "HEAD"): "login",
    ("auth.token", "GET"): "open",
    ("auth.token", "POST"): "open",
    ("v2.catalog", "GET"): "catalog",
    ("v2.catalog", "HEAD"): "catalog",
    ("v2.tags", "GET"): "pull",
    ("v2.tags", "HEAD"): "pull",
    ("v2.referrers", "GET"): "pull",
    ("v2.referrers", "HEAD"): "pull",
    ("v2.manifest", "GET"): "pull",
    ("v2.manifest", "HEAD"): "pull",
    ("v2.manifest", "PUT"): "push",
    ("v2.manifest", "DELETE"): "delete",
    ("v2.blob", "GET"): "pull",
    ("v2.blob", "HEAD"): "pull",
    ("v2.blob", "DELETE"): "delete",
    ("v2.uploads", "POST"): "push",
    ("v2.upload", "GET"): "push",
    ("v2.upload", "HEAD"): "push",
    ("v2.upload", "PATCH"): "push",
    ("v2.upload", "PUT"): "push",
    ("v2.upload", "DELETE"): "push",
}
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
# What a client is told to ask for.
SCOPES: Final = {
    "open": "",
    "login": "",
    "catalog": "registry:catalog:*",
    "pull": "repository:mine/app:pull",
    "push": "repository:mine/app:pull,push",
    "delete": "repository:mine/app:delete",
}


def token(*access: dict[str, Any], **claims: Any) -> str:
    now = int(time.time())
    usual = {"iss": ISSUER, "aud": SERVICE, "sub": "alice", "nbf": now - 5, "exp": now + 300}
    return jwt.encode({**usual, "access": list(access), **claims}, KEY, "ES256")


def repository(name: str, *actions: str) -> dict[str, Any]:
    return {"type": "repository", "name": name, "actions": list(actions)}


CATALOG: Final = {"type": "registry", "name": "catalog", "actions": ["*"]}
EVERYTHING_ELSE: Final = {
    "catalog": [
        repository("mine/app", "*"),
        repository("catalog", "*"),
        {**CATALOG, "actions": ["pull", "push"]},
    ],
    "pull": [repository("mine/app", "push", "delete"), repository("mine", "*"), CATALOG],
    "push": [repository("mine/app", "pull", "delete"), repository("mine/*", "*"), CATALOG],
    "delete": [repository("mine/app", "pull", "push"), repository("mine/app/", "*"), CATALOG],
}
JUST_ENOUGH: Final = {
    "catalog": [CATALOG],
    "pull": [repository("mine/app", "pull")],
    "push": [repository("mine/app", "push")],
    "delete": [repository("mine/app", "delete")],
}


def guarded(**rules: Any) -> dict[str, Any]:
    verifier = Verifier(lambda: KEYS, issuer=ISSUER, service=SERVICE)
    return {
        "controller": Bearer(verifier, Realm(SERVICE, REALM)),
        "rules": ApiRules(delete_enabled=True, **rules),
    }


KEYS: Final = KeySet([trusted(KEY.public_key())])


def rows() -> Iterator[tuple[str, str, str]]:
    """Every method that a route has: endpoint, method, demand."""
    for endpoint in ENDPOINTS:
        for method, operation in endpoint.operations.items():
            yield endpoint.id, method, operation.demand.value


async def ask(registry: Registry, endpoint: str, method: str, credentials: str | None) -> httpx.Response:
    headers = {} if credentials is None else {"Authorization": credentials}
    return await registry.client.request(method, PATHS[endpoint], headers=headers)


def assert_challenged(answer: httpx.Response, scope: str, error: str = "") -> None:
    """The answer is 401 with the challenge that clients parse, and a body that names what was missing."""
    more = "".join(f',{key}="{value}"' for key, value in (("scope", scope), ("error", error)) if value)
    assert answer.headers.get_list("WWW-Authenticate") == [
        f'Bearer realm="{REALM}",service="{SERVICE}"{more}'
    ]
    if answer.request.method == "HEAD":
        assert (answer.status_code, answer.content) == (401, b"")
        return
    detail = refused(answer, 401, "UNAUTHORIZED")
    entries = [one.rsplit(":", 1) for one in scope.split(" ") if one]
    expected = [
        {"Type": thing.split(":")[0], "Class": "", "Name": thing.split(":", 1)[1], "Action": action}
        for thing, actions in entries
        for action in actions.split(",")
    ]
    assert detail == (expected or None)


def test_table_when_compared_with_the_routes_then_has_every_row_and_no_other() -> None:
    assert {(endpoint, method): demand for endpoint, method, demand in rows()} == DEMANDS
    assert set(PATHS) == {endpoint.id for endpoint in ENDPOINTS}
    for name, path in PATHS.items():
        found = match(path)
        assert found is not None
        assert found[0].id == name


def test_demands_when_listed_then_are_all_in_the_table() -> None:
    known = {one.value for one in itertools.chain(Action, Door)}
    assert set(DEMANDS.values()) == known == set(SCOPES)


@served(**guarded())
async def test_route_when_the_caller_has_no_token_asks_for_one_unless_it_is_open(registry: Registry) -> None:
    before = await contents(registry)
    for endpoint, method, demand in rows():
        # Also what is no bearer token counts as none: the client is told to get one, not that it has a bad one.
        for credentials in (
            None,
            "",
            "Bearer",
            "Bearer ",
            "Basic YWxpY2U6c2VjcmV0",
            "Negotiate x",
            "bearertoken",
        ):
            answer = await ask(registry, endpoint, method, credentials)
            if demand == "open":
                assert answer.status_code != 401 or endpoint == "auth.token"
            else:
                assert_challenged(answer, SCOPES[demand])
    assert await contents(registry) == before


@served(**guarded())
async def test_route_when_the_token_is_for_something_else_refuses(registry: Registry) -> None:
    before = await contents(registry)
    for endpoint, method, demand in rows():
        wrong = [repository("other/app", "*"), *EVERYTHING_ELSE.get(demand, [])]
        answer = await ask(registry, endpoint, method, f"Bearer {token(*wrong)}")
        if demand in {"open", "login"}:
            assert answer.status_code != 401
        else:
            assert_challenged(answer, SCOPES[demand], "insufficient_scope")
        nothing = await ask(registry, endpoint, method, f"Bearer {token()}")
        assert (nothing.status_code == 401) == (demand not in {"open", "login"})
    assert await contents(registry) == before


@served(**guarded())
async def test_route_when_the_token_is_expired_or_a_strangers_refuses(registry: Registry) -> None:
    now = int(time.time())
    everything = [repository("mine/app", "*"), CATALOG]
    bad = [
        token(*everything, exp=now - 61),
        token(*everything, nbf=now + 120),
        token(*everything, iss="another"),
        token(*everything, aud="another"),
        jwt.encode(
            {"iss": ISSUER, "aud": SERVICE, "exp": now + 300, "access": everything},
            ec.generate_private_key(ec.SECP256R1()),
            "ES256",
        ),
        "not.a.token",
    ]
    before = await contents(registry)
    for (endpoint, method, demand), credentials in itertools.product(rows(), bad):
        answer = await ask(registry, endpoint, method, f"Bearer {credentials}")
        if demand == "open":
            assert answer.status_code != 401
        else:
            assert_challenged(answer, SCOPES[demand], "invalid_token")
    assert await contents(registry) == before


@served(**guarded())
async def test_route_when_the_token_is_right_answers_as_the_handler_does(registry: Registry) -> None:
    for endpoint, method, demand in rows():
        for scheme, access in itertools.product(
            ("Bearer", "bearer", "BEARER"),
            (JUST_ENOUGH.get(demand, []), [repository("mine/app", "*"), CATALOG]),
        ):
            answer = await ask(registry, endpoint, method, f"{scheme} {token(*access)}")
            assert answer.status_code != 401, (endpoint, method)
            assert "WWW-Authenticate" not in answer.headers


@served(**guarded())
async def test_method_when_a_route_has_none_is_405_whoever_asks(registry: Registry) -> None:
    for endpoint in ENDPOINTS:
        for method in set(METHODS) - set(endpoint.operations):
            for credentials in (None, f"Bearer {token(repository('mine/app', '*'))}"):
                answer = await ask(registry, endpoint.id, method, credentials)
                assert answer.status_code == 405
                assert answer.headers["Allow"] == ", ".join(endpoint.operations)


@served(**guarded(read_only=True))
async def test_registry_when_read_only_refuses_writes_with_405_whoever_asks(registry: Registry) -> None:
    full = f"Bearer {token(repository('mine/app', '*'), CATALOG)}"
    for endpoint in ENDPOINTS:
        for method, operation in endpoint.operations.items():
            for credentials in (None, full):
                status = (await ask(registry, endpoint.id, method, credentials)).status_code
                assert (status == 405) == operation.writes, (endpoint.id, method)


@served(**guarded(catalog_open=True))
async def test_catalog_when_open_is_for_every_caller_with_a_token_and_no_other(registry: Registry) -> None:
    assert_challenged(await registry.client.get("/v2/_catalog"), "")
    answer = await ask(registry, "v2.catalog", "GET", f"Bearer {token()}")
    assert (answer.status_code, answer.json()) == (200, {"repositories": []})


@served(**guarded())
async def test_header_when_there_are_two_is_refused_even_if_one_is_right(registry: Registry) -> None:
    right = f"Bearer {token(repository('mine/app', 'pull'))}"
    for pair in ((right, right), (right, "Basic YTpi"), ("Bearer x", right)):
        headers = [("Authorization", value) for value in pair]
        answer = await registry.client.get(PATHS["v2.tags"], headers=headers)
        assert_challenged(answer, SCOPES["pull"])


@served(**guarded())
async def test_name_when_malformed_is_never_repeated_in_a_challenge(registry: Registry) -> None:
    for name in ("a%22,realm=%22x", "A/b", "a/..", "a//b", "a%0d%0ab"):
        answer = await registry.client.get(f"/v2/{name}/tags/list")
        assert answer.status_code in {400, 404}
        assert "WWW-Authenticate" not in answer.headers


# ------------------------------------------------------------------------------------------------------ mount, uploads


async def push(registry: Registry, name: str, content: bytes) -> str:
    digest = digest_of(content)
    headers = {"Authorization": f"Bearer {token(repository(name, 'push'))}"}
    answer = await registry.client.post(
        f"/v2/{name}/blobs/uploads/?digest={digest}", content=content, headers=headers
    )
    assert answer.status_code == 201
    return digest


@served(**guarded())
async def test_mount_when_there_is_no_token_asks_for_both_repositories(registry: Registry) -> None:
    url = f"/v2/mine/app/blobs/uploads/?mount={ABSENT}&from="
    both = "repository:mine/app:pull,push repository:the/source:pull"
    assert_challenged(await registry.client.post(f"{url}the/source"), both)
    for source in ("", "mine/app", "No/Name", "a%22b"):
        assert_challenged(await registry.client.post(url + source), SCOPES["push"])


@pytest.mark.parametrize("exists", [True, False])
@served(**guarded())
async def test_mount_when_the_source_may_not_be_pulled_is_a_plain_upload(
    registry: Registry, *, exists: bool
) -> None:
    content = b"a secret layer"
    digest = await push(registry, "the/source", content) if exists else digest_of(content)
    url = f"/v2/mine/app/blobs/uploads/?mount={digest}&from=the/source"
    pushing = {"Authorization": f"Bearer {token(repository('mine/app', 'pull', 'push'))}"}
    answer = await registry.client.post(url, headers=pushing)
    assert (answer.status_code, answer.headers["Range"]) == (202, "0-0")
    # podman cancels such a session with the token that it pushes with.
    cancelled = await registry.client.delete(answer.headers["Location"], headers=pushing)
    assert cancelled.status_code == 204
    both = token(repository("mine/app", "push"), repository("the/source", "pull"))
    answer = await registry.client.post(url, headers={"Authorization": f"Bearer {both}"})
    assert answer.status_code == (201 if exists else 202)


@served(**guarded())
async def test_upload_when_another_repository_is_named_is_unknown_to_its_token(registry: Registry) -> None:
    headers = {"Authorization": f"Bearer {token(repository('mine/app', 'push'))}"}
    begun = await registry.client.post("/v2/mine/app/blobs/uploads/", headers=headers)
    session = begun.headers["Location"]
    elsewhere = session.replace("mine/app", "other/app")
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        answer = await registry.client.request(method, elsewhere, headers=headers)
        assert_challenged(answer, "repository:other/app:pull,push", "insufficient_scope")
        others = {"Authorization": f"Bearer {token(repository('other/app', 'push'))}"}
        answer = await registry.client.request(method, f"{elsewhere}?digest={ABSENT}", headers=others)
        refused(answer, 404, "BLOB_UPLOAD_UNKNOWN")
    assert (await registry.client.get(session, headers=headers)).status_code == 204


@served(**guarded())
async def test_repository_when_it_is_not_there_or_forbidden_has_the_same_answer(registry: Registry) -> None:
    pushed = image(b"a layer")
    for blob in pushed.blobs:
        await push(registry, "the/source", blob)
    headers = {"Authorization": f"Bearer {token(repository('the/source', 'push'))}"}
    url = "/v2/the/source/manifests/latest"
    put = await registry.client.put(
        url, content=pushed.payload, headers={**headers, "Content-Type": pushed.media_type}
    )
    assert put.status_code == 201
    stranger = {"Authorization": f"Bearer {token(repository('mine/app', 'pull'))}"}
    for tail in (
        "manifests/latest",
        f"manifests/{pushed.digest()}",
        "tags/list",
        f"blobs/{digest_of(b'a layer')}",
    ):
        for method in ("GET", "HEAD", "DELETE"):
            there = await registry.client.request(method, f"/v2/the/source/{tail}", headers=stranger)
            absent = await registry.client.request(method, f"/v2/not/theree/{tail}", headers=stranger)
            assert there.status_code == absent.status_code
            assert there.text.replace("the/source", "not/theree") == absent.text
            assert [v.replace("the/source", "not/theree") for v in there.headers.values()] == list(
                absent.headers.values()
            )
