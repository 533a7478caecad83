"""The benchmark's cases about tokens measure what they say: doors are closed, tokens are right, passwords are hashed.

With the registry as it is benchmarked, but without load, so that neither wrk nor the peer is needed.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from app.auth.jwts import Verifier
from app.auth.keys import read_keys
from app.config import load
from app.domain.access import Action
from benchmarks import accounts, asking, cases, seeds, tokens
from benchmarks.accounts import PERSON, ROBOT
from benchmarks.company import Company, guarded_ours, guarded_peer
from benchmarks.contenders import BOTH, ISSUER, OURS_GUARDED
from benchmarks.errors import CaseError
from benchmarks.outside import OutsideIssuer
from benchmarks.programs import PEER
from benchmarks.tokens import FirstLogins, Issues, Refreshes, WithToken

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.loads import Load

MINIMAL = {"version": "0.1", "storage": {"filesystem": {"rootdirectory": "/x"}}, "database": {"host": "x"}}


async def first_logins(work: Path, look: Callable[[str], None]) -> Load:
    """What the case gives after `look` has seen its registry at this URL. In the end nothing runs any more."""
    case = FirstLogins("x", "ms", needs=("accounts",))
    async with AsyncExitStack() as stack:
        company = Company([case], [], work, stack)
        (contender,) = await company.of(case)
        await asyncio.to_thread(case.check, contender)
        await asyncio.to_thread(look, contender.running.url)
        load = await case.load(contender, 0)
        await company.part([])
        assert not contender.running.is_up
    return load


def test_token_service_when_asked_in_every_way_then_its_tokens_are_right_and_first_logins_are_slow(
    tmp_path: Path,
) -> None:
    waited: list[float] = []

    def look(url: str) -> None:
        sizes = {name: tokens._ask_once(url, name) for name in (ROBOT, PERSON, "")}
        form, size = tokens._refresh_once(url, PERSON)
        assert min(*sizes.values(), size) > 400
        assert "grant_type=refresh_token" in form
        with asking.connected(url) as client:
            for _ in range(9):
                began = time.perf_counter()
                robots = tokens._issued(client, ROBOT)
                waited.append(1e3 * (time.perf_counter() - began))
        with pytest.raises(CaseError, match=r"the token allows .*'push'.* instead of .*\['pull'\]"):
            tokens.check_token(url, robots, "")
        forged = json.dumps({"token": json.loads(robots)["token"][:-8] + "AAAAAAAA"}).encode()
        with pytest.raises(CaseError, match="GET /v2/: 401 instead of 200"):
            tokens.check_token(url, forged, ROBOT)

    load = asyncio.run(first_logins(tmp_path, look))

    assert load.operations == len(accounts.NEWCOMERS)
    # Each of them has a hash made, which the robot's secret does without.
    assert load.gauges["median"] > 3 * min(waited), waited


def test_registry_with_an_outside_issuer_when_made_then_its_settings_are_those_of_the_peer(
    tmp_path: Path,
) -> None:
    issuer = OutsideIssuer(tmp_path)

    ours = guarded_ours(tmp_path, issuer)

    token = load(None, ours.running.environment, base=MINIMAL).settings.auth.token
    assert token is not None
    assert {name: getattr(token, name) for name in issuer.settings()} == issuer.settings()
    assert ours.headers["Authorization"].startswith("Bearer ey")


@pytest.mark.needs(PEER)
def test_peer_with_an_outside_issuer_when_started_then_takes_the_same_token(tmp_path: Path) -> None:
    issuer = OutsideIssuer(tmp_path)
    peer = guarded_peer(tmp_path, issuer)

    async def work() -> None:
        await peer.running.start()
        try:
            with asking.connected(peer.running.url, peer.headers) as client:
                client.ask("GET", "/v2/", expect=200)
                client.ask("GET", f"/v2/{seeds.IMAGES}/manifests/x", expect=404)
                client.ask("GET", "/v2/", expect=401, headers={"Authorization": "Bearer x"})
        finally:
            await peer.running.stop()

    asyncio.run(work())


def test_outside_token_when_verified_then_allows_what_was_asked_for_until_the_run_is_over(
    tmp_path: Path,
) -> None:
    issuer = OutsideIssuer(tmp_path)
    settings = issuer.settings()
    keys = read_keys(settings["rootcertbundle"], "")
    verifier = Verifier(lambda: keys, issuer=settings["issuer"], service=settings["service"])

    verified = verifier.verify(issuer.token("a/b", ("pull",)))

    assert verified.grants.may(Action.PULL, "a/b")
    assert not verified.grants.may(Action.PUSH, "a/b")
    assert verified.until > time.time() + 12 * 3600


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"token": 1}', b'{"token": "a.b.c"}', b'{"token": "a"}']
)
def test_answer_when_it_holds_no_token_then_fails_the_case(body: bytes) -> None:
    with pytest.raises(CaseError, match="holds no token"):
        tokens.check_token("http://127.0.0.1:1", body, ROBOT)


def test_token_when_it_allows_something_else_then_fails_the_case(tmp_path: Path) -> None:
    token = OutsideIssuer(tmp_path).token(seeds.IMAGES, ("delete",))

    with pytest.raises(CaseError, match=r"the token allows .*'delete'.* instead of .*\['pull', 'push'\]"):
        tokens.check_token("http://127.0.0.1:1", json.dumps({"token": token}).encode(), ROBOT)


def test_cases_when_they_take_turns_then_sides_join_those_of_both_registries_alone() -> None:
    special = [case for case in cases.every_case() if case.contenders != BOTH]

    assert {type(case) for case in special} == {WithToken, Issues, Refreshes, FirstLogins}
    assert {case.contenders for case in special} == {("ours", OURS_GUARDED, "peer-token"), (ISSUER,)}


def test_case_with_tokens_when_it_gives_rows_then_compares_with_no_token_and_with_the_peer() -> None:
    rows = WithToken("manifest-get-token-16", "requests/s").rows

    assert [(row.name, row.of, row.beside) for row in rows] == [
        ("manifest-get-token-16", ("ours", "ours-token"), "ours"),
        ("manifest-get-token-16-peer", ("ours-token", "peer-token"), "peer-token"),
    ]
