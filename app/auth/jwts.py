"""Bearer tokens, verified: signed with a trusted key, by an algorithm that is that key's, for this registry, now.

A token that has been verified is remembered until it ends, by its hash. Nothing is remembered across keys: whenever
there is another set of them, every token is verified anew.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

from jwt.algorithms import get_default_algorithms

from app.auth.claims import grants_of
from app.auth.compact import Token, TokenRefused, malformed, refuse_long, shown, split
from app.auth.keys import ALGORITHMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from app.auth.claims import Grants
    from app.auth.keys import KeySet, TrustedKey

__all__ = ["LEEWAY_SECONDS", "TokenRefused", "Verified", "Verifier"]

# How far clocks may be apart. Distribution's.
LEEWAY_SECONDS: Final = 60
CACHED_MAX: Final = 2048
# What is remembered of a token takes four to six times its length: of 2048 usual ones 6 MiB, of the longest 25 MiB.
CACHED_CHARS_MAX: Final = 4 * 1024 * 1024
# Year 10000. What lies beyond cannot be written as a date.
_MOMENT_MAX: Final = 253_402_300_800


@dataclass(frozen=True)
class Verified:
    """A token of so many characters that is accepted until a moment (seconds since 1970), and what it allows."""

    grants: Grants
    until: float
    chars: int


class Verifier:
    """Tells tokens that are accepted from those that are not. `keys` is asked each time."""

    def __init__(
        self,
        keys: Callable[[], KeySet],
        *,
        issuer: str,
        service: str,
        algorithms: Sequence[str] = ALGORITHMS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keys: Final = keys
        self._issuer: Final = issuer
        self._service: Final = service
        library = get_default_algorithms()
        self._algorithms: Final = {name: library[name] for name in algorithms if name in ALGORITHMS}
        self._now: Final = now
        self._cached: dict[bytes, Verified] = {}
        self._cached_chars = 0
        self._cached_for: KeySet | None = None

    def verify(self, token: str) -> Verified:
        """The token's claims and what they allow. Raises TokenRefused."""
        refuse_long(token)
        keys, now = self._keys(), self._now()
        if keys is not self._cached_for:
            self._cached, self._cached_chars, self._cached_for = {}, 0, keys
        name = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        known = self._cached.get(name)
        if known is not None and now < known.until:
            return known
        verified = Verified(*self._verify(split(token), keys, now), len(token))
        self._remember(name, verified)
        return verified

    @property
    def remembered(self) -> int:
        """How many tokens are remembered."""
        return len(self._cached)

    def objections(self, token: Token) -> Iterator[TokenRefused]:
        """Everything that is wrong with the token. `verify` refuses it for the first."""
        now = self._now()
        try:
            self._until(token, self._keys(), now)
        except TokenRefused as refused:
            yield refused
        yield from self._claims_refused(token.claims, now)

    def _verify(self, token: Token, keys: KeySet, now: float) -> tuple[Grants, float]:
        until = self._until(token, keys, now)
        for refused in self._claims_refused(token.claims, now):
            raise refused
        return grants_of(token.claims), min(until, token.claims["exp"] + LEEWAY_SECONDS)

    def _remember(self, name: bytes, verified: Verified) -> None:
        if (before := self._cached.pop(name, None)) is not None:
            self._cached_chars -= before.chars
        self._cached[name] = verified
        self._cached_chars += verified.chars
        while len(self._cached) > CACHED_MAX or self._cached_chars > CACHED_CHARS_MAX:
            oldest = next(iter(self._cached))
            self._cached_chars -= self._cached.pop(oldest).chars

    # The signature.

    def _until(self, token: Token, keys: KeySet, now: float) -> float:
        """Until when the token's signature may be relied on. Raises TokenRefused."""
        algorithm = self._algorithms.get(token.algorithm)
        if algorithm is None:
            allowed = ", ".join(self._algorithms)
            raise TokenRefused(
                "algorithm", f"the token is signed by {shown(token.algorithm)}; accepted are {allowed}"
            )
        candidates, until = _candidates(token, keys, now)
        fitting = [key for key in candidates if token.algorithm in key.algorithms]
        if not fitting:
            raise TokenRefused("algorithm", _unfit(token, candidates))
        if not any(algorithm.verify(token.signed, key.material, token.signature) for key in fitting):
            raise TokenRefused("signature", _unsigned(token, len(fitting)))
        return until

    # The claims.

    def _claims_refused(self, claims: Mapping[str, Any], now: float) -> Iterator[TokenRefused]:
        checks = (
            self._check_issuer,
            self._check_audience,
            self._check_end,
            self._check_begin,
            self._check_rest,
        )
        for check in checks:
            try:
                check(claims, now)
            except TokenRefused as refused:
                yield refused

    def _check_issuer(self, claims: Mapping[str, Any], _: float) -> None:
        if (issuer := claims.get("iss")) != self._issuer:
            raise TokenRefused(
                "issuer", f"the token was issued by {shown(issuer)} (`iss`); expected {shown(self._issuer)}"
            )

    def _check_audience(self, claims: Mapping[str, Any], _: float) -> None:
        audience: Any = claims.get("aud")
        if audience is None:
            raise TokenRefused(
                "audience", "the token does not say which registry it is for (`aud` is missing)"
            )
        listed: list[Any] = cast("list[Any]", audience) if isinstance(audience, list) else [audience]
        if not all(isinstance(one, str) for one in listed):
            raise malformed("the claim `aud` is neither a string nor a list of strings")
        if self._service not in listed:
            said = f"the token is for {shown(claims['aud'])} (`aud`)"
            raise TokenRefused("audience", f"{said}; this registry is {shown(self._service)}")

    def _check_end(self, claims: Mapping[str, Any], now: float) -> None:
        end = _moment(claims, "exp")
        if end is None:
            raise malformed("the token has no end: the claim `exp` is missing")
        if now < end + LEEWAY_SECONDS:
            return
        issued = _moment(claims, "iat")
        ahead = "" if issued is None or issued > now else f" by about {now - issued:.0f} s"
        raise TokenRefused(
            "expired",
            f"the token expired {now - end:.0f} s ago, at {_written(end)}; if it is new, this machine's clock is"
            f" ahead{ahead}",
        )

    def _check_begin(self, claims: Mapping[str, Any], now: float) -> None:
        begin = _moment(claims, "nbf")
        if begin is not None and now < begin - LEEWAY_SECONDS:
            raise TokenRefused(
                "not_yet_valid",
                f"the token is not valid before {_written(begin)}, in {begin - now:.0f} s; if it is new, this"
                " machine's clock is behind by about as much",
            )

    def _check_rest(self, claims: Mapping[str, Any], _: float) -> None:
        grants_of(claims)


def _candidates(token: Token, keys: KeySet, now: float) -> tuple[Sequence[TrustedKey], float]:
    """The keys that may have signed the token, and until when they may be relied on. Raises TokenRefused."""
    if token.x5c and keys.follows_certificates:
        key, until = keys.certified(token.x5c, now)
        return (key,), until
    candidates = keys.candidates(token.kid)
    if not candidates:
        raise TokenRefused(
            "unknown_key",
            "no key is trusted at all, and the token names none"
            if token.kid is None
            else f"the token is signed with the key {shown(token.kid)}, which is not a trusted one",
        )
    return candidates, float("inf")


def _unfit(token: Token, candidates: Sequence[TrustedKey]) -> str:
    possible = ", ".join(sorted(frozenset[str]().union(*(key.algorithms for key in candidates))))
    return f"the token is signed by {token.algorithm}; its key is for {possible}"


def _unsigned(token: Token, tried: int) -> str:
    if token.x5c:
        return "the token's signature is wrong: it is not by the certificate that the token brings"
    if token.kid is None:
        return f"the token's signature is wrong: it is by none of the {tried} trusted keys, and names no key"
    return f"the token's signature is wrong: it is not by the trusted key {shown(token.kid)}"


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    """The moment, in seconds since 1970; None if there is none. Raises TokenRefused."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MOMENT_MAX:
        raise malformed(f"the claim `{name}` is no moment: expected seconds since 1970")
    return value


def _written(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
