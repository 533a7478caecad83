"""Cases about access control: what a token costs whoever brings one, and what it costs to issue one.

An issued token is right if the registry that issued it lets nobody in without one, lets its bearer in, and if it says
what the account is granted of what was asked for, no less and no more.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from benchmarks import accounts, asking, seeds, wrk
from benchmarks.contenders import ISSUER, OURS, OURS_GUARDED, PEER_GUARDED
from benchmarks.errors import CaseError
from benchmarks.kinds import CONNECTIONS, Manifests, OneFigure, Row, per_second
from benchmarks.loads import Load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.asking import Client
    from benchmarks.contenders import Contender

_PATH: Final = "/auth/token"
_ASK: Final = {"service": "registry", "scope": f"repository:{seeds.IMAGES}:pull,push,delete"}
_FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass
class WithToken(Manifests):
    """Manifests for a client with a token: beside ours to which nobody needs one, and beside the peer with tokens."""

    contenders: tuple[str, ...] = (OURS, OURS_GUARDED, PEER_GUARDED)

    @property
    def rows(self) -> Sequence[Row]:
        return [
            Row(self.name, self.unit, per_second, (OURS, OURS_GUARDED), OURS),
            Row(f"{self.name}-peer", self.unit, per_second, (OURS_GUARDED, PEER_GUARDED), PEER_GUARDED),
        ]

    def check(self, contender: Contender) -> None:
        if contender.headers:
            with asking.connected(contender.running.url) as stranger:
                stranger.ask("GET", "/v2/", expect=401)
        super().check(contender)


@dataclass
class Issues(OneFigure):
    """Tokens for an account, or for a client that does not say who it is: GET by wrk."""

    contenders: tuple[str, ...] = (ISSUER,)
    account: str = ""

    def check(self, contender: Contender) -> None:
        url = contender.running.url
        with asking.connected(url) as stranger:
            stranger.ask("GET", "/v2/", expect=401)

    async def load(self, contender: Contender, seconds: float) -> Load:
        url = contender.running.url
        size = await asyncio.to_thread(_ask_once, url, self.account)
        return await wrk.run(
            f"{url}{_PATH}?{urlencode(_ASK)}",
            "get",
            seconds=seconds,
            connections=CONNECTIONS,
            headers=_credentials(self.account),
            answer_bytes=size,
        )


@dataclass
class Refreshes(Issues):
    """Tokens for whoever holds a refresh token: POST by wrk."""

    async def load(self, contender: Contender, seconds: float) -> Load:
        url = contender.running.url
        form, size = await asyncio.to_thread(_refresh_once, url, self.account)
        return await wrk.run(
            f"{url}{_PATH}",
            "post",
            [form],
            seconds=seconds,
            connections=CONNECTIONS,
            answer_bytes=size,
        )


@dataclass
class FirstLogins(Issues):
    """Milliseconds that people wait who log in for the first time, one after the other: each password is hashed."""

    fresh: bool = True

    @property
    def rows(self) -> Sequence[Row]:
        return [Row(self.name, self.unit, lambda load: load.gauges["median"])]

    async def load(self, contender: Contender, seconds: float) -> Load:
        del seconds
        spent = await asyncio.to_thread(_log_in_once_each, contender.running.url, accounts.NEWCOMERS)
        return Load(len(spent), sum(spent), gauges={"median": 1e3 * median(spent)})


def check_token(url: str, body: bytes, account: str) -> None:
    """Raise CaseError unless a token service's answer is the account's token, which the registry at `url` takes."""
    try:
        token = json.loads(body)["token"]
        access = _claims(token)["access"]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise CaseError(f"the answer of {_PATH} holds no token") from None
    expected = [{"type": "repository", "name": seeds.IMAGES, "actions": accounts.allowed(account)}]
    if access != expected:
        raise CaseError(f"the token allows {access} instead of {expected}")
    with asking.connected(url, {"Authorization": f"Bearer {token}"}) as bearer:
        bearer.ask("GET", "/v2/", expect=200)


def _ask_once(url: str, account: str) -> int:
    """Ask for a token, look at it, and say how long the answer was."""
    with asking.connected(url) as client:
        body = _issued(client, account)
    check_token(url, body, account)
    return len(body)


def _refresh_once(url: str, account: str) -> tuple[str, int]:
    """The form that asks for a token with a refresh token, and how long the answer to it was."""
    with asking.connected(url) as client:
        held = json.loads(_issued(client, account, "&offline_token=true"))["refresh_token"]
        form = urlencode({**_ASK, "grant_type": "refresh_token", "refresh_token": held, "client_id": "bench"})
        body = client.ask("POST", _PATH, expect=200, headers=_FORM, body=form.encode()).body
    check_token(url, body, account)
    return form, len(body)


def _log_in_once_each(url: str, names: Sequence[str]) -> list[float]:
    """How long each of them waited, in seconds."""
    spent: list[float] = []
    with asking.connected(url) as client:
        for name in names:
            began = time.perf_counter()
            body = _issued(client, name)
            spent.append(time.perf_counter() - began)
            check_token(url, body, name)
    return spent


def _issued(client: Client, account: str, more: str = "") -> bytes:
    target = f"{_PATH}?{urlencode(_ASK)}{more}"
    return client.ask("GET", target, expect=200, headers=_credentials(account)).body


def _credentials(account: str) -> Mapping[str, str]:
    return accounts.basic(account) if account else {}


def _claims(token: str) -> dict[str, Any]:
    """What the token says, whoever has signed it."""
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
