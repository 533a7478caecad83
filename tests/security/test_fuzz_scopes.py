"""What is asked of the built-in token service, whatever it is: never a 5xx, never a right that was not granted.

An oracle of its own says what a token may hold at most, and it holds that: entries for things that were asked for by
that very name, that are repositories' names, with actions that were asked for and are granted. Stands for GitLab
CVE-2019-12825 (scopes), Quay CVE-2026-123710 (a token for an audience that the client chose), Gitea CVE-2026-27771
(tokens for nobody).
"""

from __future__ import annotations

import asyncio
import functools
import re
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, quote_plus

import jwt
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.badinput.support import differences, opened_ledger
from tests.http.support import ask
from tests.security.support import add_account, basic, grant_everybody, guarded
from tests.support.effort import EFFORT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import httpx

    from app.store.engine import Target
    from tests.badinput.support import Ledger
    from tests.support.registry import Registry

TRY: Final = settings(
    max_examples=80 * EFFORT,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example],
)
Access = dict[tuple[str, str], frozenset[str]]
PASSWORD: Final = "correct horse battery"
IN_REPOSITORY: Final = ("pull", "push", "delete")
EVERYBODY: Final = {"public/**": "pull"}
# Whoever may log in, with what they are granted; None may everything.
ACCOUNTS: Final[Mapping[str, dict[str, str] | None]] = {
    "alice": {"team-a/**": "pull,push,delete", "shared/*": "pull", "**/cache": "push", "a-*/x*y": "pull"},
    "lister": {"": "catalog", "team-b": "pull"},
    "nothing": {},
    "root": None,
}
REAL: Final = (
    *("team-a", "team-a/app", "team-a/app/cache", "team-b", "team-b/app", "shared/one", "shared/one/two"),
    *("public/app", "a-b/xy", "cache", "catalog", "other"),
)


# The oracle.


def granted_to(account: str) -> dict[str, str] | None:
    if not account:
        return EVERYBODY
    own = ACCOUNTS[account]
    return None if own is None else {**EVERYBODY, **own}


def fits(pattern: Sequence[str], parts: Sequence[str], *, is_below: bool = False) -> bool:
    """Whether a pattern, part for part, is about a repository."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        # What lies below something is at least one part long.
        least = 1 if is_below and len(pattern) == 1 else 0
        return any(fits(pattern[1:], parts[n:], is_below=is_below) for n in range(least, len(parts) + 1))
    if not parts:
        return False
    one = ".*".join(map(re.escape, pattern[0].split("*")))
    return re.fullmatch(one, parts[0], re.DOTALL) is not None and fits(pattern[1:], parts[1:], is_below=True)


def is_repository(name: str) -> bool:
    part = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
    return len(name) <= 255 and re.fullmatch(f"{part}(?:/{part})*", name) is not None


def may(account: str, action: str, name: str) -> bool:
    granted = granted_to(account)
    if granted is None:
        return True
    return any(
        action in actions.split(",") and (action == "catalog" or fits(pattern.split("/"), name.split("/")))
        for pattern, actions in granted.items()
    )


def asked_for(texts: Iterable[str]) -> Access:
    """What the scopes ask for, each thing by its whole name. Only called with scopes that were taken."""
    asked: Access = {}
    for word in (word for text in texts for word in text.split(" ") if word):
        kind, _, rest = word.partition(":")
        name, _, actions = rest.rpartition(":")
        key = re.sub(r"\(.*", "", kind), name
        asked[key] = asked.get(key, frozenset()) | frozenset(actions.split(","))
    return asked


def expected(account: str, texts: Iterable[str]) -> Access:
    """What the token holds: no more, and no less."""
    found: Access = {}
    for (kind, name), actions in asked_for(texts).items():
        allowed: set[str] = set()
        if (kind, name) == ("registry", "catalog"):
            allowed = {"*"} if "*" in actions and may(account, "catalog", "") else set()
        elif kind == "repository" and is_repository(name):
            wanted = IN_REPOSITORY if "*" in actions else actions & {*IN_REPOSITORY}
            allowed = {action for action in wanted if may(account, action, name)}
        if allowed:
            found[kind, name] = frozenset(allowed)
    return found


# The scopes.

HOSTILE: Final = (
    *("..", "../team-a", "team-a/../team-b", "team-a/..", "team-a/./app", "team-a//app", "/team-a/app", "team-a/"),
    *("*", "**", "team-a/*", "team-a/**", "te*m-a/app", "team-?/app", "[a-z]/app", "public/*", "*/cache"),
    *("TEAM-A/app", "Team-a/app", "team-a/App", "tEAm-a", "\uff54eam-a/app", "te\u0430m-a/app", "team-a/caf\u00e9"),
    *("team-a/app\0", "team-b\0/team-a", "team-a/app\n", "team-a/app\r\nx", "team-a\t/app", "team-a/app\u200b"),
    *("host:5000/team-a/app", "team-a:x/app", ":", "::", "team-a/app:latest", "team-a/app@sha256:00", "team-b:team-a"),
    *("team-a%2fapp", "team-a%252fapp", "%2e%2e", "team-a/%2e%2e/team-b", "team-a\\app", "team-a/app;x", "team-a,app"),
    *("\U0001f40b", "e\u0301", "\u202eppa/a-maet", "team-a/" + "x" * 300, "x" * 1020, "a/" * 127 + "a"),
    *("", "'", '"', "{}", "a-/xy", "a-.b/xy", "registry", "repository:team-a/app", "team-a/app:* repository:team-b"),
)  # fmt: skip
KINDS: Final = ("repository",) * 12 + (
    *(
        "registry",
        "registry",
        "registry",
        "repository(plugin)",
        "repository()",
        "Repository",
        "repository ",
        "",
        "*",
    ),
    *("repositor\u0443", "repository\0", "repositories", "x", "REGISTRY"),
)
ACTIONS: Final = ("pull", "push", "delete", "*") * 4 + (
    *(
        "catalog",
        "PULL",
        "pull ",
        "",
        "admin",
        "p*",
        "**",
        "pull:push",
        "..",
        "pull\0",
        "\u0440ull",
        "all",
        "read",
    ),
)
LIKELY_NAMES: Final = st.sampled_from((*REAL, *HOSTILE))
NAMES: Final = st.one_of(
    LIKELY_NAMES,
    LIKELY_NAMES,
    st.text(max_size=30),
    st.from_regex(r"\A(team-a|public|shared)(/[a-z.*_-]{0,4}){0,3}\Z"),
)
SCOPES: Final = st.builds(
    "{}:{}:{}".format,
    st.sampled_from(KINDS),
    NAMES,
    st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=4).map(",".join),
) | st.text(max_size=20)
# Half of the requests consist of scopes that can be taken, so that tokens are looked at and not refusals alone.
TAKEN: Final = st.builds(
    "{}:{}:{}".format,
    st.sampled_from(["repository", "repository", "registry", "repository(plugin)"]),
    st.sampled_from([name for name in (*REAL, *HOSTILE) if name and " " not in name and name.isprintable()]),
    st.lists(st.sampled_from(ACTIONS[:17]), min_size=1, max_size=3).map(",".join),
)
ASKED: Final = st.lists(TAKEN, max_size=6) | st.lists(SCOPES, max_size=4)
ENCODED: Final[Mapping[str, Callable[[str], str]]] = {
    "percent": lambda text: quote(text, safe=""),
    "plus": quote_plus,
    "little": lambda text: quote(text, safe=":/,*()"),
}
FORMS: Final = ("get", "post", "refresh")
WHO: Final = st.sampled_from(["", *ACCOUNTS])


class Service:
    """The token service, and a registry that believes it."""

    def __init__(self, registry: Registry, ledger: Ledger, refresh_tokens: Mapping[str, str]) -> None:
        self.registry = registry
        self._ledger = ledger
        self._refresh_tokens = refresh_tokens

    async def get(self, account: str, query: str) -> httpx.Response:
        headers = [("Authorization", basic(account, PASSWORD))] if account else []
        return await ask(self.registry, "GET", f"/auth/token?{query}", headers)

    async def post(self, account: str, form: str, *, refreshes: bool) -> httpx.Response:
        login = f"grant_type=password&username={account}&password={quote_plus(PASSWORD)}"
        if refreshes and account in self._refresh_tokens:
            login = f"grant_type=refresh_token&refresh_token={self._refresh_tokens[account]}"
        headers = [("Content-Type", "application/x-www-form-urlencoded")]
        return await ask(self.registry, "POST", "/auth/token", headers, f"{login}&{form}".encode())

    async def check(self, answer: httpx.Response, account: str, scopes: Sequence[str]) -> None:
        """The answer is a refusal that is well formed, or a token with what is granted and nothing else."""
        assert answer.status_code in (200, 400), answer.text
        if answer.status_code == 400:
            document = answer.json()
            assert document["error"] in {"invalid_scope", "invalid_request"}
            assert document["errors"][0]["detail"]
            assert "token" not in document
            return
        document = answer.json()
        claims = jwt.decode(document["token"], options={"verify_signature": False})
        assert (claims["aud"], claims["iss"], claims["sub"]) == ("registry", "registry", account)
        entries = {(one["type"], one["name"]): frozenset(one["actions"]) for one in claims["access"]}
        assert entries == expected(account, scopes)
        assert len(entries) == len(claims["access"])
        assert asked_for([document["scope"]]) == entries
        await self._check_use(document["token"], entries)

    async def _check_use(self, token: str, entries: Access) -> None:
        """Where the token lets its bearer in is where an entry has exactly that name."""
        headers = [("Authorization", f"Bearer {token}")]
        named = {name for _, name in entries}
        for name in (*REAL[:2], *(name for name in REAL[2:] if name in named)):
            pulled = await ask(self.registry, "GET", f"/v2/{name}/tags/list", headers)
            assert (pulled.status_code == 401) == ("pull" not in entries.get(("repository", name), ()))
        pushed = await ask(self.registry, "DELETE", "/v2/team-a/app/manifests/latest", headers)
        deletes = "delete" in entries.get(("repository", "team-a/app"), ())
        assert pushed.status_code == (404 if deletes else 401)
        listed = await ask(self.registry, "GET", "/v2/_catalog", headers)
        assert (listed.status_code == 200) == (("registry", "catalog") in entries)

    async def held(self) -> dict[str, Any]:
        return await self._ledger.look()


async def open_service(stack: AsyncExitStack, database: Target, root: Path) -> Service:
    auth = {"issuer": {"key": str(root / "key.pem")}}
    registry = await stack.enter_async_context(guarded(database, root / "objects", auth))
    await grant_everybody(registry.database, EVERYBODY)
    refresh_tokens: dict[str, str] = {}
    for name, granted in ACCOUNTS.items():
        await add_account(registry.database, name, PASSWORD, granted or {}, is_admin=granted is None)
        first = await registry.client.get(
            "/auth/token",
            params={"offline_token": "true"},
            headers={"Authorization": basic(name, PASSWORD)},
        )
        refresh_tokens[name] = first.json()["refresh_token"]
    ledger = await stack.enter_async_context(opened_ledger(database, root / "objects"))
    return Service(registry, ledger, refresh_tokens)


def with_service(
    database: Target,
    root: Path,
    attempt: Any,
    # When something was used last is written down.
    may_change: frozenset[str] = frozenset({"refresh_tokens", "account_secrets"}),
) -> None:
    """Run `attempt(service, run)` with a service; `run` runs a coroutine. Only tables in `may_change` change by it."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        service = runner.run(open_service(stack, database, root))
        try:
            before = runner.run(service.held())
            attempt(service, runner.run)
            assert {*differences(before, runner.run(service.held()))} <= may_change
        finally:
            runner.run(stack.aclose())


def test_token_when_any_scopes_are_asked_for_has_what_is_granted_of_them_and_nothing_else(
    database: Target, tmp_path: Path
) -> None:
    def attempt(service: Service, run: Any) -> None:
        @TRY
        @given(
            who=WHO,
            scopes=ASKED,
            encode=st.sampled_from([*ENCODED]),
            form=st.sampled_from(["get", "post", "refresh"]),
        )
        @example(
            who="alice", scopes=[f"repository:team-a/{n}:*" for n in range(100)], encode="percent", form="get"
        )
        @example(
            who="alice", scopes=[f"repository:team-a/{n}:*" for n in range(101)], encode="percent", form="get"
        )
        @example(who="root", scopes=["repository:*:*", "registry:catalog:*"], encode="percent", form="post")
        @example(
            who="alice",
            scopes=["repository:team-a/*:*", "repository:team-a/..:*"],
            encode="percent",
            form="get",
        )
        @example(
            who="", scopes=["repository:team-a/app:*", "registry:catalog:*"], encode="percent", form="get"
        )
        @example(who="alice", scopes=["repository:x:pull"] * 4000, encode="percent", form="get")
        def check(who: str, scopes: list[str], encode: str, form: str) -> None:
            fields = "&".join(f"scope={ENCODED[encode](scope)}" for scope in scopes)
            if form == "get" or not who:
                answer = run(service.get(who, fields))
            else:
                answer = run(service.post(who, fields, refreshes=form == "refresh"))
            run(service.check(answer, who, scopes))

        check()

    with_service(database, tmp_path, attempt)


AUDIENCES: Final = (
    *(
        "registry",
        "",
        "Registry",
        "registry ",
        " registry",
        "registry,other",
        "other",
        "registry\0",
        "https://registry",
    ),
    *("the-registry", "*", "registry\nx", "\u0433egistry", "x" * 5000, '["registry"]', "container_registry"),
)


def test_token_when_the_client_names_a_service_is_for_this_one_or_is_none(
    database: Target, tmp_path: Path
) -> None:
    scope = "repository:public/app:pull"

    def attempt(service: Service, run: Any) -> None:
        for wanted in AUDIENCES:
            for who in ("", "alice"):
                for query in (
                    f"service={quote(wanted)}",
                    f"service=registry&audience={quote(wanted)}&aud={quote(wanted)}&issuer=x&account=root",
                ):
                    answer = run(service.get(who, f"{query}&scope={scope}"))
                    named_other = query.startswith("service=") and "aud=" not in query
                    refuses = named_other and wanted not in ("", "registry")
                    assert answer.status_code == (400 if refuses else 200), (wanted, answer.text)
                    run(service.check(answer, who, [scope]))
                    assert answer.status_code == 400 or "root" not in answer.text

    with_service(database, tmp_path, attempt)


def fields(names: Sequence[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.tuples(st.sampled_from(names), values)
    return st.lists(pairs, max_size=6).map(
        lambda some: "&".join(f"{name}={quote(value, safe='&=;+%')}" for name, value in some)
    )


FORM_NAMES: Final = (
    *("grant_type", "service", "scope", "username", "password", "refresh_token", "access_type", "client_id"),
    *("offline_token", "account", "client_secret", "Grant_Type", "grant_type[]", "\0", ""),
)
FORM_VALUES: Final = st.sampled_from(
    ["password", "refresh_token", "authorization_code", "client_credentials", "registry", "offline", "root", "alice",
     "rgr_x", "true", "", "&", "%", "%zz", "%00", "a;b=c", "x" * 9000, "\ud7ff", "repository:public/app:pull"]
) | st.text(max_size=10)  # fmt: skip
TYPES: Final = (
    *(
        "application/x-www-form-urlencoded",
        "application/x-www-form-urlencoded; charset=utf-16",
        "application/json",
    ),
    *("multipart/form-data; boundary=x", "", "APPLICATION/X-WWW-FORM-URLENCODED ", "\xff", "x" * 3000),
)


def test_request_when_it_is_anything_gets_no_token_that_somebody_has_to_log_in_for(
    database: Target, tmp_path: Path
) -> None:
    """No such request has a right password: what comes of it is a refusal, or a token for nobody."""

    def attempt(service: Service, run: Any) -> None:
        send = functools.partial(ask, service.registry, "POST", "/auth/token")

        @TRY
        @given(
            query=fields(FORM_NAMES, FORM_VALUES),
            body=fields(FORM_NAMES, FORM_VALUES).map(str.encode) | st.binary(max_size=60),
            kind=st.sampled_from(TYPES),
        )
        @example(query="", body=b"a=" + b"x" * 40_000, kind=TYPES[0])
        @example(query="", body=b"a&" * 16_000, kind=TYPES[0])
        @example(query="&".join(["scope=repository:public/app:pull"] * 3000), body=b"", kind="")
        def check(query: str, body: bytes, kind: str) -> None:
            answer = run(service.get("", query))
            assert answer.status_code in (200, 400)
            if answer.status_code == 200:
                claims = jwt.decode(answer.json()["token"], options={"verify_signature": False})
                assert (claims["aud"], claims["sub"], claims["auth_type"]) == ("registry", "", "anonymous")
                assert {one["name"] for one in claims["access"]} <= {"public/app"}
                assert "refresh_token" not in answer.json()
            posted = run(send([("Content-Type", kind)] if kind else [], body))
            assert posted.status_code in (400, 401, 429)
            document = posted.json()
            assert "token" not in document
            assert document["error"]
            refused = [answer, posted] if answer.status_code == 400 else [posted]
            for one in refused:
                del one.headers["Content-Length"]
                assert len(one.content) < 4000

        check()

    with_service(database, tmp_path, attempt, may_change=frozenset({"login_failures"}))
