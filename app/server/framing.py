"""Where the body of an HTTP/1.1 request ends (RFC 9112 §6 and §7).

Heads that are unusual are h11's to parse; bodies are not, since it hands out every chunk by itself: docker sends chunks
of 32 KiB, and to take them apart in Python one event at a time took more time than to hash them. Stricter than the RFC
asks: a length and chunks together are refused, as are sizes of more than 16 digits, lines that do not end in CRLF and
trailers that are no headers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

# A chunk's size, then extensions, which nobody uses and we drop.
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_TRAILER: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
# Of a line with a chunk's size, and of all trailers together.
LINE_BYTES_MAX: Final = 4096
TRAILERS_BYTES_MAX: Final = 16 * 1024


class FramingError(Exception):
    """The body is not framed as the head says, or the head says it in a way that could be misread."""


class NoBody:
    """There is none."""

    is_finished = True
    rest = b""

    def feed(self, data: bytes) -> bytes:
        self.rest += data
        return b""


class SizedBody:
    """Content-Length bytes."""

    def __init__(self, size: int) -> None:
        self._left = size
        self.rest = b""

    @property
    def is_finished(self) -> bool:
        return self._left == 0

    def feed(self, data: bytes) -> bytes:
        if len(data) <= self._left:
            self._left -= len(data)
            return data
        data, self.rest = data[: self._left], self.rest + data[self._left :]
        self._left = 0
        return data


class ChunkedBody:
    """Chunks, each behind its size, and trailers, which are dropped."""

    def __init__(self) -> None:
        self.is_finished = False
        self.rest = b""
        # What cannot be understood before more comes: a piece of a size line, or of the trailers.
        self._pending = b""
        self._left = 0
        # After a chunk's bytes come the two that end it.
        self._ends_chunk = False
        self._in_trailers = False

    def feed(self, data: bytes) -> bytes:
        """The content in `data`. Raises FramingError."""
        data, self._pending = self._pending + data if self._pending else data, b""
        parts: list[bytes | memoryview] = []
        view, at = memoryview(data), 0
        while at < len(data) and not self.is_finished:
            if self._left:
                part = view[at : at + self._left]
                parts.append(part)
                at += len(part)
                self._left -= len(part)
                self._ends_chunk = self._left == 0
            elif (end := self._end_of_line(data, at)) < 0:
                self._pending = data[at:]
                break
            else:
                self._take_line(data[at:end])
                at = end + 2
        if self.is_finished:
            self.rest += data[at:]
        return b"".join(parts)

    def _end_of_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\r\n", at, at + LINE_BYTES_MAX + 2)
        if end < 0 and len(data) - at > LINE_BYTES_MAX:
            raise FramingError("a line between chunks has no end")
        return end

    def _take_line(self, line: bytes) -> None:
        if self._ends_chunk:
            if line:
                raise FramingError("a chunk is longer than its size")
            self._ends_chunk = False
        elif self._in_trailers:
            self._left_for_trailers -= len(line) + 2
            if self._left_for_trailers < 0:
                raise FramingError("the trailers are too large")
            if line and _TRAILER.fullmatch(line) is None:
                raise FramingError("a trailer is no header")
            self.is_finished = not line
        elif (size := _SIZE_LINE.fullmatch(line)) is None:
            raise FramingError("a chunk has no size")
        else:
            self._left = int(size[1], 16)
            self._in_trailers = self._left == 0
            self._left_for_trailers = TRAILERS_BYTES_MAX


Body = NoBody | SizedBody | ChunkedBody


def body_of(headers: Iterable[tuple[bytes, bytes]]) -> Body:
    """How the body is framed, by a head that h11 has accepted, or would have. Raises FramingError."""
    lengths = [value for name, value in headers if name == b"content-length"]
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings and (lengths or [coding.lower() for coding in codings] != [b"chunked"]):
        raise FramingError("a body is either chunked or has a Content-Length")
    if codings:
        return ChunkedBody()
    if not lengths:
        return NoBody()
    if len(lengths) > 1 or _LENGTH.fullmatch(lengths[0]) is None:
        raise FramingError("Content-Length is one number of bytes")
    size = int(lengths[0])
    return SizedBody(size) if size else NoBody()
