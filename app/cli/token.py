"""What `registry token` does: looking at the tokens that clients bring."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from app.auth import claims as claims_of
from app.auth.compact import TOKEN_CHARS_MAX, TokenRefused, split
from app.auth.jwts import Verifier
from app.auth.keys import ALGORITHMS, KeyFileError, read_keys
from app.cli import words
from app.cli.accounts import config_of
from app.cli.errors import BadConfiguration, told
from app.cli.gc.place import Place
from app.cli.settings import config_argument, loaded
from app.services.signing_ring import key_set
from app.store import signing_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from app.auth.compact import Token
    from app.auth.keys import KeySet
    from app.config import Settings

REFUSED: Final = 1
_SCHEME: Final = re.compile(r"\Abearer +", re.IGNORECASE)
# Refusals after which nothing that the token says can be believed.
_UNPROVEN: Final = frozenset({"algorithm", "unknown_key", "certificates", "signature"})
# What is shown of the claims. `user` is not: it is a token itself.
_CLAIMS: Final = ("iss", "aud", "sub", "auth_type", "jti", "iat", "nbf", "exp", "access")
_VALUE_CHARS_MAX: Final = 500


@dataclass(frozen=True)
class Report:
    """What there is to say of a token. `token` is None if it cannot be taken apart."""

    token: Token | None
    refusals: Sequence[TokenRefused]
    until: float | None
    trusted: Sequence[str]
    now: datetime

    @property
    def is_proven(self) -> bool:
        return self.token is not None and not any(refused.kind in _UNPROVEN for refused in self.refusals)


@click.group(name="token", help="Look at the tokens that clients bring.")
def command() -> None:
    """Nothing by itself."""


@command.command(name="inspect", short_help="Say what a token allows, or why it is refused.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
@click.argument("token")
@config_argument
@click.pass_context
def inspect(context: click.Context, *, is_json: bool, token: str, config: Path | None) -> None:
    """Say what a token allows, until when it is accepted, or why it is refused.

    TOKEN is the token, or - to read it from standard input, which keeps it out of the list of processes and the
    shell's history. CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it,
    or else it is data/config.yml, of registry serve --local. The clock that counts is this machine's. Neither the token
    nor its signature is printed.

    Exit code 1: this registry would refuse the token.
    """
    found = report(_read(token), config_of(config))
    if is_json:
        click.echo(words.document(_document(found)))
    else:
        for line in lines(found):
            click.echo(words.printable(line))
    if found.refusals:
        context.exit(REFUSED)


def _read(argument: str) -> str:
    text = _piped() if argument == "-" else argument
    return _SCHEME.sub("", text.strip())


def _piped() -> str:
    raw = getattr(sys.stdin, "buffer", sys.stdin).read(2 * TOKEN_CHARS_MAX)
    return raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)


def key_source(settings: Settings, config: Path | None = None) -> Callable[[], KeySet]:
    """Where the keys are that this registry verifies tokens with. What it returns raises Failure."""
    auth = settings.auth
    if auth.token is not None:
        files = auth.token.rootcertbundle, auth.token.jwks

        def from_files() -> KeySet:
            with told(KeyFileError):
                return read_keys(*files)

        return from_files
    if auth.issuer is not None:
        return lambda: _announced(config)
    raise BadConfiguration(
        [f"auth: the provider is {auth.provider}, which takes no tokens; expected token or issuer"]
    )


def _announced(config: Path | None) -> KeySet:
    """The keys that the replicas of the built-in token service sign with."""
    return key_set(Place(config).change(lambda database: database.read(signing_keys.trusted)))


def report(text: str, config: Path | None) -> Report:
    """What there is to say of the token. Raises Failure, BadConfiguration."""
    settings = loaded(config).settings
    keys, now = key_source(settings, config)(), time.time()
    verifier = _verifier(settings, keys, now)
    moment = datetime.fromtimestamp(now, UTC)
    try:
        token = split(text)
    except TokenRefused as refused:
        return Report(None, (refused,), None, keys.ids, moment)
    refusals = tuple(verifier.objections(token))
    until = None if refusals else verifier.verify(text).until
    return Report(token, refusals, until, keys.ids, moment)


def _verifier(settings: Settings, keys: KeySet, now: float) -> Verifier:
    token, issuer = settings.auth.token, settings.auth.issuer
    provider = token or issuer
    assert provider is not None, "there are keys"
    algorithms = (token.signingalgorithms if token is not None else ()) or ALGORITHMS
    return Verifier(
        lambda: keys,
        issuer=provider.issuer,
        service=provider.service,
        algorithms=algorithms,
        now=lambda: now,
    )


def lines(found: Report) -> Iterator[str]:
    """The report as text."""
    if found.token is not None:
        yield "header"
        yield from _indented(_header(found.token).items())
        yield "claims" if found.is_proven else "claims (not verified: anybody may have written them)"
        yield from _claims(found.token.claims, found.now)
    if found.until is not None:
        until = datetime.fromtimestamp(found.until, UTC)
        yield f"accepted until {words.moment(until)} ({words.since(until, found.now)}, clocks being apart allowed for)"
    for number, refused in enumerate(found.refusals):
        yield f"{'also' if number else 'refused'}: {refused.reason}"
    if not found.is_proven and found.token is not None:
        yield "trusted keys, by the ids that tokens may give them:"
        yield from (f"  {name}" for name in found.trusted)


def _indented(pairs: Iterable[tuple[str, Any]]) -> Iterator[str]:
    for name, value in pairs:
        yield f"  {name:<12}{_short(value)}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else words.line(value)
    return text if len(text) <= _VALUE_CHARS_MAX else f"{text[:_VALUE_CHARS_MAX]}…"


def _header(token: Token) -> dict[str, Any]:
    header = {"alg": token.algorithm, "kid": token.kid, "typ": token.typ, "x5c": None}
    if token.x5c:
        header["x5c"] = words.many(len(token.x5c), "certificate")
    return {name: value for name, value in header.items() if value is not None}


def _claims(claims: Mapping[str, Any], now: datetime) -> Iterator[str]:
    for name in _CLAIMS:
        if name not in claims or name == "access":
            continue
        value = claims[name]
        yield from _indented([(name, _when(value, now) if name in ("iat", "nbf", "exp") else value)])
    yield "  access"
    try:
        listed = [*claims_of.entries(claims)]
    except TokenRefused:
        yield f"    {_short(claims['access'])}"
        return
    for entry in listed:
        actions = ",".join(sorted(entry.actions)) or "nothing"
        yield f"    {actions} on {entry.type} {entry.name}"
        if entry.meta:
            yield f"      {_short(entry.meta)}"
    if not listed:
        yield "    nothing"


def _when(value: Any, now: datetime) -> Any:
    try:
        moment = datetime.fromtimestamp(value, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return value
    return f"{words.moment(moment)} ({words.since(moment, now)})"


def _document(found: Report) -> dict[str, Any]:
    return {
        "now": words.plain(found.now),
        "accepted": not found.refusals,
        "until": None if found.until is None else words.plain(datetime.fromtimestamp(found.until, UTC)),
        "verified": found.is_proven,
        "refusals": [{"kind": refused.kind, "reason": refused.reason} for refused in found.refusals],
        "header": None if found.token is None else _header(found.token),
        "claims": None if found.token is None else _shown_claims(found.token.claims),
        "trusted_keys": list(found.trusted),
    }


def _shown_claims(claims: Mapping[str, Any]) -> dict[str, Any]:
    return {name: claims[name] for name in _CLAIMS if name in claims}
