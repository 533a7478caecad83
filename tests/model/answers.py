"""What a request must be answered with, and in which points an answer differs from that.

Every header counts, also one that is there and should not be; only those of `_ANY` may say what they like. A header
that comes several times counts as one with commas.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ANY: Final = frozenset({"date", "x-request-id"})
_VERSION: Final = {"docker-distribution-api-version": "registry/2.0"}
_SHOWN_CHARS: Final = 400


@dataclass(frozen=True)
class Answer:
    """What came back. The names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def errors(self) -> list[tuple[str, str]]:
        """The code of each error, with the digest that it names; the whole body if it is no error document."""
        if not self.body:
            return []
        try:
            entries: list[Any] = json.loads(self.body)["errors"]
            return [(entry["code"], _digest_in(entry)) for entry in entries]
        except (ValueError, KeyError, TypeError):
            return [("no error document", _short(self.body))]


@dataclass(frozen=True)
class Expected:
    """What must come back. `headers` are all that count, a pattern where the server may choose.

    `errors` are codes with the digest that each names, in any order; empty means that it is no refusal. `document` is
    the JSON of the body, `parts` are what a multipart body has, each with its Content-Range, `body` is the bytes; at
    most one is given. `has_body` is false where there must be none, whatever the headers say of it.
    """

    status: int
    headers: Mapping[str, str | re.Pattern[str]] = field(default_factory=dict[str, "str | re.Pattern[str]"])
    body: bytes = b""
    document: Any = None
    parts: tuple[tuple[str, bytes], ...] = ()
    errors: tuple[tuple[str, str], ...] = ()
    has_body: bool = True

    def differences(self, answer: Answer) -> list[str]:
        """A line for each point in which the answer is another one. Empty: it is right."""
        if answer.status != self.status:
            return [f"status {answer.status}, not {self.status}", *self._other_errors(answer)]
        return [*self._other_headers(answer), *self._other_body(answer)]

    def _other_headers(self, answer: Answer) -> Iterator[str]:
        wanted = {**_VERSION, **self.headers}
        for name in sorted((wanted.keys() | answer.headers.keys()) - _ANY):
            found, expected = answer.headers.get(name), wanted.get(name)
            if not _fits(found, expected):
                yield f"{name} is {found!r}, not {getattr(expected, 'pattern', expected)!r}"

    def _other_body(self, answer: Answer) -> Iterator[str]:
        if not self.has_body:
            if answer.body:
                yield f"a body, {_short(answer.body)}, where there must be none"
            return
        if (stated := answer.headers.get("content-length", "0")) != str(len(answer.body)):
            yield f"content-length is {stated}, but {len(answer.body)} bytes came"
        if self.errors:
            yield from self._other_errors(answer)
        elif self.document is not None:
            if _read(answer.body) != self.document:
                yield f"document {_short(answer.body)}, not {self.document!r}"
        else:
            yield from self._other_bytes(answer)

    def _other_errors(self, answer: Answer) -> Iterator[str]:
        if sorted(answer.errors) != sorted(self.errors):
            yield f"errors {answer.errors}, not {list(self.errors)}"

    def _other_bytes(self, answer: Answer) -> Iterator[str]:
        if self.parts:
            if (parts := _parts(answer)) != list(self.parts):
                yield f"parts {_short(repr(parts))}, not {_short(repr(self.parts))}"
        elif answer.body != self.body:
            yield f"body {_short(answer.body)}, not {_short(self.body)}"


def refusal(status: int, *codes: str | tuple[str, str], **headers: str) -> Expected:
    """An OCI error document with these codes, a code beside the digest that it names where there is one."""
    return Expected(
        status,
        {
            "content-type": "application/json",
            "content-length": ANY_LENGTH,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        },
        errors=tuple((code, "") if isinstance(code, str) else code for code in codes),
    )


def listing(
    document: Any, media_type: str = "application/json", **headers: str | re.Pattern[str]
) -> Expected:
    """A page of a list."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Expected(
        200, {"content-type": media_type, "content-length": ANY_LENGTH, **named}, document=document
    )


def done(status: int, **headers: str) -> Expected:
    """Success without a body."""
    length = {} if status in {204, 304} else {"content-length": "0"}
    return Expected(status, length | {name.replace("_", "-"): value for name, value in headers.items()})


def of_head(expected: Expected) -> Expected:
    """The same as HEAD gets it."""
    return Expected(expected.status, expected.headers, has_body=False)


ANY_LENGTH: Final = re.compile(r"[1-9][0-9]*")


def _fits(found: str | None, expected: str | re.Pattern[str] | None) -> bool:
    if isinstance(expected, re.Pattern):
        return found is not None and expected.fullmatch(found) is not None
    return found == expected


def _digest_in(entry: Any) -> str:
    return str(entry["detail"]["digest"]) if entry["code"] == "MANIFEST_BLOB_UNKNOWN" else ""


def _read(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return _short(body)


def _parts(answer: Answer) -> list[tuple[str, bytes]]:
    """The parts of a multipart body (RFC 2046), each with its Content-Range."""
    head = f"Content-Type: {answer.headers.get('content-type')}\r\nMIME-Version: 1.0\r\n\r\n".encode()
    message: Any = message_from_bytes(head + answer.body, policy=policy.HTTP)
    if message.defects or not message.is_multipart():
        return []
    return [(str(part["Content-Range"]), part.get_payload(decode=True)) for part in message.iter_parts()]


def _short(content: bytes | str) -> str:
    shown = repr(content[:_SHOWN_CHARS])
    return shown if len(content) <= _SHOWN_CHARS else f"{shown}… ({len(content)} in all)"
