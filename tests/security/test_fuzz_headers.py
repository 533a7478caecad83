"""Authorization headers, whatever they are, for every provider: never a 5xx, and in comes who has the right ones.

An oracle of its own says which headers are right. Whoever is refused is told so by a challenge that can be parsed to
its last byte and says what the registry was told to say, whatever the request has in Host, Forwarded and their like;
and has changed nothing, in no table but that of failed logins, and in no file.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import re
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import bcrypt
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.badinput.support import Ledger, assert_well_formed, differences, opened_ledger
from tests.http.support import ABSENT, ask
from tests.security.support import (
    REALM,
    SERVICE,
    Outside,
    add_account,
    basic,
    challenge_of,
    entry,
    guarded,
)
from tests.support.effort import EFFORT
from tests.support.registry import image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx

    from app.store.engine import Target
    from tests.support.registry import Registry

TRY: Final = settings(
    max_examples=20 * EFFORT,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example],
)
PROVIDERS: Final = ("none", "silly", "token", "htpasswd", "issuer")
NAME, PASSWORD = "alice", "correct:horse b\u00e4ttery"
# Whatever an operator writes there must come out as one value.
AWKWARD: Final = 'a "realm", of \\ours\\"'
CANARY: Final = b"only for those who may"
PRIVATE: Final = "/v2/team/app/manifests/latest"
Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Subject:
    """A registry with one private image, the value of an Authorization header that is right, and what it challenges."""

    provider: str
    registry: Registry
    ledger: Ledger
    right: str
    scheme: str
    expected: dict[str, str]

    def is_right(self, headers: Pairs) -> bool:
        """Whether the request has what lets it in: the oracle."""
        values = [value for name, value in headers if name.lower() == "authorization"]
        if self.provider == "none":
            return True
        if self.provider == "silly":
            return any(value.strip() for value in values)
        if len(values) != 1:
            return False
        scheme, _, rest = values[0].strip(" \t").partition(" ")
        if scheme.lower() != self.scheme.lower():
            return False
        wanted = self.right.partition(" ")[2]
        return rest.strip(" ") == wanted


async def open_subject(
    stack: AsyncExitStack, provider: str, database: Target, root: Path, **sections: Any
) -> Subject:
    outside = Outside(root)
    users = root / "htpasswd"
    users.write_bytes(f"{NAME}:".encode() + bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)) + b"\n")
    tokens = {"realm": REALM, "service": SERVICE}
    sections_of: dict[str, tuple[dict[str, Any], str, dict[str, str]]] = {
        "none": ({}, "", {}),
        "silly": ({"silly": {"realm": AWKWARD, "service": AWKWARD}}, "", {"realm": AWKWARD, "service": AWKWARD}),
        "token": (outside.auth(), "Bearer", tokens),
        "htpasswd": ({"htpasswd": {"realm": AWKWARD, "path": str(users)}}, "Basic", {"realm": AWKWARD}),
        "issuer": (
            {"issuer": {"key": str(root / "key.pem"), "service": AWKWARD, "realm": REALM}},
            "Bearer",
            {"realm": REALM, "service": AWKWARD},
        ),
    }  # fmt: skip
    auth, scheme, expected = sections_of[provider]
    registry = await stack.enter_async_context(guarded(database, root / "objects", auth, **sections))
    right = basic(NAME, PASSWORD)
    if provider == "token":
        right = f"Bearer {outside.token(entry('team/app', '*'))}"
    elif provider == "issuer":
        await add_account(registry.database, NAME, PASSWORD, {"team/**": "pull,push,delete"})
        scope = {"scope": "repository:team/app:*"}
        answer = await registry.client.get("/auth/token", params=scope, headers={"Authorization": right})
        right = f"Bearer {answer.json()['token']}"
    registry.client.headers["Authorization"] = right
    await registry.push_image("team/app", "latest", image(b"a layer", annotations={"c": CANARY.decode()}))
    ledger = await stack.enter_async_context(opened_ledger(database, root / "objects"))
    return Subject(provider, registry, ledger, right, scheme, expected)


# Where a caller is asked who they are, and the scope that they are told to ask for.
ASKS: Final = {
    ("GET", "/v2/"): "",
    ("GET", PRIVATE): "repository:team/app:pull",
    ("GET", "/v2/_catalog"): "registry:catalog:*",
    ("PUT", "/v2/team/app/manifests/new"): "repository:team/app:pull,push",
    ("DELETE", PRIVATE): "repository:team/app:delete",
    ("POST", "/v2/team/app/blobs/uploads/"): "repository:team/app:pull,push",
    ("POST", f"/v2/team/app/blobs/uploads/?mount={ABSENT}&from=the/source"):
        "repository:team/app:pull,push repository:the/source:pull",
}  # fmt: skip


async def try_out(subject: Subject, headers: Pairs) -> None:
    """Send the headers everywhere: in with the right ones, and nothing but a challenge for the others."""
    before = await subject.ledger.look()
    is_right = subject.is_right(headers)
    for (method, target), scope in ASKS.items():
        if is_right and (method != "GET" or target == "/v2/_catalog"):
            continue
        answer = await ask(subject.registry, method, target, headers)
        assert_well_formed(answer, method=method)
        if is_right:
            assert answer.status_code == 200, (headers, answer.text)
            continue
        # 429: so many wrong passwords from one address.
        assert answer.status_code in ((401, 429) if subject.provider == "htpasswd" else (401,)), headers
        assert CANARY not in answer.content
        if answer.status_code == 401:
            check_challenge(subject, answer, scope)
    changed = differences(before, await subject.ledger.look())
    assert {*changed} <= ({"login_failures"} if subject.provider == "htpasswd" else set())


def check_challenge(subject: Subject, answer: httpx.Response, scope: str) -> None:
    headers = answer.headers.get_list("WWW-Authenticate")
    assert len(headers) == 1
    challenge = challenge_of(headers[0])
    assert challenge.scheme == (subject.scheme or "Bearer")
    parameters = dict(challenge.parameters)
    error = parameters.pop("error", "invalid_token")
    assert error in {"invalid_token", "insufficient_scope"}
    wanted = {"scope": scope} if scope and challenge.scheme == "Bearer" else {}
    assert parameters == {**subject.expected, **wanted}


def with_subject(
    provider: str,
    database: Target,
    root: Path,
    attempt: Callable[[Subject, Any], None],
    **sections: Any,
) -> None:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        subject = runner.run(open_subject(stack, provider, database, root, **sections))
        try:
            attempt(subject, runner.run)
        finally:
            runner.run(stack.aclose())


# The headers.

SCHEMES: Final = (
    *(
        "Basic",
        "Bearer",
        "bearer",
        "BEARER",
        "bAsIc",
        "Digest",
        "Negotiate",
        "Token",
        "JWT",
        "Bearer:",
        "Bearer=",
    ),
    *(
        "",
        " ",
        "*",
        "\t",
        "Basic\t",
        "Bearer\t",
        "Bearer,",
        "Basic Bearer",
        "Bearer Bearer",
        "Bea\u00adrer",
        "\xa0Bearer",
    ),
)
SEPARATORS: Final = (
    *(" ", "  ", "\t", "", " \t", "=", ",", "\n", "\r\n ", "\r\nAuthorization: ", "\0", "\xa0", "\x0b", ";"),
)  # fmt: skip


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


# What stands behind a scheme; `{right}` is what would be right there.
CREDENTIALS: Final = (
    *("{right}", "{right} ", "{right}\t", "{right},", "{right},Bearer {right}", "{right}x", "x{right}", "{right}="),
    *("{right}\0", '"{right}"', "{right}\n", "{right} {right}", "{right}\xa0", "{right}.", "token={right}"),
    *("{right}\x85", "{right}\x1f", "{right}\r", "\xa0{right}", "{right}\v"),
    *("", " ", ":", "=", "====", "a", "ab", "abc", "!!!!", "YQ", "YQ=", "YQ===", "Y Q = =", "YQ==\n", "-_-_"),
    *(encoded("alice"), encoded(""), encoded(":"), encoded(":x"), encoded("alice:"), encoded("a:b:c")),
    *(encoded("\0:\0"), encoded("alice")[:-1]),
    *(encoded(b"\xff\xfe:\xff"), encoded("alice:wrong"), encoded("ALICE:" + PASSWORD), encoded("alice\0:" + PASSWORD)),
    *(encoded(f"alice:{PASSWORD}\0"), encoded("alice:" + "x" * 5000), encoded("x" * 5000 + ":x"), encoded("x:" * 8000)),
    *("a.b.c", "..", ".", "...." * 1000, "eyJhbGciOiJub25lIn0.e30.", "eyJhbGciOiJub25lIn0.e30.AA", "." * 60_000),
    *("x" * 65_536, "\xe9" * 40_000, "\u00ff", "caf\xe9", "%20", "null", "undefined", "true", "{}", "' OR 1=1 --"),
)  # fmt: skip
VALUES: Final = st.builds(
    "{}{}{}".format,
    st.sampled_from((*SCHEMES[:3] * 4, *SCHEMES)),
    st.sampled_from((*SEPARATORS[:1] * 20, *SEPARATORS)),
    st.sampled_from(CREDENTIALS) | st.text("abc=+/.:_-0 \t\xff\0", max_size=30),
) | st.binary(max_size=40).map(lambda raw: raw.decode("latin-1"))
HEADERS: Final = st.lists(VALUES, max_size=3)
# What a proxy, or somebody who plays one, may send beside it.
OTHERS: Final = (
    *(("X-Forwarded-User", NAME), ("X-Remote-User", NAME), ("Proxy-Authorization", "{right_header}")),
    *(("Cookie", "token={right}"), ("X-Authorization", "{right_header}"), ("X-Original-URL", "/")),
    *(("X-Rewrite-URL", "/"), ("X-HTTP-Method-Override", "GET"), ("X-Forwarded-For", "127.0.0.1")),
    ("Forwarded", "for=127.0.0.1;by=unix"),
)  # fmt: skip


def filled(template: str, right: str) -> str:
    return template.replace("{right_header}", right).replace("{right}", right.partition(" ")[2])


async def try_spellings(subject: Subject, scheme: str) -> None:
    """What is right, with something before, behind or within it: all that is near enough to be taken for it."""
    before = await subject.ledger.look()
    near = [one for one in CREDENTIALS if "{right}" in one]
    for separator, credentials in itertools.product(SEPARATORS, near):
        value = scheme + separator + filled(credentials, subject.right)
        headers = [("Authorization", value)]
        answer = await ask(subject.registry, "GET", PRIVATE, headers)
        assert (answer.status_code == 200) == subject.is_right(headers), (separator, credentials, answer.text)
    changed = differences(before, await subject.ledger.look())
    assert {*changed} <= {"login_failures"}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_request_when_its_authorization_is_anything_is_let_in_only_if_it_is_right(
    provider: str, database: Target, tmp_path: Path
) -> None:
    def attempt(subject: Subject, run: Any) -> None:
        scheme = subject.scheme or "Bearer"
        run(try_spellings(subject, scheme))

        @TRY
        @given(values=HEADERS, others=st.lists(st.sampled_from(OTHERS), max_size=2))
        @example(values=[], others=list(OTHERS))
        @example(values=["{right_header}"], others=list(OTHERS))
        @example(values=["{right_header}", "{right_header}"], others=[])
        @example(values=[scheme.upper() + "   {right}  "], others=[])
        @example(values=[scheme + "\t{right}"], others=[])
        @example(values=["{right_header},{right_header}"], others=[])
        @example(values=[scheme + " " + "x" * 65_536], others=[])
        def check(values: list[str], others: Pairs) -> None:
            given_values = [("Authorization", filled(value, subject.right)) for value in values]
            beside = [(name, filled(value, subject.right)) for name, value in others]
            run(try_out(subject, given_values + beside))

        check()

    with_subject(provider, database, tmp_path, attempt)


def test_credentials_when_each_form_is_malformed_are_refused_by_the_token_service(
    database: Target, tmp_path: Path
) -> None:
    """The same headers at /auth/token, which takes Basic: a token comes of the right one, and of none at all."""

    def attempt(subject: Subject, run: Any) -> None:
        right = basic(NAME, PASSWORD)
        for scheme in ("Basic", "Bearer", "basic", "Digest", ""):
            for credentials in CREDENTIALS:
                value = f"{scheme} {filled(credentials, right)}"
                answer = run(ask(subject.registry, "GET", "/auth/token", [("Authorization", value)]))
                is_right = re.fullmatch(f"(?i:basic) {re.escape(right[6:])} *", value) is not None
                # 429: so many wrong passwords from one address.
                assert answer.status_code in ((200,) if is_right else (401, 429)), (value[:200], answer.text)
                assert ("token" in answer.json()) == is_right
                if answer.status_code == 401:
                    assert challenge_of(answer.headers["WWW-Authenticate"]) == ("Basic", {"realm": AWKWARD})

    with_subject("issuer", database, tmp_path, attempt)


# The realm.

HOSTS: Final = (
    *('x"', 'x",error="y', "x,realm=y", "x y", "x\\", "x\\\\", "x\r\nSet-Cookie: a=b", "x\n", "x\0", "x\t", "x;"),
    *("<x>", "x'", "user:pw@evil.test"),
    *("x@evil.test", "evil.test/", "evil.test/auth?", "evil.test#", "//evil.test", "\xe9", "x\xa0y"),
    *("[::1]", "[::1", "::1", "[::1]:5000", "[g]", "a:b", "a:99999999", "a:", ":5000", "", " ", ".", "..", "-"),
    *("evil.test, registry.test", "registry.test", "registry.test:5000", "127.0.0.1", "%22", "*"),
    *("x%0d%0ay", "javascript:x", "x" * 3000),
)  # fmt: skip
SCHEMES_SAID: Final = (
    *("http", "https", "HTTPS", "https ", 'https"', "javascript", "https,http", "", "\0", "ftp", "https://x"),
)  # fmt: skip
FORWARDED: Final = (
    *("host={0};proto={1}", 'host="{0}";proto="{1}"', "for=1;host={0}", 'host="{0}', "{0}", "host=a;host={0}"),
    *("proto={1}, host={0}", ";;;=;={0}", "Host={0}; Proto={1}", ",host={0}", 'host="a\\"{0}"'),
)  # fmt: skip
# What comes out: an origin, or none, and the path that was configured.
REALMS: Final = re.compile(
    r"(?:https?://(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?)?/auth/token(?: \"quoted\\path\")?"
)


@pytest.mark.parametrize("path", ["/auth/token", '/auth/token "quoted\\path"'])
def test_realm_when_the_request_chooses_the_host_is_one_value_with_an_origin_in_it(
    path: str, database: Target, tmp_path: Path
) -> None:
    def attempt(registry: Registry, run: Any) -> None:
        @TRY
        @given(
            host=st.sampled_from(HOSTS) | st.text('ab.:[]"\\,;= @/\x80\xff', max_size=12),
            said=st.sampled_from(SCHEMES_SAID),
            form=st.sampled_from(FORWARDED),
            names=st.sets(
                st.sampled_from(["Host", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded"]), min_size=1
            ),
        )
        @example(host="evil.test", said="https", form=FORWARDED[0], names={"Host", "Forwarded"})
        def check(host: str, said: str, form: str, names: set[str]) -> None:
            headers = {
                "Host": host,
                "X-Forwarded-Host": host,
                "X-Forwarded-Proto": said,
                "Forwarded": form.format(host, said),
            }
            for method, target in (
                ("GET", "/v2/"),
                ("GET", PRIVATE),
                ("POST", "/v2/team/app/blobs/uploads/"),
            ):
                answer = run(ask(registry, method, target, [(name, headers[name]) for name in sorted(names)]))
                assert_well_formed(answer, method=method)
                assert answer.status_code == 401
                (header,) = answer.headers.get_list("WWW-Authenticate")
                parameters = challenge_of(header).parameters
                assert {*parameters} <= {"realm", "service", "scope"}
                assert REALMS.fullmatch(parameters["realm"]), parameters
                assert parameters["realm"].endswith(path)
                assert "Set-Cookie" not in answer.headers

        check()

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        auth = Outside(tmp_path).auth(realm="", autoredirect=True, autoredirectpath=path)
        open_registry = partial(guarded, database, tmp_path / "objects", auth)
        registry = runner.run(stack.enter_async_context(open_registry()))
        try:
            attempt(registry, runner.run)
        finally:
            runner.run(stack.aclose())
