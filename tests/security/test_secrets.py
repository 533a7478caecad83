"""Secrets stay where they belong: none of those that go in comes out in a log, an error, a metric or a file.

Every secret is a canary: a word that occurs nowhere else. A real server gets them in every way that there is, right and
wrong, also where they do not belong, at the most talkative level; then everything that it said is searched for each of
them, as it is, percent-encoded, in hex and in base64 wherever it may stand in there. Stands for zot CVE-2025-48374.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote_plus

import bcrypt
import httpx
import pytest

from app.config import load
from app.store import accounts
from app.wiring.parts import open_database
from tests.badinput.frames import converse, headers, request
from tests.badinput.wire import Attacked
from tests.security.support import (
    TEMPLATE,
    Outside,
    add_account,
    basic,
    database_section,
    entry,
    running,
    spellings,
)
from tests.support.postgres import create, drop
from tests.support.processes import command_line, descendants, wait_for
from tests.support.served import CHECKOUT, environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from app.store.engine import Target
    from tests.support.served import Served

FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
SCOPE: Final = "repository:team/app:pull,push"


@dataclass
class Watch:
    """The canaries, and all that was heard."""

    canaries: dict[str, str] = field(default_factory=dict[str, str])
    heard: list[tuple[str, bytes]] = field(default_factory=list[tuple[str, bytes]])

    def canary(self, name: str) -> str:
        """A secret of that name."""
        return self.canaries.setdefault(name, f"canary{secrets.token_hex(12)}")

    def keep(self, name: str, secret: str) -> str:
        """Have a secret watched that somebody else has made."""
        self.canaries[name] = secret
        return secret

    def keep_token(self, name: str, token: str) -> str:
        """Of a token the claims and the signature: its header says nothing that others do not."""
        _, claims, signature = token.split(".")
        self.keep(f"{name}'s claims", claims)
        self.keep(f"{name}'s signature", signature)
        return token

    def hear(self, where: str, what: bytes | str) -> None:
        self.heard.append((where, what.encode() if isinstance(what, str) else what))

    def hear_answer(self, answer: httpx.Response) -> None:
        """A refusal, whole. What succeeds may hold the secret that was asked for."""
        if answer.status_code >= 400:
            self.hear(
                f"{answer.request.method} {answer.request.url.path}", repr(answer.headers) + answer.text
            )

    def leaks(self) -> list[str]:
        """Where which canary was found, and what stands around it."""
        return [
            f"{name} in {where}: …{what[max(0, place - 80) : place + 60]!r}…"
            for name, secret in self.canaries.items()
            for spelling in spellings(secret)
            for where, what in self.heard
            if (place := what.find(spelling)) >= 0
        ]


def test_watch_when_a_canary_is_spelt_in_any_way_finds_it() -> None:
    """The test of the tests: a watch that finds nothing is worth nothing."""
    watch = Watch()
    secret = watch.canary("password")
    for said in (
        secret,
        f"x{secret}y",
        basic("alice", secret),
        basic("bob", secret),
        basic("carol.", secret),
        "".join(f"%{ord(letter):02X}" for letter in secret),
        secret.encode().hex(),
    ):
        watch.heard = [("a log", said.encode())]
        assert watch.leaks(), said
    watch.heard = [("a log", b"POST /auth/token?password=*** 401")]
    assert not watch.leaks()


# What a server is told.


@dataclass(frozen=True)
class Told:
    """A server with its secrets, and those that let somebody in."""

    provider: str
    auth: dict[str, Any]
    # Values of Authorization headers: right, wrong, malformed, expired, forged.
    authorizations: tuple[str, ...]
    # A file of the provider's, and something with a canary in it that is of no use there.
    file: Path | None = None
    garbage: bytes = b""


def told_token(watch: Watch, directory: Path) -> Told:
    (directory / "forger").mkdir()
    outside, forger = Outside(directory), Outside(directory / "forger")
    now = int(time.time())
    nested = f"a.{watch.canary('the nested token')}.c"
    tokens = {
        "right": outside.token(entry("team/app", "*"), user=nested, jti="right"),
        "expired": outside.token(entry("team/app", "*"), user=nested, exp=now - 900, jti="expired"),
        "early": outside.token(user=nested, nbf=now + 900, jti="early"),
        "a stranger's": outside.token(user=nested, iss="stranger", jti="stranger"),
        "misdirected": outside.token(user=nested, aud="elsewhere", jti="misdirected"),
        "of a wrong shape": outside.token({"type": 7, "name": watch.canary("a name")}, user=nested),
        "forged": forger.token(entry("team/app", "*"), user=nested, jti="forged"),
    }
    kept = tuple(f"Bearer {watch.keep_token(f'the {name} token', token)}" for name, token in tokens.items())
    garbage = f'{{"keys":[{{"kty":"oct","k":"{watch.canary("key file")}"}}, {watch.canary("more of it")}'
    return Told("token", outside.auth(), kept, outside.jwks, garbage.encode())


def told_htpasswd(watch: Watch, directory: Path) -> Told:
    users = directory / "htpasswd"
    hashed = bcrypt.hashpw(watch.canary("password").encode(), bcrypt.gensalt(4)).decode()
    users.write_text(f"alice:{watch.keep('the hash', hashed)}\nbob:{watch.canary('plain text')}\n")
    garbage = f"alice:{hashed}\n{watch.canary('line without a colon')}\n"
    auth = {"htpasswd": {"realm": "ours", "path": str(users)}}
    return Told("htpasswd", auth, (basic("alice", watch.canary("password")),), users, garbage.encode())


def told_issuer(watch: Watch, directory: Path) -> Told:
    key = directory / "data" / "key.pem"
    garbage = f"-----BEGIN PRIVATE KEY-----\n{watch.canary('key file')}\n-----END PRIVATE KEY-----\n"
    return Told("issuer", {"issuer": {"key": str(key)}}, (), key, garbage.encode())


def told_silly(watch: Watch, directory: Path) -> Told:
    del directory
    kept = tuple(f"{scheme} {watch.canary(f'{scheme} credentials')}" for scheme in ("Bearer", "Basic", "Own"))
    return Told("silly", {"silly": {"realm": "ours", "service": "registry"}}, kept)


PROVIDERS: Final = {
    "silly": told_silly,
    "token": told_token,
    "htpasswd": told_htpasswd,
    "issuer": told_issuer,
}


async def add_people(watch: Watch, target: Target) -> None:
    tree: dict[str, Any] = {
        "http": {"addr": ":0"},
        "storage": {"inmemory": {}},
        "database": database_section(target),
    }
    database = await open_database(load(None, {}, base=tree).settings, None)
    try:
        await add_account(database, "alice", watch.canary("password"), {"team/**": "pull,push"})
        await add_account(database, "robot", watch.canary("robot secret"), {"team/**": "pull"}, kind="robot")
        found = await database.read(lambda c: accounts.credentials(c, "alice"))
        assert found is not None
        watch.keep("the hash", found.secrets[0].hash)
    finally:
        await database.close()


# What is sent to it.


def send_credentials(watch: Watch, served: Served, authorizations: Iterable[str]) -> None:
    """In their place, in others, beside each other."""
    wrong = watch.canary("wrong password")
    malformed = (
        *(basic("alice", wrong), basic("nobody", wrong), basic(watch.canary("password as a name"), "x")),
        *(
            f"Basic {watch.canary('no base64')}",
            f"Basic {watch.canary('bad base64')}=\xe9",
            f"Digest {wrong}",
        ),
        *(
            f"Bearer {watch.canary('no token')}",
            f"Bearer e30.{wrong}.{wrong}",
            f"Bearer {wrong} {wrong}",
            wrong,
        ),
        f"Bearer {wrong * 500}",
    )
    for value in (*authorizations, *malformed):
        raw = value.encode("latin-1")
        for method, path in (
            ("GET", "/v2/"),
            ("POST", "/v2/team/app/blobs/uploads/"),
            ("GET", "/auth/token"),
        ):
            headers = [(b"Authorization", raw)]
            watch.hear_answer(served.client.request(method, served.url + path, headers=headers))
        elsewhere = [
            *((b"Cookie", b"token=" + raw), (b"Proxy-Authorization", raw), (b"X-Registry-Auth", raw)),
            (b"Referer", f"https://x.test/?access_token={quote_plus(value)}&password={wrong}".encode()),
        ]
        watch.hear_answer(served.client.get(f"{served.url}/v2/", headers=elsewhere))
    both = [("Authorization", basic("alice", wrong)), ("Authorization", f"Bearer {wrong}")]
    watch.hear_answer(served.client.get(f"{served.url}/v2/", headers=both))


def send_queries(watch: Watch, served: Served) -> None:
    secret = watch.canary("query")
    names = (
        *("password", "access_token", "token", "refresh_token", "client_secret", "Authorization", "PASSWORD"),
        *("id_token", "secret", "x_token"),
    )
    for path in (
        "/v2/",
        "/v2/team/app/tags/list",
        "/auth/token",
        "/nowhere",
        "/v2/team/app/manifests/latest",
    ):
        for query in (
            *(f"{name}={secret}" for name in names),
            "&".join(f"{name}={secret}" for name in names),
        ):
            watch.hear_answer(served.client.get(f"{served.url}{path}?service=registry&{query}"))


def send_forms(watch: Watch, served: Served) -> None:
    wrong = watch.canary("form")
    right = {"grant_type": "password", "username": "alice", "password": watch.canary("password")}
    forms = (
        *(right, {**right, "password": wrong}, {**right, "username": wrong}, {**right, "scope": "nonsense"}),
        *({**right, "service": "other"}, {**right, "grant_type": "other"}, {"password": wrong}),
        *({"grant_type": "refresh_token", "refresh_token": wrong}, {"client_secret": wrong}),
        {**right, "username": "robot", "password": watch.canary("robot secret")},
    )  # fmt: skip
    for form in forms:
        watch.hear_answer(served.client.post(f"{served.url}/auth/token", data=form))
        watch.hear_answer(served.client.post(f"{served.url}/auth/token", json=form))
    for body in (wrong, f"password={wrong}&" * 3000, f"\xff={wrong}", f"password={wrong}&password={wrong}"):
        content = body.encode("latin-1")
        watch.hear_answer(served.client.post(f"{served.url}/auth/token", content=content, headers=FORM))
    # Where no form belongs.
    for method, path in (("PUT", "/v2/team/app/manifests/x"), ("POST", "/v2/"), ("PATCH", "/auth/token")):
        watch.hear_answer(served.client.request(method, served.url + path, data=right))


def send_bytes(watch: Watch, attacked: Attacked) -> None:
    """What no client's library would send."""
    secret = watch.canary("raw bytes").encode()
    host = b"Host: registry.test\r\n"
    for payload in (
        b"GET http://alice:%b@registry.test/v2/ HTTP/1.1\r\n%b\r\n" % (secret, host),
        b"GET /v2/ HTTP/1.1\r\n%bAuthorization : Bearer %b\r\n\r\n" % (host, secret),
        b"GET /v2/ HTTP/1.1\r\n%bAuthorization\x00: Bearer %b\r\n\r\n" % (host, secret),
        b"GET /v2/ HTTP/1.1\r\n%bAuthorization: Bearer %b\x01\r\n\r\n" % (host, secret),
        b"GET /v2/ HTTP/1.1\r\n%bAuthorization: Basic\r\n %b\r\n\r\n" % (host, secret),
        b"GET /v2/?password=%b\x01 HTTP/1.1\r\n%b\r\n" % (secret, host),
        b"GET /v2/?token=%b HTTP/9.9\r\n%b\r\n" % (secret, host),
        b"POST /auth/token HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n%b\r\n" % (host, secret),
        b"password=%b\r\n\r\n" % secret,
    ):
        for reply in attacked.send(payload, ends=True).replies:
            if reply.status >= 400:
                watch.hear(f"the answer to {payload[:60]!r}", repr(reply).encode())
    # HTTP/2 by prior knowledge.
    authorization = ("authorization", f"Bearer {watch.canary('frames')}")
    query = f"/v2/?token={watch.canary('frames')}"
    with attacked.connect() as connection:
        frames = headers(1, request("GET", "/v2/", authorization, scheme="http"))
        frames += headers(3, request("GET", query, scheme="http"))
        frames += headers(5, request("POST", "/auth/token", authorization, scheme="http"))
        outcome = converse(connection, frames, wanted=(1, 3, 5))
    watch.hear("HTTP/2", repr(outcome.bodies))


def send_tokens(watch: Watch, served: Served, attacked: Attacked) -> None:
    """Log in to the built-in service, and use what it gives."""
    for name, secret in (("alice", watch.canary("password")), ("robot", watch.canary("robot secret"))):
        login = {"Authorization": basic(name, secret)}
        answer = served.client.get(
            f"{served.url}/auth/token", params={"scope": SCOPE, "offline_token": "true"}, headers=login
        )
        assert answer.status_code == 200, answer.text
        document = answer.json()
        token = watch.keep_token(f"{name}'s token", document["token"])
        send_credentials(watch, served, [f"Bearer {token}", f"Bearer {token[:-8]}AAAAAAAA"])
        if "refresh_token" not in document:
            continue
        refresh = watch.keep("the refresh token", document["refresh_token"])
        form = {"grant_type": "refresh_token", "refresh_token": refresh, "scope": SCOPE}
        again = served.client.post(f"{served.url}/auth/token", data=form)
        # Too many have failed from this address by now.
        assert again.status_code in (200, 429)
        watch.hear_answer(served.client.post(f"{served.url}/auth/token", data={**form, "service": "x"}))
        watch.hear_answer(
            served.client.get(f"{served.url}/v2/", headers={"Authorization": f"Bearer {refresh}"})
        )


def lose_database(watch: Watch, served: Served, server: Target, name: str, told: Told) -> None:
    """What is said when nothing can be looked up any more."""
    asyncio.run(drop(server, name))
    for value in (*told.authorizations, basic("alice", watch.canary("password"))):
        headers = {"Authorization": value}
        for method, path in (("GET", "/auth/token"), ("GET", "/v2/team/app/manifests/latest")):
            watch.hear_answer(served.client.request(method, served.url + path, headers=headers))
    wrong = {"grant_type": "password", "username": "alice", "password": watch.canary("form")}
    lost = served.client.post(f"{served.url}/auth/token", data=wrong)
    assert lost.status_code == (503 if told.provider == "issuer" else 404)
    watch.hear_answer(lost)


# What is heard of it.


def is_read_again(served: Served, told: Told) -> bool:
    """Whether the server has looked at its file since it changed. It does when somebody needs what is in it."""
    headers = {"Authorization": told.authorizations[0]} if told.authorizations else {}
    for path in ("/v2/", "/auth/token"):
        served.client.get(served.url + path, headers=headers)
    return "is of no use" in served.said()


def debug_url(served: Served) -> str:
    found = wait_for(lambda: re.search(r"health and metrics are at (http://[0-9.:]+)", served.said()))
    assert isinstance(found, re.Match), served.said()
    return found[1]


def hear_processes(watch: Watch, served: Served) -> None:
    for pid in (served.process.pid, *descendants(served.process.pid)):
        watch.hear(f"the command line of {pid}", command_line(pid))


def hear_files(watch: Watch, directory: Path, but: Path | None) -> None:
    for path in directory.rglob("*"):
        if path.is_file() and path != but:
            watch.hear(str(path), path.read_bytes())


@pytest.mark.parametrize(
    ("provider", "form"), [("token", "json"), ("htpasswd", "text"), ("issuer", "json"), ("silly", "text")]
)
@pytest.mark.usefixtures("migrated_database")
def test_secret_when_it_goes_into_a_server_comes_out_nowhere(
    provider: str, form: str, postgres_server: Target, worker_id_or_alone: str, tmp_path: Path
) -> None:
    watch, name = Watch(), f"secrets_{worker_id_or_alone}"
    told = PROVIDERS[provider](watch, tmp_path)
    target = replace(postgres_server, database=name)
    settings = {
        "LOG_LEVEL": "debug",
        "LOG_FORMATTER": form,
        "LOG_ACCESSLOG": f"{{disabled: false, formatter: {form}}}",
        "HTTP_DEBUG_ADDR": "127.0.0.1:0",
        "HTTP_H2C_ENABLED": "true",
        "HTTP_SECRET": watch.canary("http.secret"),
        "DATABASE_PASSWORD": watch.canary("database password"),
        "REDIS_PASSWORD": watch.canary("redis password"),
        "REDIS_ADDR": "127.0.0.1:1",
    }
    with running(postgres_server, name, tmp_path, told.auth, **settings) as served:
        attacked = Attacked(served, target)
        asyncio.run(add_people(watch, target))
        if provider == "issuer":
            assert told.file is not None
            for number, line in enumerate(told.file.read_text().splitlines()[1:-1]):
                watch.keep(f"line {number} of the private key", line)
            send_tokens(watch, served, attacked)
        send_credentials(watch, served, told.authorizations)
        send_queries(watch, served)
        send_forms(watch, served)
        send_bytes(watch, attacked)
        if told.file is not None:
            told.file.write_bytes(told.garbage)
            assert wait_for(lambda: is_read_again(served, told))
        lose_database(watch, served, postgres_server, name, told)
        debug = debug_url(served)
        for path in ("/metrics", "/debug/health", "/nowhere", f"/?token={watch.canary('query')}"):
            watch.hear(debug + path, httpx.get(debug + path, timeout=20).text)
        hear_processes(watch, served)
    watch.hear("standard output", served.output.read_bytes())
    watch.hear("standard error", served.errors.read_bytes())
    hear_files(watch, served.data, told.file)
    assert b"/v2/" in served.output.read_bytes()
    assert not (found := watch.leaks()), "\n".join(found[:20])


@pytest.fixture
def worker_id_or_alone(request: pytest.FixtureRequest) -> str:
    return getattr(request.config, "workerinput", {}).get("workerid", "alone")


# The commands.

# Runs commands one after the other in a process that has loaded them once.
_DRIVER: Final = """
import io, json, sys
from app.cli import main
for words, given in json.load(sys.stdin):
    sys.argv = ["registry", *words]
    sys.stdin = io.TextIOWrapper(io.BytesIO(given.encode()))
    print("$", words[:2], file=sys.stderr)
    try:
        main()
    except SystemExit as end:
        print("ended with", end.code, file=sys.stderr, flush=True)
"""


def run_commands(watch: Watch, commands: Sequence[tuple[Sequence[str], str]]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _DRIVER],
        cwd=CHECKOUT,
        env=environment(),
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    watch.hear("the output of commands", done.stdout)
    watch.hear("the errors of commands", done.stderr)
    assert done.stderr.count("ended with") == len(commands), done.stderr
    return done.stdout + done.stderr


def config_file(watch: Watch, path: Path, target: Target, **sections: Any) -> str:
    tree = {
        "version": "0.1",
        "http": {"addr": "127.0.0.1:0", "secret": watch.canary("http.secret")},
        "storage": {"filesystem": {"rootdirectory": str(path.parent / "objects")}},
        "database": {**database_section(target), "password": watch.canary("database password")},
        "redis": {"addr": "127.0.0.1:1", "password": watch.canary("redis password")},
        **sections,
    }
    path.write_text(json.dumps(tree))
    return str(path)


@pytest.mark.usefixtures("migrated_database")
def test_secret_when_commands_meet_it_is_not_printed(
    postgres_server: Target, worker_id_or_alone: str, tmp_path: Path
) -> None:
    watch, name = Watch(), f"commands_{worker_id_or_alone}"
    target = asyncio.run(create(postgres_server, name, template=TEMPLATE))
    (tmp_path / "objects").mkdir()
    outside = Outside(tmp_path)
    nested = f"a.{watch.canary('the nested token')}.c"
    token = outside.token(entry("team/app", "pull"), user=nested)
    _, _, signature = token.split(".")
    watch.keep("the signature", signature)
    config = config_file(watch, tmp_path / "token.json", target, auth=outside.auth())
    issuer = config_file(
        watch, tmp_path / "issuer.json", target, auth={"issuer": {"key": str(tmp_path / "key.pem")}}
    )
    key = tmp_path / "bad.pem"
    key.write_text(f"-----BEGIN CERTIFICATE-----\n{watch.canary('key file')}\n-----END CERTIFICATE-----\n")
    key.chmod(0o600)
    line = tmp_path / "bad.htpasswd"
    line.write_text(f"{watch.canary('line without a colon')}\n")
    bad = [
        {**outside.auth()["token"], "jwks": str(line)},
        {**outside.auth()["token"], "jwks": "", "rootcertbundle": str(key)},
    ]
    refused = [
        *({"token": section} for section in bad),
        {"htpasswd": {"realm": "x", "path": str(line)}},
        {"issuer": {"key": str(key)}},
    ]
    files = [
        config_file(watch, tmp_path / f"refused{number}.json", target, auth=auth)
        for number, auth in enumerate(refused)
    ]
    secret = watch.canary("database password")
    mistakes = [
        {"database": {"host": "x", "password": [secret]}},
        {"database": {"host": "x", "password": {secret: 1}}},
        {"database": {"host": "x", "passwort": secret}},
        {"redis": {"password": [secret]}, "storage": {"s3": {"secretkey": [secret], "bucket": 7}}},
        {"auth": {"issuer": secret}},
        {"auth": {"htpasswd": {"path": [secret]}}},
    ]
    wrong = [
        config_file(watch, tmp_path / f"wrong{number}.json", target, **more)
        for number, more in enumerate(mistakes)
    ]
    password, at_stdin = watch.canary("password"), "--password-stdin"
    gone = config_file(
        watch, tmp_path / "gone.json", replace(target, database="nowhere"), auth=outside.auth()
    )
    try:
        said = run_commands(watch, [
            (["config", "check", config], ""),
            *((["config", "check", file], "") for file in wrong),
            (["token", "inspect", token, config], ""),
            (["token", "inspect", "-", config], token[:-6] + "AAAAAA"),
            (["token", "inspect", watch.canary("no token"), config], ""),
            (["token", "inspect", "-", config], f"a.{watch.canary('no token')}.c"),
            (["user", "add", "alice", at_stdin, issuer], password),
            (["user", "add", "alice", at_stdin, issuer], password),
            (["user", "add", "bob", at_stdin, issuer], f"{password}\x07"),
            (["user", "passwd", "alice", at_stdin, issuer], f"{password}new"),
            (["user", "list", issuer], ""),
            (["user", "list", "--json", issuer], ""),
            (["robot", "list", issuer], ""),
            (["grant", "list", issuer], ""),
            (["gc", "status", issuer], ""),
            (["user", "list", gone], ""),
            (["gc", "status", gone], ""),
            *((["serve", file], "") for file in files),
        ])  # fmt: skip
    finally:
        asyncio.run(drop(postgres_server, name))
    assert "added alice" in said
    assert re.search(r"refused: the token's signature is wrong", said)
    assert not (found := watch.leaks()), "\n".join(found[:20])
