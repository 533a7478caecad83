"""HTTP/2 frames as no client library would send them, and what came back in the words of RFC 9113."""

from __future__ import annotations

import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
)

from tests.badinput.wire import DEADLINE_SECONDS

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Sequence

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS: Final = SettingsFrame(0).serialize()
Pairs = list[tuple[bytes | str, bytes | str]]
_END: Final = PingFrame(0, b"the end.").serialize()


def request(
    method: bytes | str = "GET",
    path: bytes | str = "/v2/",
    *more: tuple[bytes | str, bytes | str],
    scheme: str = "https",
) -> Pairs:
    """The fields of a request."""
    return [(":method", method), (":path", path), (":scheme", scheme), (":authority", "registry.test"), *more]


def block(fields: Sequence[tuple[bytes | str, bytes | str]]) -> bytes:
    """Fields without any reference to earlier ones, so that each case stands for itself."""
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return bytes(encoder.encode(list(fields), huffman=False))


def headers(
    stream: int, fields: Sequence[tuple[bytes | str, bytes | str]], *, end: bool = True, whole: bool = True
) -> bytes:
    """HEADERS; `end` is of the stream, `whole` that no CONTINUATION follows."""
    frame = HeadersFrame(stream, block(fields))
    frame.flags |= {"END_STREAM"} if end else set()
    frame.flags |= {"END_HEADERS"} if whole else set()
    return frame.serialize()


def data(stream: int, content: bytes, *, end: bool = True) -> bytes:
    frame = DataFrame(stream, content)
    frame.flags |= {"END_STREAM"} if end else set()
    return frame.serialize()


def continuation(stream: int, content: bytes, *, end: bool = False) -> bytes:
    frame = ContinuationFrame(stream, content)
    frame.flags |= {"END_HEADERS"} if end else set()
    return frame.serialize()


def priority(stream: int, parent: int = 0, *, exclusive: bool = False) -> bytes:
    frame = PriorityFrame(stream)
    frame.depends_on, frame.stream_weight, frame.exclusive = parent, 15, exclusive
    return frame.serialize()


def reset(stream: int, code: int = 8) -> bytes:
    return RstStreamFrame(stream, code).serialize()


def raw(kind: int, flags: int, stream: int, content: bytes = b"", length: int | None = None) -> bytes:
    """A frame of these bytes, whatever they mean; `length` is what it says that it has."""
    size = len(content) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content


def settings(*values: tuple[int, int]) -> bytes:
    return raw(4, 0, 0, b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in values))


@dataclass
class Outcome:
    """What the server did, by stream: statuses, resets with their codes, and bodies; and how the connection ended."""

    statuses: dict[int, int] = field(default_factory=dict[int, int])
    resets: dict[int, int] = field(default_factory=dict[int, int])
    bodies: dict[int, bytes] = field(default_factory=dict[int, bytes])
    ended: set[int] = field(default_factory=set[int])
    goaway: int | None = None
    closed: bool = False
    acknowledged_end: bool = False
    table_bytes_max: int = 4096

    @property
    def over(self) -> set[int]:
        """Streams on which nothing more will come."""
        return self.ended | self.resets.keys()


def converse(
    connection: socket.socket,
    frames: bytes,
    *,
    wanted: Iterable[int] = (),
    first: bytes = SETTINGS,
    seconds: float = DEADLINE_SECONDS,
) -> Outcome:
    """Send the preface, the frames and a PING; then read until the server has closed, or else has answered the PING and
    is done with the `wanted` streams. A server that does neither keeps its client waiting, which fails.
    """
    outcome, received, end = Outcome(), b"", time.monotonic() + seconds
    decoder = hpack.Decoder()
    decoder.max_allowed_table_size = 2**32
    with suppress(OSError):  # it may close while we are still sending
        connection.sendall(PREFACE + first + frames + _END)
    while not outcome.closed and not (outcome.acknowledged_end and outcome.over >= set(wanted)):
        connection.settimeout(max(0.01, end - time.monotonic()))
        try:
            content = connection.recv(65_536)
        except (ConnectionError, ssl.SSLError):
            content = b""
        except TimeoutError:
            raise AssertionError(f"it neither answers nor closes; so far {outcome}") from None
        outcome.closed = not content
        received = _take_frames(received + content, outcome, decoder)
    return outcome


def _take_frames(received: bytes, outcome: Outcome, decoder: hpack.Decoder) -> bytes:
    while len(received) >= 9:
        frame, length = Frame.parse_frame_header(memoryview(received[:9]))
        if len(received) < 9 + length:
            break
        frame.parse_body(memoryview(received[9 : 9 + length]))
        received = received[9 + length :]
        _note(frame, outcome, decoder)
    return received


def _note(frame: Frame, outcome: Outcome, decoder: hpack.Decoder) -> None:
    stream = frame.stream_id
    if isinstance(frame, HeadersFrame):
        fields = {str(name): str(value) for name, value in decoder.decode(frame.data)}
        outcome.statuses[stream] = int(fields[":status"])
        outcome.table_bytes_max = max(outcome.table_bytes_max, decoder.header_table_size)
    elif isinstance(frame, DataFrame):
        outcome.bodies[stream] = outcome.bodies.get(stream, b"") + bytes(frame.data)
    elif isinstance(frame, RstStreamFrame):
        outcome.resets[stream] = frame.error_code
    elif isinstance(frame, GoAwayFrame):
        outcome.goaway = frame.error_code
    elif isinstance(frame, PingFrame) and "ACK" in frame.flags and frame.opaque_data == b"the end.":
        outcome.acknowledged_end = True
    if "END_STREAM" in frame.flags:
        outcome.ended.add(stream)
