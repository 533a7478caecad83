"""What makes a token accepted: the key, the algorithm, issuer, audience and time; and what is remembered of it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from app.auth.compact import TOKEN_CHARS_MAX, TokenRefused
from app.auth.jwts import CACHED_CHARS_MAX, CACHED_MAX, Verifier
from app.auth.keys import KeySet, TrustedKey, libtrust_id, read_keys, thumbprint
from app.domain.access import Action
from tests.auth.test_keys import bundle, jwk_of, jwks
from tests.auth.tokens import (
    NOW,
    Clock,
    access,
    base64url,
    certificate,
    claims,
    key_set,
    pem,
    private_key,
    signed,
    verifier,
    x5c,
)

if TYPE_CHECKING:
    from pathlib import Path

KEY = private_key("ES256")
OTHER = private_key("ES256", 1)


def refused(verifier: Verifier, token: str) -> TokenRefused:
    with pytest.raises(TokenRefused) as info:
        verifier.verify(token)
    assert token not in info.value.reason
    assert token.rpartition(".")[2] not in info.value.reason
    return info.value


@pytest.mark.parametrize(
    "alg", ["ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA"]
)
@pytest.mark.parametrize("name", [thumbprint, libtrust_id, None])
def test_verify_when_a_certified_key_signed_then_it_is_accepted_by_either_id_or_none(
    tmp_path: Path, alg: str, name: Any
) -> None:
    key = private_key(alg if alg[:2] in ("ES", "Ed") else "RS256")
    keys = read_keys(bundle(tmp_path, pem(certificate(OTHER), certificate(key))), "")
    token = signed(key, alg=alg, kid=name and name(key.public_key()))
    verified = verifier(keys).verify(token)
    assert verified.grants.subject.name == "alice"
    assert verified.grants.may(Action.PUSH, "team/app")
    assert verified.until == NOW + 360


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_verify_when_a_secret_of_a_set_signed_then_it_is_accepted(tmp_path: Path, alg: str) -> None:
    secret = bytes(range(64))
    keys = read_keys("", jwks(tmp_path, {"kty": "oct", "kid": "s", "k": base64url(secret)}))
    verifier(keys).verify(signed(secret, alg=alg, kid="s"))
    assert refused(verifier(keys), signed(secret[:-1], alg=alg, kid="s")).kind == "signature"


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", None])
def test_verify_when_the_type_is_that_of_a_token_then_it_is_accepted(typ: str | None) -> None:
    header = {"alg": "ES256"} | ({"typ": typ} if typ else {})
    verifier(key_set(KEY)).verify(signed(KEY, header=header))


@pytest.mark.parametrize("body", [{"aud": ["other", "container_registry"]}, {"nbf": ...}, {"iat": NOW + 9e6}])
def test_verify_when_claims_are_unusual_but_right_then_it_is_accepted(body: dict[str, Any]) -> None:
    verifier(key_set(KEY)).verify(signed(KEY, claims(**body)))


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ({"iss": "other"}, "issuer", "issued by 'other' (`iss`); expected 'gitlab-issuer'"),
        ({"iss": ...}, "issuer", "issued by None"),
        ({"iss": ["gitlab-issuer"]}, "issuer", "issued by ['gitlab-issuer']"),
        ({"iss": "Gitlab-issuer"}, "issuer", "issued by"),
        ({"aud": "other"}, "audience", "for 'other' (`aud`); this registry is 'container_registry'"),
        ({"aud": ["a", "b"]}, "audience", "for ['a', 'b']"),
        ({"aud": []}, "audience", "for []"),
        ({"aud": ...}, "audience", "`aud` is missing"),
        ({"aud": "container_registry "}, "audience", "for 'container_registry '"),
        ({"aud": {"container_registry": 1}}, "malformed", "`aud` is neither"),
        ({"aud": ["container_registry", 7]}, "malformed", "`aud` is neither"),
        ({"exp": ...}, "malformed", "`exp` is missing"),
        ({"exp": None}, "malformed", "`exp` is missing"),
        ({"exp": NOW - 600, "iat": NOW - 900}, "expired", "expired 600 s ago, at 2027-01-15 07:50:00 UTC"),
        ({"exp": NOW - 600, "iat": NOW - 900}, "expired", "this machine's clock is ahead by about 900 s"),
        ({"exp": NOW - 600, "iat": ...}, "expired", "this machine's clock is ahead"),
        ({"exp": 0}, "expired", "at 1970-01-01 00:00:00 UTC"),
        ({"nbf": NOW + 600}, "not_yet_valid", "in 600 s; if it is new, this machine's clock is behind"),
        *(
            ({name: value}, "malformed", f"`{name}` is no moment")
            for name in ("exp", "nbf")
            for value in (-1, True, "1900000000", [1900000000], {}, 10**30, -(10**30), 1e300)
        ),
        ({"access": {}}, "malformed", "`access` is not a list"),
    ],
)
def test_verify_when_claims_are_wrong_then_it_is_refused_with_the_reason(
    body: dict[str, Any], kind: str, words: str
) -> None:
    found = refused(verifier(key_set(KEY)), signed(KEY, claims(**body)))
    assert (found.kind, words in found.reason) == (kind, True), found.reason


@pytest.mark.parametrize(("claim", "sign"), [("exp", -1), ("nbf", 1)])
def test_verify_when_clocks_are_apart_then_sixty_seconds_are_allowed_and_not_one_more(
    claim: str, sign: int
) -> None:
    checks = verifier(key_set(KEY))
    checks.verify(signed(KEY, claims(**{claim: NOW + sign * 59.9})))
    with pytest.raises(TokenRefused):
        checks.verify(signed(KEY, claims(**{claim: NOW + sign * 60.1})))


def test_verify_when_exactly_sixty_seconds_after_the_end_then_it_is_over() -> None:
    checks = verifier(key_set(KEY))
    assert refused(checks, signed(KEY, claims(exp=NOW - 60))).kind == "expired"
    checks.verify(signed(KEY, claims(exp=NOW - 59)))
    checks.verify(signed(KEY, claims(nbf=NOW + 60)))


@pytest.mark.parametrize(
    "kid",
    ["other", thumbprint(OTHER.public_key()), "x" * 5000, "\x1b[2J\n"],
    ids=["other", "a stranger's", "long", "control"],
)
def test_verify_when_nobody_has_the_kid_then_it_is_refused_and_no_key_is_tried(kid: str) -> None:
    found = refused(verifier(key_set(KEY)), signed(KEY, kid=kid))
    assert found.kind == "unknown_key"
    assert len(found.reason) < 250
    assert found.reason.isprintable()


def test_verify_when_the_kid_is_another_trusted_keys_then_the_right_key_is_not_tried() -> None:
    token = signed(KEY, kid=thumbprint(OTHER.public_key()))
    assert refused(verifier(key_set(KEY, OTHER)), token).kind == "signature"


def test_verify_when_algorithms_are_narrowed_then_others_are_refused() -> None:
    checks = verifier(key_set(KEY, private_key("RS256")), algorithms=["RS256"])
    checks.verify(signed(private_key("RS256"), alg="RS256"))
    assert "accepted are RS256" in refused(checks, signed(KEY)).reason
    assert refused(checks, signed(private_key("RS256"), alg="RS384")).kind == "algorithm"


def test_verify_when_the_key_is_for_one_algorithm_then_others_of_its_kind_are_refused(tmp_path: Path) -> None:
    keys = read_keys("", jwks(tmp_path, jwk_of(private_key("RS256"), kid="k", alg="PS256")))
    verifier(keys).verify(signed(private_key("RS256"), alg="PS256", kid="k"))
    found = refused(verifier(keys), signed(private_key("RS256"), alg="RS256", kid="k"))
    assert found.reason == "the token is signed by RS256; its key is for PS256"


# Certificates that the token brings.

ROOT_KEY = private_key("ES256", 2)
ROOT = certificate(ROOT_KEY, "root", ca=True, signs_certificates=True)
MIDDLE_KEY = private_key("RS256", 3)
MIDDLE = certificate(
    MIDDLE_KEY, "middle", issuer="root", issuer_key=ROOT_KEY, ca=True, signs_certificates=True
)


def test_verify_when_certificates_lead_to_the_root_then_the_first_ones_key_counts() -> None:
    checks = verifier(key_set(ROOT_KEY, roots=(ROOT,)))
    for leaf_alg in ("ES256", "RS256", "EdDSA"):
        key = private_key(leaf_alg, 4)
        direct = certificate(key, "leaf", issuer="root", issuer_key=ROOT_KEY)
        checks.verify(signed(key, alg=leaf_alg, x5c=x5c(direct)))
        checks.verify(signed(key, alg=leaf_alg, x5c=x5c(direct, ROOT), kid="whatever"))
        longer = certificate(key, "leaf", issuer="middle", issuer_key=MIDDLE_KEY, ca=False)
        checks.verify(signed(key, alg=leaf_alg, x5c=x5c(longer, MIDDLE)))


def test_verify_when_the_certificate_is_itself_trusted_then_it_needs_no_extensions() -> None:
    alone = certificate(KEY)
    verifier(key_set(KEY, roots=(alone,))).verify(signed(KEY, x5c=x5c(alone)))


def test_verify_when_a_certificate_ends_before_the_token_then_the_acceptance_ends_with_it() -> None:
    hour = timedelta(hours=1) / timedelta(days=1)
    leaf = certificate(KEY, "leaf", issuer="root", issuer_key=ROOT_KEY, days=(-1, hour))
    clock = Clock()
    checks = verifier(key_set(ROOT_KEY, roots=(ROOT,)), now=clock)
    token = signed(KEY, claims(exp=NOW + 86_400), x5c=x5c(leaf))
    assert checks.verify(token).until == NOW + 3600
    clock.now += 3601
    assert refused(checks, token).kind == "certificates"


def test_verify_when_there_are_no_certificates_to_lead_to_then_the_kid_counts(tmp_path: Path) -> None:
    keys = read_keys("", jwks(tmp_path, jwk_of(KEY, kid="k")))
    verifier(keys).verify(signed(KEY, kid="k", x5c=x5c(certificate(KEY))))
    assert refused(verifier(keys), signed(OTHER, kid="k", x5c=x5c(certificate(OTHER)))).kind == "signature"


# What is remembered.


class Counted(TrustedKey):
    """A key that counts how often it is looked at."""

    looks = 0

    def __getattribute__(self, name: str) -> Any:
        if name == "material":
            Counted.looks += 1
        return super().__getattribute__(name)


def counted(key: Any) -> KeySet:
    Counted.looks = 0
    (only,) = key_set(key).candidates(None)
    return KeySet([Counted(only.material, only.ids, only.algorithms)])


def test_verify_when_a_token_comes_again_then_its_signature_is_not_computed_again() -> None:
    checks, token = verifier(counted(KEY)), signed(KEY)
    first = checks.verify(token)
    assert checks.verify(token) is first
    assert Counted.looks == 1


def test_verify_when_a_remembered_token_ends_then_it_is_refused() -> None:
    clock = Clock()
    checks, token = verifier(counted(KEY), now=clock), signed(KEY, claims(exp=NOW + 300))
    checks.verify(token)
    clock.now = NOW + 359.9
    checks.verify(token)
    assert Counted.looks == 1
    clock.now = NOW + 360
    assert refused(checks, token).kind == "expired"


def test_verify_when_a_key_is_removed_then_its_remembered_tokens_are_refused_at_once() -> None:
    sets = [key_set(KEY, OTHER)]
    checks = verifier(lambda: sets[0])
    token, other = signed(KEY, kid=thumbprint(KEY.public_key())), signed(OTHER)
    checks.verify(token)
    checks.verify(other)
    sets[0] = key_set(OTHER)
    assert refused(checks, token).kind == "unknown_key"
    checks.verify(other)
    sets[0] = key_set(KEY, OTHER)
    checks.verify(token)


def test_verify_when_a_token_is_refused_then_nothing_is_remembered_of_it() -> None:
    checks = verifier(key_set(KEY))
    for token in (signed(OTHER), signed(KEY, claims(iss="other")), signed(KEY, claims(exp=0)), "a.b.c"):
        refused(checks, token)
    assert checks.remembered == 0


def test_verify_when_there_are_more_tokens_than_are_remembered_then_the_oldest_are_forgotten() -> None:
    checks = verifier(counted(private_key("EdDSA")))
    tokens = [
        signed(private_key("EdDSA"), claims(jti=str(number)), alg="EdDSA") for number in range(CACHED_MAX + 2)
    ]
    for token in tokens:
        checks.verify(token)
    assert checks.remembered == CACHED_MAX
    looks = Counted.looks
    checks.verify(tokens[-1])
    assert Counted.looks == looks
    checks.verify(tokens[0])
    assert Counted.looks == looks + 1


def test_verify_when_tokens_are_long_then_fewer_are_remembered() -> None:
    checks = verifier(key_set(private_key("EdDSA")))
    many = [{"type": "repository", "name": f"a/{number:0200}", "actions": ["pull"]} for number in range(90)]
    token = ""
    for number in range(160):
        token = signed(private_key("EdDSA"), claims(jti=str(number), access=many), alg="EdDSA")
        checks.verify(token)
    assert len(token) * 160 > CACHED_CHARS_MAX
    assert checks.remembered == CACHED_CHARS_MAX // len(token)


def test_verify_when_a_gitlab_token_has_forty_scopes_then_it_is_short_enough() -> None:
    meta = {
        "project_path": "a-group/a-subgroup/" + "a-project",
        "project_id": 1_234_567,
        "root_namespace_id": 7_654_321,
        "tag_deny_access_patterns": {"push": ["^v.*$"], "delete": ["^v.*$"]},
        "tag_immutable_patterns": [],
    }
    scopes = [access(f"a-group/a-subgroup/a-project/{n}", "pull", "push", meta=meta) for n in range(40)]
    token = signed(private_key("RS256"), claims(access=scopes, user="x" * 900), alg="RS256")
    assert len(token) < TOKEN_CHARS_MAX
    verifier(key_set(private_key("RS256"))).verify(token)
