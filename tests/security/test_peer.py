"""The same requests, with the same tokens, to Distribution's registry and to ours with the very same `auth.token`.

What we let in that it does not, and the other way round, is listed in DIFFERENT, and in the table of
docs/authentication.md; about everything else both say the same, to the words of the challenge.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.auth.keys import libtrust_id, thumbprint
from tests.auth import tokens
from tests.auth.test_keys import jwk_of
from tests.auth.tokens import ISSUER, SERVICE, base64url, pem, private_key, raw, x5c
from tests.security.support import REALM, challenge_of, guarded
from tests.support.effort import EFFORT
from tests.support.needs import program
from tests.support.processes import wait_for

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping
    from pathlib import Path

    from cryptography import x509

    from app.store.engine import Target

pytestmark = pytest.mark.needs("docker-registry")

REPOSITORY: Final = "team/app"
MANIFEST: Final = f"/v2/{REPOSITORY}/manifests/latest"
BLOB: Final = f"/v2/{REPOSITORY}/blobs/sha256:{'a' * 64}"
UPLOADS: Final = f"/v2/{REPOSITORY}/blobs/uploads/"

IN: Final = "let in"
NOBODY: Final = "no token"
INVALID: Final = "invalid_token"
LITTLE: Final = "insufficient_scope"
CUT_OFF: Final = "connection cut off"
_LISTENING: Final = re.compile(r"listening on (127\.0\.0\.1:\d+)\D")

KEY, RSA, P384 = private_key("ES256"), private_key("RS256"), private_key("ES384")
STRANGER = private_key("ES256", 9)
ROOT_KEY, MIDDLE_KEY, PLAIN_KEY, OLD_KEY = (private_key("ES256", number) for number in range(2, 6))
KID, RSA_KID = libtrust_id(KEY.public_key()), libtrust_id(RSA.public_key())
AUTHORITY: Final[dict[str, Any]] = {"ca": True, "signs_certificates": True}


class Answer(NamedTuple):
    """How a request was answered: whether it was let in, and what else is said to who is not."""

    verdict: str
    status: int = 0
    challenge: str = ""
    body: Any = None


Both = tuple[Answer, Answer]


# What tokens are made of.


def certificate(*arguments: Any, **others: Any) -> x509.Certificate:
    return tokens.certificate(*arguments, now=time.time(), **others)


def leaf(by: str = "root", by_key: Any = ROOT_KEY, key: Any = STRANGER, **others: Any) -> x509.Certificate:
    return certificate(key, "leaf", issuer=by, issuer_key=by_key, **others)


ROOT: Final = certificate(ROOT_KEY, "root", **AUTHORITY)
MIDDLE: Final = certificate(MIDDLE_KEY, "middle", issuer="root", issuer_key=ROOT_KEY, **AUTHORITY)
PLAIN: Final = certificate(PLAIN_KEY, "plain")
OLD: Final = certificate(OLD_KEY, "old", days=(-30, -1), **AUTHORITY)


def trusted() -> bytes:
    """The bundle that both are given."""
    signers = (certificate(key, "signer") for key in (KEY, RSA, P384))
    return pem(*signers, ROOT, PLAIN, OLD)


def seconds(later: int = 0) -> int:
    """Now, or so much later, as claims have it."""
    return int(time.time()) + later


def claims(**others: Any) -> dict[str, Any]:
    """Good claims, with others over them; `...` takes one away."""
    dates = {"iat": seconds(), "nbf": seconds(-5), "exp": seconds(600)}
    return tokens.claims(**(dates | others))


def token(body: Mapping[str, Any] | bytes | None = None, key: Any = KEY, **header: Any) -> str:
    """A token that names its key as Distribution 2 wants it, unless `kid` says otherwise."""
    others: dict[str, Any] = {"kid": KID} | header
    return tokens.signed(key, claims() if body is None else body, **others)


def written(text: str, **others: Any) -> bytes:
    """Claims with a piece of JSON in place of the claim `foo`."""
    return json.dumps(claims(foo="HERE", **others)).replace('"HERE"', text).encode()


def with_header(**header: Any) -> str:
    """A token that has this in its header and nothing else."""
    return token(header=header)


def chained(*chain: x509.Certificate, key: Any = STRANGER, **header: Any) -> str:
    return token(key=key, kid=None, x5c=x5c(*chain), **header)


def entry(**others: Any) -> dict[str, Any]:
    usual = {"type": "repository", "name": REPOSITORY, "actions": ["pull"]}
    return {name: value for name, value in (usual | others).items() if value is not ...}


def listing(*entries: Any) -> str:
    return token(claims(access=[*entries]))


def padded(segment: str) -> str:
    return segment + "=" * (-len(segment) % 4)


# What both say the same about. Tokens stand behind "Bearer ".


def same() -> Iterable[tuple[str, str, str]]:
    """Name, token, verdict."""
    yield from _same_keys()
    yield from _same_certificates()
    yield from _same_claims()
    yield from _same_access()
    yield from _same_texts()


def _same_keys() -> Iterable[tuple[str, str, str]]:
    yield "ES256", token(), IN
    yield "ES384", token(key=P384, alg="ES384", kid=libtrust_id(P384.public_key())), IN
    for alg in ("RS256", "RS384", "RS512"):
        yield alg, token(key=RSA, alg=alg, kid=RSA_KID), IN
    yield "type in small letters", token(typ="jwt"), IN
    yield "no type", with_header(alg="ES256", kid=KID), IN
    yield "type that is a number", token(typ=7), INVALID
    yield "address of keys", token(jku="http://127.0.0.1:1/"), IN
    yield "id that nobody has", token(kid="nobody"), INVALID
    yield "id in small letters", token(kid=KID.lower()), INVALID
    yield "id of another key", token(kid=RSA_KID), INVALID
    yield "id that is a number", token(kid=7), INVALID
    yield "a stranger's with a trusted id", token(key=STRANGER), INVALID
    yield "alg none", raw({"alg": "none", "kid": KID}, claims()) + ".", INVALID
    yield "alg none with a signature", raw({"alg": "none", "kid": KID}, claims()) + ".AA", INVALID
    yield "no alg", with_header(kid=KID), INVALID
    yield "alg in small letters", with_header(alg="es256", kid=KID), INVALID
    public = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    yield "public key as secret", token(key=public, alg="HS256", kid=RSA_KID), INVALID
    yield "jwk that is trusted", token(kid=None, jwk=jwk_of(KEY)), IN
    yield "jwk of a stranger", token(key=STRANGER, kid=None, jwk=jwk_of(STRANGER)), INVALID
    yield (
        "jwk of a stranger by a trusted name",
        token(key=STRANGER, kid=None, jwk=jwk_of(STRANGER, kid=KID)),
        INVALID,
    )
    yield (
        "key of a certificate that has expired",
        token(key=OLD_KEY, kid=libtrust_id(OLD_KEY.public_key())),
        IN,
    )


def _same_certificates() -> Iterable[tuple[str, str, str]]:
    short = rsa.generate_private_key(65537, 2048)
    issued: dict[str, Any] = {"issuer": "root", "issuer_key": ROOT_KEY}
    yield "x5c", chained(leaf()), IN
    yield "x5c with the root", chained(leaf(), ROOT), IN
    yield "x5c with a middle", chained(leaf("middle", MIDDLE_KEY), MIDDLE), IN
    yield "x5c of RSA", chained(leaf(key=short), key=short, alg="RS384"), IN
    yield "x5c that is itself trusted", chained(PLAIN, key=PLAIN_KEY), IN
    yield "x5c null", token(x5c=None), IN
    bare = certificate(MIDDLE_KEY, "middle", ca=True, **issued)
    yield "x5c of an authority that does not say what for", chained(leaf("middle", MIDDLE_KEY), bare), IN
    wrong = certificate(MIDDLE_KEY, "middle", ca=True, signs_certificates=False, **issued)
    yield "x5c of an authority for something else", chained(leaf("middle", MIDDLE_KEY), wrong), INVALID
    none = certificate(MIDDLE_KEY, "middle", **issued)
    yield "x5c of no authority", chained(leaf("middle", MIDDLE_KEY), none), INVALID
    yield "x5c of a trusted one that is no authority", chained(leaf("plain", PLAIN_KEY)), INVALID
    yield "x5c without its middle", chained(leaf("middle", MIDDLE_KEY)), INVALID
    yield "x5c in the wrong order", chained(MIDDLE, leaf("middle", MIDDLE_KEY)), INVALID
    yield "x5c that has expired", chained(leaf(days=(-9, -1))), INVALID
    yield "x5c that is not valid yet", chained(leaf(days=(1, 9))), INVALID
    yield "x5c of a trusted one that has expired", chained(leaf("old", OLD_KEY)), INVALID
    yield "x5c that is itself trusted and has expired", chained(OLD, key=OLD_KEY), INVALID
    yield "x5c of nobody", chained(certificate(STRANGER, "nobody")), INVALID
    yield "x5c of nobody with a trusted id", token(x5c=x5c(certificate(STRANGER, "nobody"))), INVALID
    yield "x5c of somebody else", token(x5c=x5c(leaf())), INVALID
    for value in ("AA", ["AA"], [7]):
        yield f"x5c {value}", token(x5c=value), INVALID


def _same_claims() -> Iterable[tuple[str, str, str]]:
    accepted: list[dict[str, Any]] = [
        *({"sub": sub} for sub in (..., None, "", "\u00fc\u4e2d")),
        *({"nbf": begin} for begin in (..., None, 0, seconds(30))),
        *({"exp": end} for end in (seconds(-30), 10**11)),
        *({"iat": moment} for moment in (..., None, seconds(9999))),
        *({"jti": ...}, {"foo": {"a": [1]}}, {"auth_type": 7}, {"user": {"a": 1}}),
    ]
    audiences: list[Any] = [..., None, "other", [], ["other"], [SERVICE, 7], {}]
    refused: list[dict[str, Any]] = [
        *({"iss": issuer} for issuer in (..., None, "other", [ISSUER], ISSUER.upper())),
        *({"aud": audience} for audience in audiences),
        *({"exp": end} for end in (..., None, 0, -1, str(seconds(600)), True, 2**63, seconds(-90))),
        *({"nbf": begin} for begin in ("1", True, seconds(120))),
        {"sub": 7},
    ]
    for verdict, listed in ((IN, accepted), (INVALID, refused)):
        for changed in listed:
            yield f"claim {changed}", token(claims(**changed)), verdict
    for body in (b"[]", b"null", written("NaN"), written("1") + b" {}", b"\xef\xbb\xbf" + written("1")):
        yield f"body {body[:9]!r}…{body[-9:]!r}", token(body), INVALID
    yield "white space around the body", token(b" \n" + written("1") + b" "), IN


def _same_access() -> Iterable[tuple[str, str, str]]:
    other = entry(type="registry", name="catalog", actions=["*"])
    pushing = entry(actions=["push"])
    accepted: dict[str, list[Any]] = {
        "another entry": [entry(), other],
        "two entries of a repository": [pushing, entry()],
        "an entry that allows nothing": [entry(actions=None), entry(actions=...), entry(actions=[]), entry()],
        "class": [entry(**{"class": "plugin"})],
        "no class": [entry(**{"class": None})],
        "class in the type, and without": [entry(type="repository(plugin)"), entry()],
        "star": [entry(actions=["*"])],
        "action twice": [entry(actions=["pull", "pull", "new"])],
        "what nobody knows": [entry(foo=1, meta=None)],
    }
    little: dict[str, list[Any]] = {
        "nothing": [],
        "another type": [other],
        "class in the type": [entry(type="repository(plugin)")],
        "action in capitals": [entry(actions=["PULL"])],
        "actions in one": [entry(actions=["pull,push"])],
        "push alone": [pushing],
        **{
            f"name {name}": [entry(name=name)] for name in ("team/ap", "team/app/", "Team/App", "team/*", "*")
        },
    }
    refused: dict[str, list[Any]] = {
        "a number": [7],
        "a list": [[]],
        "class that is a number": [entry(**{"class": 7})],
        "actions that are a string": [entry(actions="pull")],
        "an action that is a number": [entry(actions=["pull", 7])],
        "a name that is a number": [entry(name=7), entry()],
        "a type that is a number": [entry(type=7), entry()],
    }
    for verdict, listed in ((IN, accepted), (LITTLE, little), (INVALID, refused)):
        for name, entries in listed.items():
            yield f"access: {name}", listing(*entries), verdict
    for access, verdict in ((..., LITTLE), (None, LITTLE), (entry(), INVALID), ("pull", INVALID)):
        yield f"access that is {access}", token(claims(access=access)), verdict


def _same_texts() -> Iterable[tuple[str, str, str]]:
    good = token()
    head, body, _ = good.split(".")
    for name, text in {
        "a dot behind": good + ".",
        "a dot before": "." + good,
        "two segments": f"{head}.{body}",
        "no signature": f"{head}.{body}.",
        "a signature of zeros": f"{head}.{body}.{base64url(bytes(64))}",
        "another's signature": f"{head}.{body}.{token(claims(jti='2')).rpartition('.')[2]}",
        "a comma behind": good + ",",
        "words": "x",
    }.items():
        yield name, text, INVALID
    yield "20,000 characters", token(claims(foo="x" * 15_000)), IN


# What they say different things about.


def different() -> Iterable[tuple[str, str, str, str]]:
    """Name, token, Distribution's verdict, ours."""
    yield from _more_is_accepted()
    yield from _less_is_accepted()


def _more_is_accepted() -> Iterable[tuple[str, str, str, str]]:
    """Mostly what Distribution 3 takes as well."""
    for name, text in {
        "PS256": token(key=RSA, alg="PS256", kid=RSA_KID),
        "thumbprint as id": token(kid=thumbprint(KEY.public_key())),
        "no id": token(kid=None),
        "empty id": with_header(alg="ES256", kid=""),
        "trusted id beside a strange jwk": token(jwk=jwk_of(STRANGER)),
        "audiences": token(claims(aud=["other", SERVICE])),
        "parts of a second": token(claims(exp=seconds(600) + 0.5, nbf=seconds(-5) - 0.5)),
        "what is only told, of any type": token(claims(iat="now", jti=7)),
    }.items():
        yield name, text, INVALID, IN


def _less_is_accepted() -> Iterable[tuple[str, str, str, str]]:
    head, body, seal = token().split(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    unused = seal[:-1] + alphabet[alphabet.index(seal[-1]) ^ 1]
    capitals = json.dumps(
        {name.upper() if name == "iss" else name: value for name, value in claims().items()}
    )
    certified = jwk_of(STRANGER, kid=libtrust_id(STRANGER.public_key()), x5c=x5c(leaf()))
    twins = [
        certificate(MIDDLE_KEY, "middle", issuer="root", issuer_key=ROOT_KEY, **AUTHORITY) for _ in range(2)
    ]
    (signer,) = x5c(leaf())
    weak = rsa.generate_private_key(65537, 1024)
    deep: list[Any] = []
    for _ in range(40):
        deep = [deep]
    for name, text in {
        "jwk with certificates": token(key=STRANGER, kid=None, jwk=certified),
        "jwk beside an id that nobody has": token(kid="nobody", jwk=jwk_of(KEY, kid=KID)),
        "another type": token(typ="JOSE"),
        "extensions that must be understood": token(crit=["b64"]),
        "a key of the header twice": token(header=f'{{"alg":"ES256","kid":"x","kid":"{KID}"}}'.encode()),
        "a claim twice": token(written('"a","foo":"b"')),
        "names in capitals": token(capitals.encode()),
        "no Unicode": token(written('"\\ud800"')),
        "a number beyond all": token(written("1e400")),
        "forty lists in each other": token(claims(foo=deep)),
        "padding": f"{head}.{body}.{padded(seal)}",
        "bits that mean nothing": f"{head}.{body}.{unused}",
        "x5c without certificates": token(x5c=[]),
        "x5c in lines": token(key=STRANGER, x5c=[f"{signer[:64]}\n{signer[64:]}"]),
        "x5c of a short key": chained(leaf(key=weak), key=weak, alg="RS256"),
        "x5c of six": chained(leaf("middle", MIDDLE_KEY), MIDDLE, *[ROOT] * 4),
        "x5c with two issuers of one name": chained(leaf("middle", MIDDLE_KEY), *twins),
        "after the year 9999": token(claims(exp=10**12)),
        "before 1970": token(claims(nbf=-1)),
        "line breaks in the user": token(claims(sub="a\nb")),
        "a user of 2,000 characters": token(claims(sub="a" * 2000)),
        "an entry without a name": listing(entry(name=...), entry()),
        "an entry without a type": listing(entry(type=None), entry()),
        "an action that is null": listing(entry(actions=["pull", None])),
        "meta that is no object": listing(entry(meta=7)),
        "40,000 characters": token(claims(foo="x" * 30_000)),
    }.items():
        yield name, text, IN, INVALID
    yield "an entry that is null", listing(None, entry()), CUT_OFF, INVALID


# Both of them.


@pytest.fixture(scope="module")
def auth(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The section that both are given."""
    bundle = tmp_path_factory.mktemp("keys") / "bundle.pem"
    bundle.write_bytes(trusted())
    return {"token": {"realm": REALM, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": str(bundle)}}


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory, auth: dict[str, Any]) -> Generator[str]:
    """The URL of Distribution's registry."""
    with distribution(tmp_path_factory.mktemp("peer"), auth) as url:
        yield url


@contextmanager
def distribution(directory: Path, auth: Mapping[str, Any]) -> Generator[str]:
    config, output = directory / "config.yml", directory / "output"
    document = {
        "version": "0.1",
        "log": {"accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory)}, "delete": {"enabled": True}},
        "http": {"addr": "127.0.0.1:0"},
        "auth": auth,
    }
    config.write_text(json.dumps(document))  # JSON is YAML
    with output.open("wb") as out:
        process = subprocess.Popen(
            [str(program("docker-registry")), "serve", str(config)], stdout=out, stderr=out, cwd=directory
        )
    try:
        found = wait_for(lambda: _LISTENING.search(output.read_text()), 20)
        assert found, output.read_text()
        yield f"http://{found[1]}"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def both(url: str, database: Target, root: Path, auth: Mapping[str, Any]) -> Generator[Any]:
    """A function that sends a request to both: `ask("Bearer …")`, `ask(None, "PUT", "/v2/…")`."""
    ours = guarded(database, root, auth)
    with asyncio.Runner() as runner, httpx.Client(base_url=url, trust_env=False) as client:
        registry = runner.run(ours.__aenter__())

        def ask(
            authorization: str | None, method: str = "GET", target: str = MANIFEST, **others: str
        ) -> Both:
            headers = {"Host": "registry.test", **others}
            if authorization is not None:
                headers["Authorization"] = authorization
            try:
                theirs = _answer(client.request(method, target, headers=headers))
            except httpx.RemoteProtocolError:
                theirs = Answer(CUT_OFF)
            return theirs, _answer(runner.run(registry.client.request(method, target, headers=headers)))

        try:
            yield ask
        finally:
            runner.run(ours.__aexit__(None, None, None))


def _answer(response: httpx.Response) -> Answer:
    if response.status_code != 401:
        return Answer(IN, response.status_code)
    (challenge,) = response.headers.get_list("WWW-Authenticate")
    error = challenge_of(challenge).parameters.get("error", NOBODY)
    return Answer(error, 401, challenge, response.json() if response.content else None)


def test_tokens_then_both_say_the_same_or_what_is_listed(
    peer: str, database: Target, tmp_path: Path, auth: dict[str, Any]
) -> None:
    wanted = {name: (text, (verdict, verdict)) for name, text, verdict in same()}
    wanted |= {name: (text, (theirs, ours)) for name, text, theirs, ours in different()}
    with both(peer, database, tmp_path, auth) as ask:
        found = {name: ask(f"Bearer {text}") for name, (text, _) in wanted.items()}
    assert {name: (theirs.verdict, ours.verdict) for name, (theirs, ours) in found.items()} == {
        name: verdicts for name, (_, verdicts) in wanted.items()
    }


SCHEMES: Final = {
    "bearer": (IN, IN),
    "BEARER": (IN, IN),
    "Basic": (NOBODY, NOBODY),
    "Token": (NOBODY, NOBODY),
    "Bearer\t": (NOBODY, NOBODY),
    # RFC 9110 has one space or more.
    "Bearer ": (NOBODY, IN),
}


def test_scheme_when_it_is_spelt_in_other_ways_then_it_is_what_is_listed(
    peer: str, database: Target, tmp_path: Path, auth: dict[str, Any]
) -> None:
    with both(peer, database, tmp_path, auth) as ask:
        found = {scheme: ask(f"{scheme} {token()}") for scheme in SCHEMES}
        assert {name: (theirs.verdict, ours.verdict) for name, (theirs, ours) in found.items()} == SCHEMES
        for header in (None, "", "Bearer", "x"):
            assert [one.verdict for one in ask(header)] == [NOBODY, NOBODY]


UPLOAD: Final = f"{UPLOADS}f7a1de5b-7c4c-4d0e-8f8e-3f1f0a1b2c3d"
MOUNT: Final = f"{UPLOADS}?mount=sha256:{'a' * 64}&from=other/app"
TAGS: Final = f"/v2/{REPOSITORY}/tags/list"
# What each request needs of the repository there, and here.
NEEDS: Final = {
    **dict.fromkeys([("GET", MANIFEST), ("HEAD", MANIFEST), ("GET", BLOB), ("GET", TAGS)], ("pull", "pull")),
    **dict.fromkeys([("DELETE", MANIFEST), ("DELETE", BLOB)], ("delete", "delete")),
    **dict.fromkeys([("PUT", MANIFEST), ("POST", UPLOADS), ("PATCH", UPLOAD)], ("pull push", "push")),
    **dict.fromkeys(
        [("PUT", UPLOAD), ("POST", f"{UPLOADS}?mount=x&from={REPOSITORY}")], ("pull push", "push")
    ),
    **dict.fromkeys([("GET", UPLOAD), ("HEAD", UPLOAD)], ("pull", "push")),
    ("DELETE", UPLOAD): ("delete", "push"),
    ("GET", "/v2/_catalog"): ("more", "more"),
    ("GET", "/v2/"): ("", ""),
    # Without the right to the source ours is an ordinary upload.
    ("POST", MOUNT): ("more", "push"),
}
GRANTED: Final = ["", "pull", "push", "delete", "pull push", "pull delete", "pull push delete", "*"]


def test_rights_then_each_request_needs_what_is_listed(
    peer: str, database: Target, tmp_path: Path, auth: dict[str, Any]
) -> None:
    wanted = {
        (*request, actions): tuple(_verdict(need, actions) for need in needs)
        for request, needs in NEEDS.items()
        for actions in GRANTED
    }
    with both(peer, database, tmp_path, auth) as ask:
        found = {
            (method, target, actions): tuple(
                one.verdict
                for one in ask(f"Bearer {listing(entry(actions=actions.split()))}", method, target)
            )
            for method, target, actions in wanted
        }
    assert found == wanted


def _verdict(need: str, actions: str) -> str:
    return IN if {*need.split()} <= {*actions.split()} or (actions == "*" and need != "more") else LITTLE


def test_challenge_then_both_ask_for_the_same(
    peer: str, database: Target, tmp_path: Path, auth: dict[str, Any]
) -> None:
    with both(peer, database, tmp_path, auth) as ask:
        for method, target in NEEDS:
            if target == UPLOAD and method in ("GET", "HEAD", "DELETE"):
                continue
            for brought in (None, "Bearer x", f"Bearer {listing()}"):
                theirs, ours = ask(brought, method, target)
                assert _told(theirs) == _told(ours), (method, target)


def _told(answer: Answer) -> Any:
    """What an answer says, whatever the order of scopes, actions and details, which Distribution draws by lot."""
    if answer.status != 401:
        return answer.verdict
    scheme, parameters = challenge_of(answer.challenge)
    asked = {
        (kind_and_name, action)
        for scope in parameters.pop("scope", "").split()
        for kind_and_name, _, actions in [scope.rpartition(":")]
        for action in actions.split(",")
    }
    return scheme, [*parameters.items()], asked, answer.body and _errors(answer.body)


def _errors(document: dict[str, Any]) -> Any:
    (error,) = document.pop("errors")
    listed: list[dict[str, str]] = error.pop("detail", None) or []
    details = {tuple(sorted(one.items())) for one in listed}
    return document, error, details


def test_realm_when_it_is_at_the_registry_then_the_scheme_is_what_is_listed(
    database: Target, tmp_path: Path, auth: dict[str, Any]
) -> None:
    here = {"token": auth["token"] | {"autoredirect": True}}
    (tmp_path / "peer").mkdir()
    with distribution(tmp_path / "peer", here) as url, both(url, database, tmp_path / "ours", here) as ask:
        told, untold = ask(None, "GET", "/v2/", **{"X-Forwarded-Proto": "https"}), ask(None, "GET", "/v2/")
    realms = [challenge_of(answer.challenge).parameters["realm"] for answer in (*told, *untold)]
    assert realms == [
        f"{scheme}://registry.test/auth/token" for scheme in ("https", "https", "https", "http")
    ]


MANY: Final = settings(
    max_examples=40 * EFFORT, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ENTRIES: Final = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["repository", "repository(plugin)", "registry"]),
        "name": st.sampled_from([REPOSITORY, "team", "team/*", "catalog"]),
        "actions": st.none()
        | st.lists(st.sampled_from(["pull", "push", "delete", "*", "PULL", ""]), max_size=3),
    }
)
PARTS: Final[dict[str, st.SearchStrategy[Any]]] = {
    "iss": st.sampled_from([ISSUER, ISSUER, "other", None]),
    "aud": st.sampled_from([SERVICE, SERVICE, "other", [], ...]),
    "nbf": st.sampled_from([..., -5, 30, 120]),
    "exp": st.sampled_from([..., -90, -30, 600, 600]),
    "sub": st.none() | st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=5),
    "access": st.none() | st.lists(ENTRIES, max_size=4),
}


def test_any_token_then_both_say_the_same(
    peer: str, database: Target, tmp_path: Path, auth: dict[str, Any]
) -> None:
    with both(peer, database, tmp_path, auth) as ask:

        @MANY
        @given(
            st.fixed_dictionaries({}, optional=PARTS),
            st.sampled_from([KEY, KEY, KEY, STRANGER]),
            st.sampled_from([KID, KID, KID, RSA_KID, "nobody"]),
        )
        def compare(parts: dict[str, Any], key: Any, kid: str) -> None:
            dates = {
                name: seconds(parts[name]) for name in ("nbf", "exp") if isinstance(parts.get(name), int)
            }
            text = token(claims(**(parts | dates)), key, kid=kid)
            for method, target in (("GET", MANIFEST), ("DELETE", MANIFEST), ("GET", "/v2/_catalog")):
                theirs, ours = ask(f"Bearer {text}", method, target)
                assert theirs.verdict == ours.verdict

        compare()
