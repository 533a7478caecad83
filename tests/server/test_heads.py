"""Heads of requests: what is read without h11 is read as h11 would have read it, and all that is odd is left to it."""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.server.heads import Head, plain_head
from tests.support.effort import EFFORT

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
