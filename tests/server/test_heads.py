"""Heads of requests: what is read without h11 is read as h11 would have read it, and all that is odd is left to it.

Whoever reads it, a head is taken only if nobody can see another one in the same bytes.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.server.heads import HEAD_BYTES_MAX, Head, next_head, plain_head
from tests.support.effort import EFFORT

if TYPE_CHECKING:
    from collections.abc import Sequence

DOCKER = (
    b"GET /v2/a/b/manifests/latest HTTP/1.1\r\nHost: localhost:5000\r\nUser-Agent: docker/27.0 go/go1.22\r\n"
    b"Accept: application/vnd.oci.image.index.v1+json\r\nAccept: application/json\r\n"
    b"Authorization: Bearer eyJhbGciOiJFUzI1NiJ9.e30.c2ln\r\nAccept-Encoding: gzip\r\n\r\n"
)
UPLOAD = (
    b"PUT /v2/a/b/blobs/uploads/1?digest=sha256%3Aabc HTTP/1.1\r\nhost:h\r\ncontent-length:5 \r\n"
    b"Content-Type:\tapplication/octet-stream\t\r\nX-Empty:\r\n\r\nhello"
)


def as_h11_reads(data: bytes) -> tuple[Head, bytes]:
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024)
    parser.receive_data(data)
    event = parser.next_event()
    assert isinstance(event, h11.Request)
    head = Head(
        event.method,
        event.target,
        event.http_version,
        list(event.headers),
        parser.they_are_waiting_for_100_continue,
    )
    return head, parser.trailing_data[0]


@pytest.mark.parametrize(
    "data",
    [
        DOCKER,
        UPLOAD,
        b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"DELETE /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"POST http://h/v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"PATCH /x HTTP/1.1\r\nHost: x\r\nContent-Length: 12345678901234567890\r\n\r\n",
    ],
)
def test_head_when_it_is_plain_is_read_here_and_as_h11_does(data: bytes) -> None:
    assert plain_head(data) == as_h11_reads(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n",
        b"GET / HTTP/1.1\r\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\n\rHost: x\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: x\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET / http/1.1\r\nHost: x\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET  HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\tHTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\x7f HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nhOST: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n : y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nnothing\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA(b): c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: \x0b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: \xe9\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 1\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: \r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"1" * 21 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 70_000 + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_head_when_anything_about_it_is_odd_is_left_to_h11(data: bytes) -> None:
    assert plain_head(data) is None


pieces = st.sampled_from([
    b"GET", b"PUT", b"get", b" ", b"  ", b"\t", b"/v2/", b"/a b", b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\r\n", b"\r\n",
    b"\n", b"\r", b"\r\n ", b"Host: x", b"Host:y", b"host:", b"Content-Length: 3", b"content-length:0", b"A: b",
    b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Connection: close", b":", b"x", b"\x00", b"\xff", b"",
    b"GET / HTTP/1.1\r\nHost: x", b"\r\n\r\n", b"Authorization: Bearer a.b.c", b"A:  b\t c ", b"Upgrade: h2c",
])  # fmt: skip


@settings(max_examples=400 * EFFORT, deadline=None)
@given(st.lists(pieces, max_size=14).map(b"".join))
@example(DOCKER)
def test_head_when_it_is_of_any_pieces_then_what_is_read_here_h11_reads_too(data: bytes) -> None:
    found = plain_head(data)
    assert found is None or found == as_h11_reads(data)


@settings(max_examples=400 * EFFORT, deadline=None)
@given(
    st.sampled_from([DOCKER, UPLOAD]),
    st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=3), st.integers(0, 3)), max_size=4),
)
def test_head_when_bytes_of_it_change_then_what_is_read_here_h11_reads_too(
    data: bytes, changes: list[tuple[int, bytes, int]]
) -> None:
    for place, new, gone in changes:
        data = data[:place] + new + data[place + gone :]
    found = plain_head(data)
    assert found is None or found == as_h11_reads(data)


# RFC 9112 without what it allows for the sake of ancient clients: in these bytes all see the same head.
WORD = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
STRICT = re.compile(rb"%b [!-~]+ HTTP/[0-9]\.[0-9]\r\n(?:%b:[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n" % (WORD, WORD))


def taken(pieces: Sequence[bytes]) -> tuple[Head, bytes] | int | None:
    """What is made of a connection on which these pieces come: a head and what is behind it, or a status."""
    coming = [piece for piece in pieces if piece]

    async def read() -> bytes:
        return coming.pop(0) if coming else b""

    try:
        found = asyncio.run(next_head(b"", read))
    except h11.RemoteProtocolError as error:
        return error.error_status_hint
    return found and (found[0], found[1] + b"".join(coming))


def names(usual: bytes) -> st.SearchStrategy[bytes]:
    return st.sampled_from([usual] * 12 + [usual + b" ", b" " + usual, b"\x00" + usual, usual.upper(), b""])


def headers(name: bytes, *values: bytes) -> st.SearchStrategy[bytes]:
    colons = st.sampled_from([b": "] * 12 + [b":", b" :", b":\t", b"", b":\x0b"])
    return st.tuples(names(name), colons, st.sampled_from(values), ends).map(b"".join)


ends = st.sampled_from([b"\r\n"] * 25 + [b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n ", b"\r\n\t", b""])
starts = st.tuples(
    st.sampled_from([b"GET", b"GET", b"PUT", b"get", b"CONNECT", b"PRI", b""]),
    st.sampled_from([b" "] * 12 + [b"  ", b"\t", b""]),
    st.sampled_from([b"/", b"/v2/", b"http://h/v2/", b"h:1", b"*", b"/#f", b"/\xff", b"/ x", b"/\x7f", b""]),
    st.sampled_from([b" HTTP/1.1"] * 12 + [b" HTTP/1.0", b" HTTP/1.2", b" HTTP/2.0", b" http/1.1", b""]),
    ends,
).map(b"".join)
lines = st.one_of(
    headers(b"Host", b"x", b"x", b"", b"x, y", b"a b"),
    headers(b"Content-Length", b"3", b"0", b"3, 3", b"+3", b"0x3", b"03", b"", b"3 "),
    headers(b"Transfer-Encoding", b"chunked", b"Chunked", b"gzip, chunked", b"identity", b"chunked;a=b", b""),
    headers(b"Connection", b"close", b"Close", b"keep-alive, close", b"upgrade"),
    headers(b"Expect", b"100-continue", b"x"),
    headers(b"Upgrade", b"h2c", b"websocket"),
    headers(b"A", b"b", b"", b"\xe9", b"\x00", b"b\rc", b"b\nc"),
)
any_heads = st.tuples(
    starts,
    st.lists(st.just(b"Host: x\r\n"), max_size=1),
    st.lists(lines, max_size=4),
    st.sampled_from([b"\r\n"] * 6 + [b"\n", b"\r\n\r\n", b""]),
    st.sampled_from([b"", b"abc", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n\r\n"]),
).map(lambda parts: parts[0] + b"".join(parts[1]) + b"".join(parts[2]) + parts[3] + parts[4])


@settings(max_examples=300 * EFFORT, deadline=None)
@given(any_heads, st.integers(0, 200))
@example(b"GET / HTTP/1.1\r\nHost: x\r\nA: b\nContent-Length: 3\r\n\r\nabc", 40)
@example(b"GET / HTTP/1.1\nHost: x\n\n", 3)
@example(b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", 40)
def test_head_when_it_is_taken_then_all_see_the_same_in_it_however_it_comes(data: bytes, cut: int) -> None:
    found = taken([data])
    if found is None or isinstance(found, int):
        # Refused, or not whole: also when it comes in two pieces, though one may have been read by then.
        assert taken([data[:cut], data[cut:]]) == found
        return
    head, rest = found
    whole = data[: len(data) - len(rest)]
    assert STRICT.fullmatch(whole), whole
    assert data.find(b"\r\n\r\n") + 4 == len(whole)
    lines = [line.partition(b":") for line in whole.split(b"\r\n")[1:-2]]
    written = [(name.lower(), value.strip(b" \t")) for name, _, value in lines]
    framing = {b"content-length", b"transfer-encoding"}
    assert [h for h in head.headers if h[0] not in framing] == [h for h in written if h[0] not in framing]
    assert sum(name == b"host" for name, _ in written) <= 1
    assert taken([data[:cut], data[cut:]]) == found


@pytest.mark.parametrize("data", [DOCKER, UPLOAD, UPLOAD.replace(b"PUT", b"OPTIONS") + b"GET / HTTP/1.1"])
def test_head_when_it_is_cut_anywhere_then_is_read_as_if_it_came_whole(data: bytes) -> None:
    whole = taken([data])
    assert isinstance(whole, tuple)
    for cut in range(1, len(data)):
        assert taken([data[:cut], data[cut:]]) == whole
    assert taken([data[at : at + 1] for at in range(len(data))]) == whole


@pytest.mark.parametrize(
    "line", [b"A: " + b"b" * HEAD_BYTES_MAX, b"A: b\r\n" * (HEAD_BYTES_MAX // 6) + b"C: d"]
)
def test_head_when_it_is_too_large_then_is_refused_even_if_it_comes_at_once(line: bytes) -> None:
    data = b"GET / HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n\r\n"
    assert taken([data]) == 431
    assert taken([data[at : at + 4096] for at in range(0, len(data), 4096)]) == 431
