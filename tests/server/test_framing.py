"""Bodies of HTTP/1.1 requests: what is taken for one, and what is refused. h11 is the second opinion."""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.server.framing import ChunkedBody, FramingError, NoBody, SizedBody, body_of

CHUNKED = (b"transfer-encoding", b"chunked")


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ([], NoBody),
        ([(b"content-length", b"0")], NoBody),
        ([(b"content-length", b"7")], SizedBody),
        ([CHUNKED], ChunkedBody),
        ([(b"transfer-encoding", b"Chunked")], ChunkedBody),
    ],
)
def test_body_when_it_is_announced_then_it_is_that(headers: list[tuple[bytes, bytes]], kind: type) -> None:
    assert isinstance(body_of(headers), kind)


@pytest.mark.parametrize(
    "headers",
    [
        [CHUNKED, (b"content-length", b"7")],
        [CHUNKED, CHUNKED],
        [(b"transfer-encoding", b"gzip, chunked")],
        [(b"transfer-encoding", b"identity")],
        [(b"content-length", b"7"), (b"content-length", b"7")],
        *([(b"content-length", value)] for value in (b"", b"-1", b"+7", b"7,7", b"0x7", b"7 ", b"9" * 19)),
    ],
)
def test_body_when_it_could_be_misread_then_it_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(FramingError):
        body_of(headers)


def test_sized_body_when_more_comes_then_the_rest_is_the_next_requests() -> None:
    body = SizedBody(5)
    assert body.feed(b"abc") == b"abc"
    assert not body.is_finished
    assert body.feed(b"deGET") == b"de"
    assert (body.is_finished, body.rest) == (True, b"GET")


def fed(content: bytes, cuts: list[int]) -> tuple[bytes, bytes, bool]:
    """(content, what is behind the body, whether it ended) of a body that comes in pieces."""
    body, taken, at = ChunkedBody(), b"", 0
    for cut in [*sorted(cuts), len(content)]:
        taken += body.feed(content[at:cut])
        at = max(at, cut)
        if body.is_finished:
            return taken, body.rest + content[at:], True
    return taken, b"", False


pieces = st.lists(st.integers(0, 200), max_size=8)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), pieces, st.binary(max_size=20))
def test_chunks_when_they_come_in_any_pieces_then_the_content_is_the_same(
    chunks: list[bytes], cuts: list[int], behind: bytes
) -> None:
    wire = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    wire += b"0\r\nTrailer: dropped\r\n\r\n" + behind
    assert fed(wire, cuts) == (b"".join(chunks), behind, True)


@given(st.text("0123456789abcdefxX \t;:\r\n-+", max_size=30).map(str.encode), pieces)
@example(b"5\r\nhelloXX0\r\n\r\n", [])
@example(b"5\nhello\n0\n\n", [])
@example(b"0\r\n\r", [])
def test_chunks_when_they_are_anything_then_whatever_is_taken_h11_takes_as_well(
    wire: bytes, cuts: list[int]
) -> None:
    try:
        taken, behind, ended = fed(wire, cuts)
    except FramingError:
        return
    assert (taken, behind, ended) == second_opinion(wire)


def second_opinion(wire: bytes) -> tuple[bytes, bytes, bool]:
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(b"PUT / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + wire)
    parser.next_event()
    taken = b""
    while isinstance(event := parser.next_event(), h11.Data):
        taken += event.data
    ended = isinstance(event, h11.EndOfMessage)
    return taken, parser.trailing_data[0] if ended else b"", ended


@pytest.mark.parametrize(
    "wire",
    [
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b" 1\r\n",
        b"\r\n",
        b"11111111111111111\r\n",
        b"1\r\nab\r\n",
        b"1;\x00\r\n",
        b"1" * 5000,
        b"0\r\n" + b"a: b\r\n" * 4000,
        b"0\r\na: b\n\r\n",
        b"0\r\na: \rb\r\n\r\n",
        b"0\r\na\r\n\r\n",
        b"0\r\na : b\r\n\r\n",
        b"0\r\nGET / HTTP/1.1\r\n\r\n",
    ],
)
def test_chunks_when_they_are_malformed_then_they_are_refused(wire: bytes) -> None:
    with pytest.raises(FramingError):
        fed(wire, [])
