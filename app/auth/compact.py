"""A bearer token taken apart: three segments of strict base64url, two JSON objects, a signature. Nothing is verified.

Whatever a client sends, `split` returns a `Token` or raises TokenRefused, within time and memory bounded by the
token's length, which is looked at before anything else.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# About half of what a request's head may have. GitLab's tokens take some 700 characters for each scope.
TOKEN_CHARS_MAX: Final = 32 * 1024
# Objects and lists in each other. GitLab's have five.
DEPTH_MAX: Final = 32
# Of what the token says of itself, in a sentence for the administrator.
SHOWN_CHARS_MAX: Final = 100

Kind = Literal[
    "malformed",
    "algorithm",
    "unknown_key",
    "certificates",
    "signature",
    "issuer",
    "audience",
    "expired",
    "not_yet_valid",
]

_SEGMENTS: Final = 3
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")
_TYPES: Final = frozenset({"jwt", "at+jwt"})


class TokenRefused(Exception):
    """The token is not accepted. `reason` is a sentence for the administrator, never for the client."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind: Kind = kind
        self.reason = reason


@dataclass(frozen=True)
class Token:
    """What a token says."""

    algorithm: str
    kid: str | None
    typ: str | None
    x5c: tuple[bytes, ...]
    claims: Mapping[str, Any] = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def shown(value: object) -> str:
    """A value of a token as a sentence may hold it: short, and without anything that a terminal would obey."""
    text = ascii(value)
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}…"


def malformed(reason: str) -> TokenRefused:
    """The refusal of a token that cannot be understood."""
    return TokenRefused("malformed", reason)


def refuse_long(text: str) -> None:
    """Raise TokenRefused if the token is longer than anything that is worth a look."""
    if len(text) > TOKEN_CHARS_MAX:
        raise malformed(f"the token has {len(text)} characters; at most {TOKEN_CHARS_MAX} are accepted")


def split(text: str) -> Token:
    """The parts of the token. Raises TokenRefused."""
    refuse_long(text)
    if text.count(".") != _SEGMENTS - 1:
        raise malformed(
            f"the token has {text.count('.')} dots, not {_SEGMENTS - 1}: a password, a robot's secret or a refresh"
            " token is no bearer token"
        )
    head, body, seal = text.split(".")
    if not seal:
        raise malformed("the token is not signed")
    header = _object(_decoded(head, "header"), "header")
    if "crit" in header:
        raise malformed("the token's header has `crit`: extensions that must be understood, and none is")
    return Token(
        algorithm=_algorithm(header),
        kid=_text(header, "kid") or None,
        typ=_typ(header),
        x5c=_certificates(header),
        claims=_object(_decoded(body, "body"), "body"),
        signed=text[: len(head) + 1 + len(body)].encode("ascii"),
        signature=_decoded(seal, "signature"),
    )


def _decoded(segment: str, name: str) -> bytes:
    """The segment's bytes. There is one way alone to write them, so that no two tokens mean the same."""
    if _BASE64URL.fullmatch(segment) is None:
        raise malformed(f"the token's {name} is not base64url without padding")
    try:
        data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except binascii.Error:
        raise malformed(f"the token's {name} is not base64url: it ends too early") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=") != segment.encode("ascii"):
        raise malformed(f"the token's {name} is not base64url: its last character has bits that mean nothing")
    return data


def _object(data: bytes, name: str) -> dict[str, Any]:
    try:
        text = data.decode()
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number, parse_float=_finite)
        _refuse_deep(value)
        if "\\u" in text:
            # Half of a surrogate pair is no text: it could be neither logged nor stored.
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise malformed(f"the token's {name} is not UTF-8") from None
    except (RecursionError, _TooDeepError):
        raise malformed(f"the token's {name} is nested too deeply") from None
    except _AmbiguousError:
        raise malformed(f"the token's {name} has a key twice in one object") from None
    except ValueError:
        raise malformed(f"the token's {name} is not JSON") from None
    if not isinstance(value, dict):
        raise malformed(f"the token's {name} is not a JSON object")
    return cast("dict[str, Any]", value)


class _AmbiguousError(ValueError):
    """An object has a key twice."""


class _TooDeepError(ValueError):
    """Whoever would follow the value to its end might run out of stack."""


def _refuse_deep(value: Any) -> None:
    level: list[Any] = [value]
    for _ in range(DEPTH_MAX):
        level = [child for one in level for child in _children(one)]
        if not level:
            return
    raise _TooDeepError


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value).values()
    return cast("list[Any]", value) if isinstance(value, list) else ()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _AmbiguousError
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if math.isfinite(number):
        return number
    raise ValueError(text)


def _text(header: Mapping[str, Any], key: str) -> str | None:
    value = header.get(key)
    if value is not None and not isinstance(value, str):
        raise malformed(f"`{key}` in the token's header is not a string")
    return value


def _algorithm(header: Mapping[str, Any]) -> str:
    name = _text(header, "alg")
    if name is None:
        raise malformed("the token's header has no `alg`")
    return name


def _typ(header: Mapping[str, Any]) -> str | None:
    name = _text(header, "typ")
    if name is not None and name.lower().removeprefix("application/") not in _TYPES:
        raise malformed(f"the token is of the type {shown(name)}, not JWT")
    return name


def _certificates(header: Mapping[str, Any]) -> tuple[bytes, ...]:
    """The certificates of `x5c` in DER, the signer's first; none if there is no such key."""
    chain: Any = header.get("x5c")
    if chain is None:
        return ()
    if not isinstance(chain, list) or not chain:
        raise malformed("`x5c` in the token's header is not a list of certificates")
    return tuple(_certificate(text) for text in cast("list[Any]", chain))


def _certificate(text: Any) -> bytes:
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except ValueError:
        pass
    raise malformed("a certificate of `x5c` in the token's header is not base64")
