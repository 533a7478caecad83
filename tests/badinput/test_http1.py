"""Raw bytes through the real server, HTTP/1.1: requests that two readers could understand differently, and no requests.

Request smuggling (CVE-2025-43859 in h11 and its kind), heads without end, versions and methods that nobody has. The
server answers with a refusal or not at all, closes what it cannot follow any further, and serves everybody else.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.badinput.wire import GET_BASE, PRESCRIBED
from tests.support.effort import EFFORT
from tests.support.registry import digest_of, encoded, image

if TYPE_CHECKING:
    from tests.badinput.wire import Attacked, Exchange

HOST = b"Host: registry.test\r\n"
PUT = b"PUT /v2/a/manifests/latest HTTP/1.1\r\n" + HOST
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CLOSE = b"Connection: close\r\n\r\n"
# What an attacker hides behind or in another request: it would be seen, as an answer of 404 that nobody asked for.
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: hidden.test\r\n\r\n"


def refused(case: str, exchange: Exchange) -> None:
    """One answer, which is a refusal, or none, and the end."""
    assert exchange.closed, case
    assert len(exchange.statuses) <= 1, (case, exchange)
    for reply in exchange.replies:
        assert 400 <= reply.status < 500 or reply.status in PRESCRIBED, (case, reply)
        assert not reply.body or reply.errors[0].keys() >= {"code", "message"}, (case, reply)
    assert exchange.rest == b"", case


def get(*lines: bytes, start: bytes = b"GET /v2/ HTTP/1.1") -> bytes:
    return b"\r\n".join([start, *lines, b"", b""])


# Each could end in two places, or in none. They must be refused, and what follows must not be read as a request.
SMUGGLED: dict[str, bytes] = {
    "two lengths": PUT + b"Content-Length: 4\r\nContent-Length: 0\r\n\r\n{}  " + HIDDEN,
    "two lengths, the other way": PUT + b"Content-Length: 0\r\nContent-Length: 4\r\n\r\n{}  " + HIDDEN,
    "a list of lengths": PUT + b"Content-Length: 4, 0\r\n\r\n{}  " + HIDDEN,
    "a length and chunks": PUT + b"Content-Length: 4\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    "chunks and a length": PUT + CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n" + HIDDEN,
    "length -1": PUT + b"Content-Length: -1\r\n\r\n" + HIDDEN,
    "length +4": PUT + b"Content-Length: +4\r\n\r\n{}  " + HIDDEN,
    "length 0x4": PUT + b"Content-Length: 0x4\r\n\r\n{}  " + HIDDEN,
    "length 4_0": PUT + b"Content-Length: 4_0\r\n\r\n" + HIDDEN,
    "length empty": PUT + b"Content-Length: \r\n\r\n" + HIDDEN,
    "length with a space": PUT + b"Content-Length: 4 4\r\n\r\n{}  " + HIDDEN,
    "length of 30 digits": PUT + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n" + HIDDEN,
    "length of 5,000 digits": PUT + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n" + HIDDEN,
    "length in another script": PUT + b"Content-Length: \xd9\xa4\r\n\r\n{}  " + HIDDEN,
    "length with a space before its colon": PUT + b"Content-Length : 4\r\n\r\n{}  " + HIDDEN,
    "coding xchunked": PUT + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "coding identity": PUT + b"Transfer-Encoding: identity\r\n\r\n" + HIDDEN,
    "coding gzip, chunked": PUT + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "coding chunked, chunked": PUT + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "coding chunked, identity": PUT + CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    "coding in quotes": PUT + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n' + HIDDEN,
    "coding behind a vertical tab": PUT + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "coding with a parameter": PUT + b"Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n" + HIDDEN,
    "coding with a space before its colon": PUT + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "coding behind a space": PUT + b" Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "coding behind a NUL": PUT + b"\x00Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "coding in a length's line": PUT
    + b"Content-Length: 4\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + HIDDEN,
    "coding behind a bare LF": PUT + b"X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "coding in a fold": PUT + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "length in a fold": PUT + b"Content-Length:\r\n\t2\r\n\r\n{}" + HIDDEN,
    "length behind a bare LF": PUT + b"X: a\nContent-Length: 2\r\n\r\n{}" + HIDDEN,
    "end of the head behind a bare LF": PUT + b"Content-Length: 0\r\n\n" + HIDDEN,
    "coding in HTTP/1.0": PUT.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    "chunk size -1": PUT + CHUNKED + b"\r\n-1\r\n" + HIDDEN,
    "chunk size +2": PUT + CHUNKED + b"\r\n+2\r\n{}\r\n0\r\n\r\n" + HIDDEN,
    "chunk size 0x2": PUT + CHUNKED + b"\r\n0x2\r\n{}\r\n0\r\n\r\n" + HIDDEN,
    "chunk size 2_0": PUT + CHUNKED + b"\r\n2_0\r\n{}\r\n0\r\n\r\n" + HIDDEN,
    "chunk size zz": PUT + CHUNKED + b"\r\nzz\r\n" + HIDDEN,
    "chunk size empty": PUT + CHUNKED + b"\r\n\r\n" + HIDDEN,
    "chunk size of 21 digits": PUT + CHUNKED + b"\r\n" + b"f" * 21 + b"\r\n" + HIDDEN,
    "chunk size without end": PUT + CHUNKED + b"\r\n" + b"0" * 100_000 + b"\r\n" + HIDDEN,
    "chunk extension with a bare CR": PUT + CHUNKED + b"\r\n2;a\rb\r\n{}\r\n0\r\n\r\n" + HIDDEN,
    "chunk extension without end": PUT
    + CHUNKED
    + b"\r\n2;"
    + b"a" * 100_000
    + b"\r\n{}\r\n0\r\n\r\n"
    + HIDDEN,
    "chunk longer than its size": PUT + CHUNKED + b"\r\n2\r\n{}{}\r\n0\r\n\r\n" + HIDDEN,
    "chunk ended by something else": PUT + CHUNKED + b"\r\n2\r\n{}XX0\r\n\r\n" + HIDDEN,
    "trailers that end in LF": PUT + CHUNKED + b"\r\n2\r\n{}\r\n0\r\nX: a\n\n" + HIDDEN,
    "trailers that are a request": PUT + CHUNKED + b"\r\n2\r\n{}\r\n0\r\n" + HIDDEN,
    "trailers without end": PUT + CHUNKED + b"\r\n2\r\n{}\r\n0\r\n" + b"a: b\r\n" * 20_000 + b"\r\n" + HIDDEN,
}
# Heads that are none.
MALFORMED: dict[str, bytes] = {
    "nothing but line ends": b"\r\n" * 1000 + b"x\r\n\r\n",
    "random bytes": random.Random(1).randbytes(2000) + b"\r\n\r\n",
    "a TLS hello": bytes.fromhex("1603010200010001fc0303") + bytes(501) + b"\r\n\r\n",
    "an SSH banner": b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    "half an HTTP/2 preface": b"PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n",
    "a SOCKS request": b"\x05\x01\x00\r\n\r\n",
    "HTTP/0.9": b"GET /v2/\r\n\r\n",
    "no target": get(HOST[:-2], start=b"GET HTTP/1.1"),
    "no method": get(HOST[:-2], start=b" /v2/ HTTP/1.1"),
    "no version": get(HOST[:-2], start=b"GET /v2/ HTTP/"),
    "version 1.x": get(HOST[:-2], start=b"GET /v2/ HTTP/1.x"),
    "version 1": get(HOST[:-2], start=b"GET /v2/ HTTP/1"),
    "version 11.1": get(HOST[:-2], start=b"GET /v2/ HTTP/11.1"),
    "version 2.0": get(HOST[:-2], start=b"GET /v2/ HTTP/2.0"),
    "version 9.9": get(HOST[:-2], start=b"GET /v2/ HTTP/9.9"),
    "lower-case protocol": get(HOST[:-2], start=b"GET /v2/ http/1.1"),
    "a space in the target": get(HOST[:-2], start=b"GET /v2/ x HTTP/1.1"),
    "a tab for a space": get(HOST[:-2], start=b"GET\t/v2/\tHTTP/1.1"),
    "a NUL in the target": get(HOST[:-2], start=b"GET /v2/\x00 HTTP/1.1"),
    "a bare CR in the target": get(HOST[:-2], start=b"GET /v2/\rx HTTP/1.1"),
    "UTF-8 in the target": get(HOST[:-2], start="GET /v2/é HTTP/1.1".encode()),
    "a byte that is no ASCII in the target": get(HOST[:-2], start=b"GET /v2/\xff HTTP/1.1"),
    "a NUL in the method": get(HOST[:-2], start=b"G\x00T /v2/ HTTP/1.1"),
    "brackets in the method": get(HOST[:-2], start=b"G(E)T /v2/ HTTP/1.1"),
    "UTF-8 in the method": get(HOST[:-2], start="GÉT /v2/ HTTP/1.1".encode()),
    "a NUL in a header": get(HOST[:-2], b"X: a\x00b"),
    "a bare CR in a header": get(HOST[:-2], b"X: a\rX-Injected: b"),
    "a NUL in a header's name": get(HOST[:-2], b"X\x00: a"),
    "a space in a header's name": get(HOST[:-2], b"X Y: a"),
    "a space before the colon": get(HOST[:-2], b"X : a"),
    "a header without a name": get(HOST[:-2], b": a"),
    "a header without a colon": get(HOST[:-2], b"X"),
    "a folded first header": get(b" folded", HOST[:-2]),
    "a fold": get(HOST[:-2], b"X: a\r\n b"),
    "a fold behind a tab": get(HOST[:-2], b"X: a\r\n\tb"),
    "lines that end in LF": b"GET /v2/ HTTP/1.1\nHost: registry.test\n\n",
    "one line that ends in LF": get(HOST[:-2], b"X: a\nX-Injected: b"),
    "a target behind a bare LF": get(HOST[:-2], start=b"GET /v2/ HTTP/1.1\nGET /v2/_catalog HTTP/1.1"),
    "UTF-8 in a header's name": get(HOST[:-2], "É: a".encode()),
    "no Host": get(b"X: a"),
    "two Hosts": get(HOST[:-2], b"Host: other.test"),
    "two Hosts alike": get(HOST[:-2], HOST[:-2]),
    "a head of a mebibyte": get(HOST[:-2], b"X: " + b"a" * 2**20),
    "a target of a mebibyte": get(HOST[:-2], start=b"GET /v2/" + b"a" * 2**20 + b" HTTP/1.1"),
    "a query of a mebibyte": get(HOST[:-2], start=b"GET /v2/_catalog?n=" + b"9" * 2**20 + b" HTTP/1.1"),
    "a method of a mebibyte": get(HOST[:-2], start=b"G" * 2**20 + b" /v2/ HTTP/1.1"),
    "100,000 headers": get(HOST[:-2], *(b"X-%d: a" % number for number in range(100_000))),
    "a head of a mebibyte without an end": b"GET /v2/ HTTP/1.1\r\nX: " + b"a" * 2**20,
}


def test_request_when_it_could_be_read_in_two_ways_then_is_refused_and_nothing_behind_it_is_read(
    plain: Attacked,
) -> None:
    with plain.survives():
        for case, payload in SMUGGLED.items():
            exchange = plain.send(payload)
            assert exchange.closed, case
            for reply in exchange.replies:
                assert 400 <= reply.status < 500 or reply.status in PRESCRIBED, (case, reply)
                assert not reply.body or reply.errors[0]["code"] != "NOT_FOUND", (
                    f"{case}: the hidden one was answered"
                )


def test_head_when_it_is_none_then_is_refused_and_the_connection_closed(plain: Attacked) -> None:
    with plain.survives():
        for case, payload in MALFORMED.items():
            refused(case, plain.send(payload))


# Odd and allowed, or refused by the application, which then knows where the request ends: what is behind is answered.
TAKEN: dict[str, tuple[bytes, set[int]]] = {
    "a header without a value": (get(HOST[:-2], b"X:"), {200}),
    "an empty Host": (get(b"Host:"), {200}),
    "a Host with a path": (get(b"Host: a/../b"), {200}),
    "obsolete text in a header": (get(HOST[:-2], b"X: \xff\xfe"), {200}),
    "ten thousand headers": (get(HOST[:-2], *([b"a:"] * 10_000)), {200, 431}),
    "blank lines before it": (b"\r\n\r\n" + GET_BASE, {200, 400}),
    "an absolute target": (get(HOST[:-2], start=b"GET http://registry.test/v2/ HTTP/1.1"), {200, 404}),
    "an absolute target of another host": (
        get(HOST[:-2], start=b"GET http://other.test/v2/ HTTP/1.1"),
        {200, 404},
    ),
    "an absolute target without a path": (
        get(HOST[:-2], start=b"GET http://registry.test HTTP/1.1"),
        {200, 404},
    ),
    "an absolute target whose query looks like a path": (
        get(HOST[:-2], start=b"GET http://registry.test?x=/v2/nothing/tags/list HTTP/1.1"),
        {200},
    ),
    "a target that is absolute only in its query": (
        get(HOST[:-2], start=b"GET *?x://registry.test/v2/ HTTP/1.1"),
        {404},
    ),
    "an absolute target without anything": (get(HOST[:-2], start=b"GET :// HTTP/1.1"), {200, 404}),
    "an asterisk": (get(HOST[:-2], start=b"OPTIONS * HTTP/1.1"), {404, 405}),
    "an authority": (get(HOST[:-2], start=b"CONNECT registry.test:80 HTTP/1.1"), {404, 405}),
    "a path without its slash": (get(HOST[:-2], start=b"GET v2/ HTTP/1.1"), {404}),
    "two slashes": (get(HOST[:-2], start=b"GET //v2/ HTTP/1.1"), {404}),
    "two slashes inside": (get(HOST[:-2], start=b"GET /v2//_catalog HTTP/1.1"), {404}),
    "a fragment": (get(HOST[:-2], start=b"GET /v2/#fragment HTTP/1.1"), {404}),
    "a fragment in a query": (get(HOST[:-2], start=b"GET /v2/_catalog?n=1#fragment HTTP/1.1"), {400}),
    "dots": (get(HOST[:-2], start=b"GET /v2/../../etc/passwd HTTP/1.1"), {404}),
    "encoded dots": (get(HOST[:-2], start=b"GET /v2/%2e%2e%2fa/tags/list HTTP/1.1"), {400}),
    "an encoded NUL": (get(HOST[:-2], start=b"GET /v2/a%00/tags/list HTTP/1.1"), {400}),
    "an encoded line break": (get(HOST[:-2], start=b"POST /v2/a%0d%0aX:y/blobs/uploads/ HTTP/1.1"), {400}),
    "bytes that are no UTF-8": (get(HOST[:-2], start=b"GET /v2/%ff%c0%80/tags/list HTTP/1.1"), {400}),
    "half an escape": (get(HOST[:-2], start=b"GET /v2/%/tags/list%2 HTTP/1.1"), {400, 404}),
    "a path of 60,000 characters": (
        get(HOST[:-2], start=b"GET /v2/" + b"a" * 60_000 + b"/tags/list HTTP/1.1"),
        {400, 431},
    ),
    "a query of 60,000 characters": (
        get(HOST[:-2], start=b"GET /v2/_catalog?" + b"n=1&" * 15_000 + b" HTTP/1.1"),
        {200, 431},
    ),
    "an unknown method": (get(HOST[:-2], start=b"BREW /v2/ HTTP/1.1"), {405}),
    "a method of 1,000 characters": (get(HOST[:-2], start=b"B" * 1000 + b" /v2/ HTTP/1.1"), {405}),
    "a WebSocket": (
        get(
            HOST[:-2],
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: eDEyMzQ1Njc4OWFiY2RlZg==",
        ),
        {200, 400, 403, 426},
    ),
    "half a WebSocket": (get(HOST[:-2], b"Connection: Upgrade", b"Upgrade: websocket"), {200, 400, 403, 426}),
    "an upgrade to anything": (get(HOST[:-2], b"Connection: Upgrade", b"Upgrade: \xff, TLS/1.0, x"), {200}),
    "an expectation nobody can meet": (get(HOST[:-2], b"Expect: 200-maybe"), {200, 417}),
    "a body where none belongs": (get(HOST[:-2], b"Content-Length: 4") + b"body", {200}),
    "chunks where none belong": (
        get(HOST[:-2], b"Transfer-Encoding: chunked") + b"4\r\nbody\r\n0\r\n\r\n",
        {200},
    ),
    "CHUNKED": (PUT + b"Transfer-Encoding: CHUNKED\r\n\r\n2\r\n{}\r\n0\r\n\r\n", {400}),
    "one length twice": (PUT + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", {400}),
    "leading zeros": (PUT + b"Content-Length: 002\r\n\r\n{}", {400}),
    "every chunk a byte": (PUT + CHUNKED + b"\r\n" + b"1\r\n \r\n" * 5000 + b"0\r\n\r\n", {400}),
    "chunk extensions": (PUT + CHUNKED + b"\r\n2;a=b;c\r\n{}\r\n0;d\r\n\r\n", {400}),
    "trailers": (PUT + CHUNKED + b"\r\n2\r\n{}\r\n0\r\nContent-Length: 5\r\nHost: other.test\r\n\r\n", {400}),
}


def test_request_when_odd_then_is_answered_and_the_next_one_of_the_connection_as_well(
    plain: Attacked,
) -> None:
    last = b"GET /v2/_catalog?n=last HTTP/1.1\r\n" + HOST + CLOSE
    with plain.survives():
        for case, (payload, statuses) in TAKEN.items():
            exchange = plain.send(payload + last)
            assert exchange.statuses, case
            assert exchange.statuses[0] in statuses, (case, exchange)
            assert exchange.closed
            if len(exchange.statuses) == 1:  # then it said so
                assert exchange.replies[-1].headers.get("connection") == "close", (case, exchange)
            else:
                assert exchange.statuses[1:] == [400], (case, exchange)
                assert exchange.replies[-1].errors[0]["code"] == "PAGINATION_NUMBER_INVALID"


def test_method_when_it_is_connect_then_nothing_behind_it_is_taken_for_a_request(plain: Attacked) -> None:
    """To whoever believes in the tunnel, what follows is for its other end."""
    with plain.survives():
        for more in (HOST, HOST + b"Content-Length: 0\r\n"):
            exchange = plain.send(b"CONNECT registry.test:80 HTTP/1.1\r\n" + more + b"\r\n" + GET_BASE)
            assert (exchange.statuses, exchange.closed) in (([404], True), ([405], True))


def test_version_when_it_is_1_0_then_is_answered_and_the_connection_closed(plain: Attacked) -> None:
    with plain.survives():
        for more in (b"", b"Connection: keep-alive\r\n", HOST, b"Connection: close\r\n"):
            exchange = plain.send(b"GET /v2/ HTTP/1.0\r\n" + more + b"\r\n" + GET_BASE)
            assert (exchange.statuses, exchange.closed) == ([200], True)
            assert exchange.replies[0].headers["connection"] == "close"


def test_method_when_in_lower_case_then_is_another_one(plain: Attacked) -> None:
    """RFC 9110 §9.1: what a proxy lets through as `delete` must not be a DELETE here."""
    with plain.survives():
        for method in (b"get", b"delete", b"Put", b"pATCH"):
            exchange = plain.send(get(HOST[:-2], start=method + b" /v2/ HTTP/1.1"), answers=1)
            assert exchange.statuses == [405], method


def test_requests_when_sent_at_once_then_are_answered_in_order_up_to_the_bad_one(plain: Attacked) -> None:
    bad = b"GARBAGE\r\n\r\n"
    catalog = GET_BASE.replace(b"/v2/", b"/v2/_catalog")
    none = GET_BASE.replace(b"/v2/", b"/v2/nothing")
    with plain.survives():
        exchange = plain.send(GET_BASE + none + catalog + bad + GET_BASE * 3)
        assert (exchange.statuses, exchange.closed) == ([200, 404, 200, 400], True)
        exchange = plain.send(GET_BASE * 200 + bad)
        assert exchange.statuses == [200] * 200 + [400]
        # What is sent as the body of a refused request is its body, whatever it looks like.
        upload = b"PATCH /v2/a/blobs/uploads/x HTTP/1.1\r\n" + HOST + b"Content-Length: 1000\r\n\r\n"
        exchange = plain.send(upload + none.ljust(1000) + bad)
        assert exchange.closed
        assert exchange.statuses in ([404], [404, 400])
        assert exchange.replies[0].errors[0]["code"] == "BLOB_UPLOAD_UNKNOWN"


def test_head_when_sent_byte_by_byte_then_is_understood_and_nobody_waits_for_it(plain: Attacked) -> None:
    with plain.survives(), plain.connect() as slow:
        for byte in GET_BASE[:-1]:
            slow.sendall(bytes([byte]))
        assert plain.send(GET_BASE, answers=1).statuses == [200]
        slow.sendall(GET_BASE[-1:])
        assert plain.send(GET_BASE, answers=1).statuses == [200]


def test_connections_when_they_say_nothing_or_half_of_something_then_others_are_served(
    plain: Attacked,
) -> None:
    beginnings = [
        b"",
        b"G",
        b"GET /v2/ HTTP/1.1\r\n",
        GET_BASE[:-2],
        PUT + b"Content-Length: 10\r\n\r\n{",
        PUT + CHUNKED + b"\r\n5\r\n{",
    ]
    with plain.survives():
        held = [plain.connect() for _ in range(60)]
        try:
            for number, connection in enumerate(held):
                connection.sendall(beginnings[number % len(beginnings)])
            for _ in range(20):
                assert plain.send(GET_BASE, answers=1).statuses == [200]
        finally:
            for connection in held:
                connection.close()


# Bytes that mean something to a reader of HTTP come often enough to get past the first line.
TOKENS = st.sampled_from([
    b"GET ", b"PUT ", b"POST ", b"HEAD ", b"/v2/", b"/v2/a/manifests/x", b"/v2/a/blobs/uploads/", b"*", b" HTTP/1.1",
    b" HTTP/1.0",
    b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"Host: x", b"Content-Length: ", b"0", b"5", b"-1",
    b"Transfer-Encoding: chunked", b"Connection: close",
    b"Expect: 100-continue", b"Upgrade: h2c", b"Upgrade: websocket", b": ", b" ", b"\t", b"\x00", b"\xff", b"%",
    b"%00", b"?", b"#", b"//", b"..",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n",
])  # fmt: skip
NOISE = st.lists(TOKENS | st.binary(max_size=8), max_size=40).map(b"".join) | st.binary(max_size=300)
HARD = settings(
    max_examples=60 * EFFORT,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@HARD
@given(NOISE)
def check_noise(registry: Attacked, noise: bytes) -> None:
    exchange = registry.send(noise, ends=True)
    assert exchange.closed
    for reply in exchange.replies:
        assert reply.status < 500 or reply.status in PRESCRIBED, (noise, reply)


@HARD
@given(st.lists(NOISE, min_size=1, max_size=3), st.integers(0, 2**32))
def check_broken_requests(registry: Attacked, noises: list[bytes], seed: int) -> None:
    """Good requests with some of their bytes replaced."""
    choice = random.Random(seed)
    payload = (
        GET_BASE
        + PUT
        + b"Content-Length: 2\r\n\r\n{}"
        + PUT
        + CHUNKED
        + b"\r\n2\r\n{}\r\n0\r\n\r\n"
        + GET_BASE
    )
    for noise in noises:
        at = choice.randrange(len(payload))
        payload = payload[:at] + noise + payload[at + choice.randrange(20) :]
    exchange = registry.send(payload, ends=True)
    assert exchange.closed
    for reply in exchange.replies:
        assert reply.status < 500 or reply.status in PRESCRIBED, (payload, reply)


def test_bytes_when_any_then_are_answered_below_500_or_not_at_all(plain: Attacked) -> None:
    # A POST that the noise happens to spell out opens a session, which is what it is for.
    with plain.survives(changes=frozenset({"blob_uploads", "repositories"})):
        check_noise(plain)
        check_broken_requests(plain)


def test_upload_and_manifest_when_spelt_oddly_but_right_then_are_stored(plain: Attacked) -> None:
    """The tests above could all pass on a server that refuses everything."""
    content, manifest = b"{}", image()
    upload = b"POST /v2/odd/blobs/uploads/?&digest=" + digest_of(content).encode() + b"&x HTTP/1.1\r\n" + HOST
    exchange = plain.send(
        upload + b"tRANSFER-eNCODING:   Chunked\t\r\n\r\n1;x\r\n{\r\n01\r\n}\r\n000\r\nX: y\r\n\r\n",
        answers=1,
    )
    assert exchange.statuses == [201], exchange
    put = b"PUT /v2/odd/manifests/%%6catest HTTP/1.1\r\nhOST:registry.test\r\nCONTENT-LENGTH:0000%d\r\n\r\n%b"
    exchange = plain.send(put % (len(manifest.payload), manifest.payload), answers=1)
    assert exchange.statuses == [201], exchange
    assert encoded({"name": "odd", "tags": ["latest"]}).replace(b" ", b"") in plain.send(
        GET_BASE.replace(b"/v2/", b"/v2/odd/tags/list"), answers=1
    ).replies[0].body.replace(b" ", b"")
