"""Raw frames through the real server, HTTP/2, over TLS and in clear text.

Rapid reset (CVE-2023-44487), floods of CONTINUATION (CVE-2024-27316), PING, SETTINGS, RST_STREAM and empty frames
(CVE-2019-9512 to -9518), windows that never open, and requests that are none. The server answers, resets the stream or
says GOAWAY, and serves everybody else; it neither hangs nor fails.
"""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.events
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as trying
from hypothesis import strategies as st

from tests.badinput.frames import (
    SETTINGS,
    Outcome,
    block,
    continuation,
    converse,
    data,
    headers,
    priority,
    raw,
    request,
    reset,
    settings,
)
from tests.badinput.wire import GET_BASE, receive
from tests.support.effort import EFFORT
from tests.support.processes import forget_memory_peak, memory_peak_bytes
from tests.support.registry import digest_of

if TYPE_CHECKING:
    import socket

    from tests.badinput.frames import Pairs
    from tests.badinput.wire import Attacked

MIB = 1024 * 1024
# Of anybody, for a small answer, while somebody else floods the server: a small one takes some milliseconds.
LONGEST_WAIT_SECONDS = 8.0
PUT = request("PUT", "/v2/a/manifests/latest")
DECLARES = [*PUT, ("content-length", "10")]
CONNECT: Pairs = [(":method", "CONNECT"), (":authority", "registry.test:443")]
WEBSOCKET: Pairs = [*request("CONNECT"), (":protocol", "websocket"), ("sec-websocket-version", "13")]


def without(name: str) -> Pairs:
    return [pair for pair in request() if pair[0] != name]


def with_value(name: str, value: bytes | str) -> Pairs:
    return [(key, value if key == name else old) for key, old in request()]


# The frames, sent behind the preface. The connection may be closed over them, with a reason (GOAWAY), or the stream
# reset; what they ask for must not be done.
BROKEN: dict[str, bytes] = {
    "no method": headers(1, without(":method")),
    "no path": headers(1, without(":path")),
    "no scheme": headers(1, without(":scheme")),
    "no authority": headers(1, without(":authority")),
    "an empty path": headers(1, with_value(":path", "")),
    "two paths": headers(1, [(":path", "/v2/_catalog"), *request()]),
    "two methods": headers(1, [(":method", "DELETE"), *request()]),
    "a pseudo-header behind a header": headers(1, [("x", "y"), *request()]),
    "a pseudo-header that nobody has": headers(1, [(":x", "y"), *request()]),
    "a status in a request": headers(1, [(":status", "200"), *request()]),
    "a protocol without CONNECT": headers(1, [*request()[:1], (":protocol", "websocket"), *request()[1:]]),
    "CONNECT with a path": headers(1, request("CONNECT")),
    "an upper-case name": headers(1, request("GET", "/v2/", ("Accept", "*/*"))),
    "an empty name": headers(1, request("GET", "/v2/", ("", "x"))),
    "a space in a name": headers(1, request("GET", "/v2/", ("a b", "x"))),
    "a colon in a name": headers(1, request("GET", "/v2/", ("a:b", "x"))),
    "a NUL in a name": headers(1, request("GET", "/v2/", (b"a\x00", "x"))),
    "a NUL in a value": headers(1, request("GET", "/v2/", ("a", b"x\x00"))),
    "a line break in a value": headers(1, request("GET", "/v2/", ("a", b"x\r\nb: y"))),
    "a line break in the path": headers(1, request("GET", b"/v2/ HTTP/1.1\r\nHost: x\r\n\r\n")),
    "a NUL in the path": headers(1, request("GET", b"/v2/\x00")),
    "a NUL in the method": headers(1, request(b"G\x00T")),
    "a line break in the method": headers(1, request(b"GET / HTTP/1.1\r\nx: ")),
    "Connection": headers(1, request("GET", "/v2/", ("connection", "close"))),
    "Keep-Alive": headers(1, request("GET", "/v2/", ("keep-alive", "timeout=5"))),
    "Transfer-Encoding": headers(1, request("GET", "/v2/", ("transfer-encoding", "chunked"))),
    "Upgrade": headers(1, request("GET", "/v2/", ("upgrade", "websocket"))),
    "TE that is not trailers": headers(1, request("GET", "/v2/", ("te", "chunked"))),
    "a Host of its own": headers(1, request("GET", "/v2/", ("host", "other.test"))),
    "two Hosts": headers(1, [*without(":authority"), ("host", "a"), ("host", "b")]),
    "less than its content-length": headers(1, DECLARES, end=False) + data(1, b"{}"),
    "more than its content-length": headers(1, DECLARES, end=False) + data(1, b"{}" + b" " * 20),
    "nothing of its content-length": headers(1, DECLARES, end=False) + data(1, b""),
    "content-length -1": headers(1, [*PUT, ("content-length", "-1")], end=False) + data(1, b"{}"),
    "content-length x": headers(1, [*PUT, ("content-length", "x")], end=False) + data(1, b"{}"),
    "content-length of 5,000 digits": headers(1, [*PUT, ("content-length", "9" * 5000)], end=False)
    + data(1, b"{}"),
    "two content-lengths": headers(1, [*PUT, ("content-length", "2"), ("content-length", "3")], end=False)
    + data(1, b"{}"),
    "trailers that do not end it": headers(1, PUT, end=False) + headers(1, [("x", "y")], end=False),
    "a pseudo-header in trailers": headers(1, PUT, end=False) + headers(1, [(":path", "/v2/_catalog")]),
    "headers behind the end": headers(1, DECLARES) + headers(1, [("x", "y")]),
    "data behind the end": headers(1, DECLARES) + data(1, b"{}"),
    "data before any header": data(1, b"{}"),
    "data on the connection": raw(0, 1, 0, b"{}"),
    "headers on the connection": raw(1, 5, 0, block(request())),
    "an even stream": headers(2, request()),
    "a stream below the last one": headers(5, DECLARES, end=False) + headers(3, request()),
    "a reset of nothing": reset(1),
    "a reset of the connection": raw(3, 0, 0, bytes(4)),
    "a reset of three bytes": headers(1, DECLARES, end=False) + raw(3, 0, 1, b"abc"),
    "a push": raw(5, 4, 1, bytes(4)),
    "a continuation of nothing": continuation(1, b"", end=True),
    "a continuation of another stream": headers(1, request(), whole=False) + continuation(3, b"", end=True),
    "something within headers": headers(1, request(), whole=False) + raw(6, 0, 0, bytes(8)),
    "a flood of continuations": headers(1, request(), whole=False) + continuation(1, b"") * 10_000,
    "a flood of continuations with content": headers(1, request(), whole=False)
    + continuation(1, block([("x", "y" * 16_000)])) * 200,
    "more headers than allowed": headers(1, request(), whole=False)
    + b"".join(continuation(1, block([("x", "y" * 16_000)])) for _ in range(30))
    + continuation(1, b"", end=True),
    "a compression bomb": raw(
        1, 5, 1, block(request()) + b"\x3f\xe1\x1f\x40\x01x\x7f\x81\x1e" + b"y" * 4000 + b"\xbe" * 12_000
    ),
    "compression that is none": raw(1, 5, 1, b"\xff" * 20),
    "a reference to no field": raw(1, 5, 1, b"\xff\xff\xff\xff\x0f"),
    "a field table of four gigabytes": raw(1, 5, 1, b"\x3f\xff\xff\xff\xff\x0f" + block(request())),
    "padding longer than the frame": raw(0, 9, 1, b"\xff"),
    "a setting of 2^31 for windows": settings((4, 2**31)),
    "a setting of 1 for frames": settings((5, 1)),
    "a setting of 2 for pushes": settings((2, 2)),
    "settings of five bytes": raw(4, 0, 0, bytes(5)),
    "settings of a stream": raw(4, 0, 1, bytes(6)),
    "an acknowledgement with content": raw(4, 1, 0, bytes(6)),
    "a PING of three bytes": raw(6, 0, 0, b"abc"),
    "a PING of a stream": raw(6, 0, 1, bytes(8)),
    "a window update of nothing": raw(8, 0, 0, bytes(4)),
    "a window update of three bytes": raw(8, 0, 0, bytes(3)),
    "a window beyond 2^31": raw(8, 0, 0, b"\x7f\xff\xff\xff") * 2,
    "a stream's window beyond 2^31": headers(1, DECLARES, end=False) + raw(8, 0, 1, b"\x7f\xff\xff\xff") * 2,
    "a window update of no stream": raw(8, 0, 7, b"\x00\x00\x00\x01"),
    "a priority of itself": priority(1, 1),
    "a priority of four bytes": raw(2, 0, 1, bytes(4)),
    "more streams than allowed": b"".join(headers(2 * n + 1, DECLARES, end=False) for n in range(300)),
    "a frame longer than allowed": raw(0, 0, 1, bytes(20_000)),
    "a goodbye": raw(7, 0, 0, bytes(8)),
}
# What is a request all right, and which statuses it may get.
ANSWERED: dict[str, tuple[bytes, set[int]]] = {
    "a path without its slash": (headers(1, request("GET", "v2/")), {404, 400}),
    "an asterisk": (headers(1, request("OPTIONS", "*")), {404, 405}),
    "a whole URL": (headers(1, request("GET", "https://registry.test/v2/")), {404, 200}),
    "a fragment": (headers(1, request("GET", "/v2/#x")), {404}),
    "two slashes": (headers(1, request("GET", "//v2/")), {404}),
    "dots": (headers(1, request("GET", "/v2/../etc/passwd")), {404}),
    "an encoded NUL": (headers(1, request("GET", "/v2/a%00/tags/list")), {400}),
    "a long path": (headers(1, request("GET", "/v2/" + "a" * 15_000 + "/tags/list")), {400, 414}),
    "a space in the path": (headers(1, request("GET", "/v2/ x")), {404, 400}),
    "an unknown method": (headers(1, request("BREW")), {405}),
    "an empty method": (headers(1, request("")), {405, 400}),
    "a method with a space": (headers(1, request("GET /v2/")), {405, 400}),
    "a scheme that is none": (headers(1, request(scheme="\x7fgopher")), {200, 400}),
    "an authority that is none": (headers(1, with_value(":authority", "a b/../@:c")), {200, 400}),
    "obsolete text": (headers(1, request("GET", "/v2/", ("x", b"\xff\xfe"))), {200}),
    "many headers": (headers(1, request("GET", "/v2/", *[("x", "y")] * 1000)), {200, 431}),
    "a body where none belongs": (headers(1, request(), end=False) + data(1, b"body"), {200}),
    "a body in empty frames": (
        headers(1, PUT, end=False) + data(1, b"", end=False) * 5000 + data(1, b"{}"),
        {400},
    ),
    "trailers": (headers(1, PUT, end=False) + data(1, b"{}", end=False) + headers(1, [("x", "y")]), {400}),
    "padding": (raw(1, 13, 1, b"\x05" + block(PUT)[:0] + block(request()) + bytes(5)), {200}),
    "frames that nobody knows": (raw(0xFE, 0xFF, 1, b"x") * 5000 + headers(1, request()), {200}),
    "settings that nobody knows": (
        settings(*((key, 7) for key in range(4000, 4100))) + headers(1, request()),
        {200},
    ),
    "no room for headers": (settings((6, 0)) + headers(1, request()), {200}),
    "no table for headers": (settings((1, 0)) + headers(1, request()), {200}),
    "priorities of streams that never come": (
        b"".join(priority(2 * n + 3, 2 * n + 1) for n in range(90)) + headers(1, request()),
        {200},
    ),
}
# Allowed or not, they ask for what this server has not got: the streams in front of them are answered, or refused.
ODD: dict[str, tuple[bytes, int]] = {
    "a path that is no ASCII": (headers(1, request("GET", b"/v2/\xff")), 1),
    "a path in UTF-8": (headers(1, request("GET", "/v2/é".encode())), 1),
    "a query that is no ASCII": (headers(1, request("GET", b"/v2/_catalog?n=\xff")), 1),
    "a method that is no ASCII": (headers(1, request(b"G\xffT")), 1),
    "a method in lower case": (headers(1, request("get")), 1),
    "CONNECT": (headers(1, CONNECT, end=False), 1),
    "CONNECT that ends at once": (headers(1, CONNECT), 1),
    "a WebSocket": (headers(1, WEBSOCKET, end=False), 1),
    "a WebSocket that ends at once": (headers(1, WEBSOCKET), 1),
    "a WebSocket of no version": (headers(1, WEBSOCKET[:-1], end=False), 1),
    "a WebSocket that talks early": (headers(1, WEBSOCKET, end=False) + data(1, b"\x81\x00", end=False), 1),
    "another protocol": (headers(1, [*request("CONNECT"), (":protocol", "x")], end=False), 1),
    "a thousand priorities": (
        b"".join(priority(2 * n + 1) for n in range(1, 1200)) + headers(2501, request()),
        2501,
    ),
    "a chain of priorities": (
        b"".join(priority(2 * n + 3, 2 * n + 1) for n in range(500)) + headers(2501, request()),
        2501,
    ),
    "exclusive priorities": (
        b"".join(priority(2 * n + 1, 0, exclusive=True) for n in range(1, 990)) + headers(2501, request()),
        2501,
    ),
}


def assert_below_500(case: str, outcome: Outcome) -> None:
    assert all(status < 500 for status in outcome.statuses.values()), (case, outcome)


@pytest.fixture(params=["secured", "plain"])
def registry(request: pytest.FixtureRequest) -> Attacked:
    """Over TLS with ALPN, and in clear text by prior knowledge."""
    return request.getfixturevalue(request.param)


@pytest.mark.needs("openssl")
def test_frames_when_broken_then_the_stream_is_reset_or_the_connection_closed_with_a_reason(
    registry: Attacked,
) -> None:
    with registry.survives():
        for case, frames in BROKEN.items():
            with registry.connect("h2") as connection:
                outcome = converse(connection, frames)
            assert_below_500(case, outcome)
            # What was there before the broken frame may have been answered, but for a request that could be served.
            assert 200 not in outcome.statuses.values(), (case, outcome)
            assert outcome.goaway is not None or not outcome.closed, f"{case}: closed without a reason"


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("case", ODD)
def test_request_when_nobody_serves_its_kind_then_is_refused_and_the_connection_goes_on(
    case: str, secured: Attacked
) -> None:
    frames, stream = ODD[case]
    with secured.survives():
        with secured.connect("h2") as connection:
            outcome = converse(connection, frames, wanted=(stream,))
        assert_below_500(case, outcome)
        assert outcome.statuses.get(1) != 200, outcome
        assert outcome.goaway is not None or not outcome.closed, "closed without a reason"


@pytest.mark.needs("openssl")
def test_frame_when_it_announces_more_than_allowed_then_is_not_waited_for(secured: Attacked) -> None:
    """Sixteen mebibytes would otherwise be taken in, on every connection, before it is looked at."""
    with secured.survives():
        for frames in (raw(0, 0, 1, b"x", length=2**24 - 1), raw(1, 4, 1, b"x", length=2**20), GET_BASE * 10):
            with secured.connect("h2") as connection:
                outcome = converse(connection, frames, seconds=5)
            assert outcome.closed


@pytest.mark.needs("openssl")
def test_request_when_odd_then_is_answered_and_so_are_others_of_its_connection(registry: Attacked) -> None:
    with registry.survives():
        for case, (frames, statuses) in ANSWERED.items():
            with registry.connect("h2") as connection:
                outcome = converse(connection, frames + headers(2001, request()), wanted=(1, 2001))
            assert outcome.statuses.get(1) in statuses, (case, outcome)
            assert outcome.statuses.get(2001) == 200, (case, outcome)


FLOOD = 30_000 * EFFORT
# Each floods one connection with small frames, for which somebody has to work.
FLOODS: dict[str, bytes] = {
    "PING": raw(6, 0, 0, bytes(8)) * FLOOD,
    "SETTINGS": SETTINGS * FLOOD,
    "empty DATA": headers(1, PUT, end=False) + data(1, b"", end=False) * FLOOD,
    "PRIORITY": priority(1, 3) * FLOOD,
    "window updates": raw(8, 0, 0, b"\x00\x00\x00\x01") * FLOOD,
    "unknown frames": raw(0xFE, 0, 0) * FLOOD,
    # CVE-2023-44487: work is begun for each of them, and none of them counts as open.
    "streams that are reset": b"".join(
        headers(2 * n + 1, request("GET", "/v2/a/tags/list")) + reset(2 * n + 1) for n in range(FLOOD // 10)
    ),
    "streams that are reset later": b"".join(
        headers(2 * n + 1, PUT, end=False) + (reset(2 * n - 99) if n >= 50 else b"")
        for n in range(FLOOD // 10)
    ),
}


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("kind", FLOODS)
def test_flood_when_it_comes_then_others_are_served_meanwhile(kind: str, secured: Attacked) -> None:
    waited: list[float] = []
    with secured.survives(), secured.connect("h2") as connection, ThreadPoolExecutor(1) as attacker:
        flood = attacker.submit(converse, connection, FLOODS[kind])
        while not flood.done() or len(waited) < 3:
            began = time.monotonic()
            assert secured.send(GET_BASE, answers=1).statuses == [200]
            waited.append(time.monotonic() - began)
        outcome = flood.result()
    assert_below_500(kind, outcome)
    assert outcome.goaway is not None or outcome.acknowledged_end, "closed without a reason"
    assert max(waited) < LONGEST_WAIT_SECONDS, f"somebody else waited for {max(waited):.1f} seconds"


@pytest.mark.needs("openssl")
def test_window_when_it_never_opens_then_answers_wait_outside_of_memory(secured: Attacked) -> None:
    """A hundred downloads of which nobody takes a byte: each may have a few blocks ready, and no more."""
    content = bytes(16 * MIB)
    digest = digest_of(content)
    client, url = secured.served.client, secured.served.url
    assert client.post(f"{url}/v2/window/blobs/uploads/?digest={digest}", content=content).status_code == 201
    (worker,) = secured.served.workers()
    get = request("GET", f"/v2/window/blobs/{digest}")
    streams = 30
    with secured.survives(), secured.connect("h2") as connection:
        assert client.get(f"{url}/v2/window/blobs/{digest}").status_code == 200
        forget_memory_peak(worker)
        before = memory_peak_bytes(worker)
        frames = b"".join(headers(2 * n + 1, get) for n in range(streams))
        outcome = converse(connection, frames, first=settings((4, 0)))
        assert outcome.acknowledged_end
        # Nothing tells that a server does not read ahead: a moment is what it would take.
        time.sleep(1)
        # A few blocks of a mebibyte, and what the allocator keeps; all of it would be 16 MiB each.
        assert memory_peak_bytes(worker) - before < streams * 6 * MIB


@pytest.mark.needs("openssl")
def test_window_when_it_opens_at_last_then_the_answer_is_whole(secured: Attacked) -> None:
    content = random.Random(3).randbytes(3 * MIB)
    digest = digest_of(content)
    client, url = secured.served.client, secured.served.url
    assert client.post(f"{url}/v2/window/blobs/uploads/?digest={digest}", content=content).status_code == 201
    with secured.survives(), secured.connect("h2") as connection:
        get = headers(1, request("GET", f"/v2/window/blobs/{digest}"))
        assert converse(connection, get, first=settings((4, 0))).bodies == {}
        assert download(connection, b"\x00\x10\x00\x00", len(content)) == content


def download(connection: socket.socket, step: bytes, size: int) -> bytes:
    """The rest of stream 1, for which room is made bit by bit."""
    received, body = b"", b""
    updates = raw(8, 0, 1, step) + raw(8, 0, 0, step)
    connection.sendall(updates)
    while len(body) < size:
        content: bytes = connection.recv(65_536)
        assert content, "it has closed"
        received += content
        while len(received) >= 9 and len(received) >= 9 + (length := int.from_bytes(received[:3], "big")):
            if received[3] == 0:
                body += received[9 : 9 + length]
            received = received[9 + length :]
        if not received and len(body) < size:
            connection.sendall(updates)
    return body


@pytest.mark.needs("openssl")
def test_table_of_headers_when_a_client_allows_four_gigabytes_then_stays_small(secured: Attacked) -> None:
    """The table is the server's to keep and to search: a client's word must not make it grow with every answer."""
    with secured.survives(), secured.connect("h2") as connection:
        frames = b"".join(headers(2 * n + 1, request()) for n in range(50))
        outcome = converse(connection, frames, first=settings((1, 2**32 - 1)), wanted=range(1, 101, 2))
    assert set(outcome.statuses.values()) == {200}
    assert outcome.table_bytes_max <= 65_536


@pytest.mark.needs("openssl")
def test_upload_when_its_stream_is_reset_then_what_came_is_kept_and_nothing_else(secured: Attacked) -> None:
    client, url = secured.served.client, secured.served.url
    location = client.post(f"{url}/v2/reset/blobs/uploads/").headers["Location"]
    path = location.removeprefix(url)
    changes = frozenset({"blob_uploads", "gc_storage_deletions", "file objects"})
    with secured.survives(changes=changes), secured.connect("h2") as connection:
        outcome = converse(
            connection, headers(1, request("PATCH", path), end=False) + data(1, b"kept", end=False)
        )
        assert outcome.acknowledged_end
        connection.sendall(reset(1))
        end = time.monotonic() + 20
        while client.get(location).headers["Range"] != "0-3" and time.monotonic() < end:
            time.sleep(0.02)
        assert client.get(location).headers["Range"] == "0-3"
    digest = digest_of(b"kept and more")
    assert client.put(f"{location}?digest={digest}", content=b" and more").status_code == 201


FRAME_TYPES = st.integers(0, 10) | st.integers(0, 255)
STREAMS = st.sampled_from([0, 1, 2, 3, 5, 7, 2**31 - 1]) | st.integers(0, 2**31 - 1)
BLOCKS = st.sampled_from(
    [block(request()), block(PUT), block(DECLARES), block(CONNECT), b"\x82\x86\x84\x41\x01x", b""]
)
CONTENTS = (
    BLOCKS
    | st.binary(max_size=40)
    | st.sampled_from([bytes(4), bytes(5), bytes(6), bytes(8), b"\x00\x00\x00\x01", b"{}"])
)
FRAMES = st.builds(
    raw, FRAME_TYPES, st.integers(0, 255) | st.sampled_from([0, 1, 4, 5, 8]), STREAMS, CONTENTS
)
GOOD = st.sampled_from([
    headers(1, request()), headers(3, PUT, end=False), data(3, b"{}"), headers(5, request("HEAD")), reset(1), reset(3),
    SETTINGS,
    settings((4, 0)), settings((4, 2**31 - 1)), settings((1, 0)), raw(8, 0, 0, b"\x00\x01\x00\x00"), priority(7, 1),
    raw(6, 0, 0, bytes(8)),
    headers(7, request("POST", "/v2/UPPER/blobs/uploads/"), end=False), data(7, b"x" * 100, end=False),
    raw(7, 0, 0, bytes(8)),
])  # fmt: skip


@pytest.mark.needs("openssl")
def test_frames_when_any_then_the_server_goes_on(registry: Attacked) -> None:
    @trying(max_examples=30 * EFFORT, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(GOOD | FRAMES, max_size=25).map(b"".join))
    def check(frames: bytes) -> None:
        with registry.connect("h2") as connection:
            outcome = converse(connection, frames)
        assert_below_500(repr(frames), outcome)

    with registry.survives():
        check()


UPGRADE = GET_BASE[:-2] + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: %b\r\n\r\n"


def test_upgrade_when_its_settings_are_none_then_nothing_fails(plain: Attacked) -> None:
    broken = [
        b"",
        b"!!!",
        b"AAMAAABkAAQAAP__AA",
        b"AAQ=",
        b"////",
        b"AAUAAAAB",
        b"A" * 60_000,
        b"AAQ_____",
        b"AAMAAABkAAQAAP__",
    ]
    with plain.survives():
        for number in broken:
            with plain.connect() as connection:
                connection.sendall(UPGRADE % number + b"garbage instead of a preface" * 3)
                exchange = receive(connection, 1)
            assert all(reply.status < 500 for reply in exchange.replies), (number, exchange)


@pytest.mark.needs("openssl")
def test_client_when_of_a_library_then_is_served_as_ever(secured: Attacked) -> None:
    """The frames above could all fail on a server that speaks no HTTP/2."""
    with secured.survives(), secured.connect("h2") as connection:
        client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        client.initiate_connection()
        client.send_headers(1, [(str(k), str(v)) for k, v in request()], end_stream=True)
        connection.sendall(client.data_to_send())
        events: list[h2.events.Event] = []
        while not any(isinstance(event, h2.events.StreamEnded) for event in events):
            events += client.receive_data(connection.recv(65_536))
    bodies = [event.data for event in events if isinstance(event, h2.events.DataReceived)]
    assert b"".join(body or b"" for body in bodies) == b"{}"
