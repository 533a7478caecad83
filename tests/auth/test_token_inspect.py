"""`registry token inspect`: what a token says, until when it is accepted, or in one sentence why it is not."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
import time
from contextlib import redirect_stdout
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.auth.keys import libtrust_id, thumbprint
from app.cli import run
from app.store import signing_keys
from app.store.engine import Database
from tests.auth.test_keys import bundle
from tests.auth.tokens import access, certificate, claims, pem, private_key, raw, signed
from tests.server.test_cli import call, configuration

if TYPE_CHECKING:
    from pathlib import Path

    from app.store.engine import Target

KEY = private_key("RS256")
KID = libtrust_id(KEY.public_key())
OTHER = private_key("RS256", 1)
TOKEN_SECTION = {
    "realm": "https://gitlab.example.com/jwt/auth",
    "service": "container_registry",
    "issuer": "gitlab-issuer",
}


def configured(tmp_path: Path, **others: Any) -> Path:
    file = bundle(tmp_path, pem(certificate(KEY)))
    return configuration(tmp_path, None, auth={"token": {**TOKEN_SECTION, "rootcertbundle": file, **others}})


def body(**others: Any) -> dict[str, Any]:
    now = int(time.time())
    return claims(**{"iat": now, "nbf": now - 5, "exp": now + 300} | others)


def inspected(config: Path, token: str, *options: str) -> tuple[int, str]:
    code, output, errors = call("token", "inspect", *options, token, config)
    assert errors == ""
    assert token not in output
    signature = token.rpartition(".")[2]
    assert len(signature) < 8 or signature not in output
    assert "user-canary" not in output
    assert all(line.isprintable() for line in output.splitlines())
    return code, output


def test_inspect_when_a_token_is_good_then_it_says_what_it_allows_and_until_when(tmp_path: Path) -> None:
    entries = [
        access("team/app", "push", "pull", meta={"project_path": "team/app", "project_id": 7}),
        access("catalog", "*", type="registry"),
        access("team/none"),
    ]
    token = signed(KEY, body(access=entries, auth_type="build", user="user-canary"), alg="RS256", kid=KID)
    code, output = inspected(configured(tmp_path), token)
    said = [" ".join(line.split()) for line in output.splitlines()]
    assert code == 0
    for line in (
        "alg RS256",
        f"kid {KID}",
        "typ JWT",
        "iss gitlab-issuer",
        "aud container_registry",
        "sub alice",
    ):
        assert line in said
    for line in ("claims", "auth_type build", "pull,push on repository team/app", "* on registry catalog"):
        assert line in said
    assert "nothing on repository team/none" in said
    (end,) = [line for line in said if line.startswith("exp 2")]
    assert re.search(r"UTC \(in (4 min \d+ s|5 min)\)$", end)
    assert said[-1].startswith("accepted until 2")
    assert re.search(r"UTC \(in (5 min \d+ s|6 min), ", said[-1])


def test_inspect_when_asked_for_json_then_it_is_one_document(tmp_path: Path) -> None:
    token = signed(KEY, body(user="user-canary"), alg="RS256", kid=KID)
    code, output = inspected(configured(tmp_path), token, "--json")
    found = json.loads(output)
    assert (code, found["accepted"], found["verified"], found["refusals"]) == (0, True, True, [])
    assert found["header"] == {"alg": "RS256", "kid": KID, "typ": "JWT"}
    assert found["claims"]["access"] == [
        {"type": "repository", "name": "team/app", "actions": ["pull", "push"]}
    ]
    code, output = inspected(configured(tmp_path), signed(OTHER, body(iss="x"), alg="RS256"), "--json")
    found = json.loads(output)
    assert (code, found["accepted"], found["verified"], found["until"]) == (1, False, False, None)
    assert [one["kind"] for one in found["refusals"]] == ["signature", "issuer"]
    assert found["trusted_keys"] == [thumbprint(KEY.public_key()), KID]


@pytest.mark.parametrize(
    ("others", "sentence"),
    [
        ({"exp": -600, "iat": -900}, "the token expired 60"),
        ({"exp": -600, "iat": -900}, "if it is new, this machine's clock is ahead by about 90"),
        ({"nbf": 600}, "this machine's clock is behind by about as much"),
        (
            {"aud": "dependency_proxy"},
            "is for 'dependency_proxy' (`aud`); this registry is 'container_registry'",
        ),
        ({"iss": "omnibus-gitlab-issuer"}, "'omnibus-gitlab-issuer' (`iss`); expected 'gitlab-issuer'"),
        ({"access": "all"}, "the claim `access` is not a list"),
    ],
)
def test_inspect_when_claims_are_wrong_then_one_sentence_says_which(
    tmp_path: Path, others: dict[str, Any], sentence: str
) -> None:
    now = int(time.time())
    moved = {name: value + now if isinstance(value, int) else value for name, value in others.items()}
    code, output = inspected(configured(tmp_path), signed(KEY, body(**moved), alg="RS256", kid=KID))
    assert code == 1
    assert "\nclaims\n" in output
    (line,) = [line for line in output.splitlines() if line.startswith("refused: ")]
    assert sentence in line


def test_inspect_when_the_key_is_not_trusted_then_it_names_it_and_those_that_are(tmp_path: Path) -> None:
    kid = libtrust_id(OTHER.public_key())
    code, output = inspected(configured(tmp_path), signed(OTHER, body(), alg="RS256", kid=kid))
    assert code == 1
    assert "claims (not verified: anybody may have written them)" in output
    assert "pull,push on repository team/app" in output
    assert f"refused: the token is signed with the key '{kid}', which is not a trusted one" in output
    assert output.splitlines()[-3:] == [
        "trusted keys, by the ids that tokens may give them:",
        f"  {thumbprint(KEY.public_key())}",
        f"  {KID}",
    ]


def test_inspect_when_the_algorithm_is_not_accepted_then_it_says_which_are(tmp_path: Path) -> None:
    config = configured(tmp_path, signingalgorithms=["ES256"])
    code, output = inspected(config, signed(KEY, body(), alg="RS256", kid=KID))
    assert code == 1
    assert "refused: the token is signed by 'RS256'; accepted are ES256" in output


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("", "the token has 0 dots, not 2: a password,"),
        ("canary.is.malformed!", "is not base64url"),
        ("a" * 40_000, "40000 characters"),
        (raw({"alg": "none"}, {}) + ".", "is not signed"),
    ],
)
def test_inspect_when_the_token_cannot_be_taken_apart_then_only_the_reason_is_told(
    tmp_path: Path, token: str, words: str
) -> None:
    code, output, errors = call("token", "inspect", "--", token, configured(tmp_path))
    assert (code, errors, len(output.splitlines())) == (1, "", 1)
    assert output.startswith("refused: the token")
    assert words in output
    assert "canary" not in output


def test_inspect_when_there_is_more_than_one_reason_then_all_are_told(tmp_path: Path) -> None:
    token = signed(OTHER, body(iss="x", aud="y", exp=1), alg="RS256")
    output = inspected(configured(tmp_path), token)[1].splitlines()
    assert len([line for line in output if line.startswith("refused: the token's signature is wrong")]) == 1
    assert len([line for line in output if line.startswith("also: the token")]) == 3


def test_inspect_when_claims_would_command_the_terminal_then_they_are_shown_as_text(tmp_path: Path) -> None:
    evil = "\x1b[2J\x1b]0;title\x07\u202e\nrefused: not\r"
    token = signed(
        OTHER,
        body(iss=evil, sub=evil, jti=evil, exp=[evil], access=[access(evil, evil, meta={evil: evil})]),
        alg="RS256",
        kid=evil,
    )
    code, output = inspected(configured(tmp_path), token)
    assert code == 1
    assert "\\x1b[2J" in output
    assert len([line for line in output.splitlines() if line.startswith("refused: ")]) == 1


@pytest.mark.parametrize(
    "value", ["1e400", "-1e400", "1" + "0" * 300, "-5", "true", "null", "[[[]]]", '"x"', "9e18"]
)
def test_inspect_when_moments_are_none_then_it_does_not_fail(tmp_path: Path, value: str) -> None:
    text = json.dumps(body(exp="E", nbf="E", iat="E")).replace('"E"', value).encode()
    code, output = inspected(configured(tmp_path), signed(KEY, text, alg="RS256"))
    assert code == 1
    assert "refused: " in output


@pytest.mark.parametrize(
    ("form", "code", "words"),
    [
        ("Bearer {}\n", 0, "accepted until"),
        ("bearer  {}", 0, "accepted until"),
        ("\udcff\udcfe{}", 1, "is not base64url"),
        ("", 1, "0 dots, not 2"),
    ],
)
def test_inspect_when_the_token_comes_by_standard_input_then_it_is_read_there(
    tmp_path: Path, form: str, code: int, words: str
) -> None:
    token, output, before = signed(KEY, body(), alg="RS256"), io.StringIO(), sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(form.format(token).encode(errors="surrogateescape")), "utf-8")
    try:
        with redirect_stdout(output):
            assert run(["token", "inspect", "-", str(configured(tmp_path))]) == code
    finally:
        sys.stdin = before
    assert words in output.getvalue()


@pytest.mark.parametrize(
    ("auth", "code", "sentence"),
    [
        ({}, 2, "auth: the provider is none, which takes no tokens"),
        ({"token": {**TOKEN_SECTION, "rootcertbundle": "/nowhere/certs"}}, 1, "/nowhere/certs: No such file"),
    ],
)
def test_inspect_when_there_are_no_keys_then_it_says_so(
    tmp_path: Path, auth: dict[str, Any], code: int, sentence: str
) -> None:
    token = signed(KEY, body(), alg="RS256")
    found, output, errors = call("token", "inspect", token, configuration(tmp_path, None, auth=auth))
    assert (found, output) == (code, "")
    assert errors.startswith(f"registry: {sentence}")
    assert token not in errors


def test_inspect_when_the_issuer_is_built_in_then_the_keys_are_the_databases(
    tmp_path: Path, database: Target
) -> None:
    key = private_key("ES256")
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    kid = thumbprint(key.public_key())

    async def announce() -> None:
        pool = await Database.open(database, connections_max=1)
        try:
            await pool.write(lambda c: signing_keys.announce(c, kid, "ES256", public, timedelta(hours=1)))
        finally:
            await pool.close()

    asyncio.run(announce())
    config = configuration(tmp_path, database, auth={"issuer": {"key": str(tmp_path / "key.pem")}})
    token = signed(key, body(iss="registry", aud="registry"), kid=kid)
    assert inspected(config, token)[0] == 0
    forged = signed(private_key("ES256", 1), body(iss="registry", aud="registry"), kid=kid)
    assert inspected(config, forged)[0] == 1
