"""HTTP/1.1: one request after the other on a connection, each answered by the application in the connection's task.

hypercorn's own HTTP/1.1 spends a task, a queue and a dozen awaits on each request, and reads 64 KiB at a time; a GET
of a manifest took 0.51 ms of processor time with it and takes 0.34 ms here. Heads are read by app.server.heads, bodies
by app.server.framing. What a registry needs beside that:

- An answer that comes before the end of the request's body reaches the client, whatever it is still sending.
- An answer cut short is seen to be cut short.
- A server that stops says so with the next answer.
"""

from __future__ import annotations

import asyncio
import http
import json
import logging
import re
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import h11
from h2.exceptions import ProtocolError
from h2.settings import Settings as H2Settings
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import SettingsFrame

from app.server.framing import Body, ChunkedBody, FramingError, body_of
from app.server.heads import Head, next_head

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from app.server.bytestream import ByteStream

    Application = Callable[[Any, Any, Any], Awaitable[None]]

_log = logging.getLogger("registry.server")
Headers = list[tuple[bytes, bytes]]

# How long a client that was answered early may go on sending before it is cut off.
LINGER_SECONDS: Final = 5.0
# Bytes of a body that are copied behind the answer's head rather than sent after it.
_TOGETHER_BYTES_MAX: Final = 64 * 1024

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus
}
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_ASGI: Final = {"version": "3.0", "spec_version": "2.4"}
# Of a target in absolute form, what stands before the path (RFC 3986 §3).
_AUTHORITY: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_CLOSE: Final = (b"connection", b"close")
_CHUNKED: Final = (b"transfer-encoding", b"chunked")
_WITHOUT_BODY: Final = frozenset({204, 304})
# What cannot be read is answered here, in the form that clients of a registry understand.
_CODES: Final = {
    431: "HEADER_FIELDS_TOO_LARGE",
    500: "UNKNOWN",
    501: "UNSUPPORTED",
    503: "UNAVAILABLE",
    505: "UNSUPPORTED",
}


class Upgrade(Exception):
    """The client goes on in HTTP/2: with `data`, after the request of an upgrade if there was one."""

    def __init__(self, data: bytes, headers: Headers | None = None, settings: bytes | None = None) -> None:
        super().__init__()
        self.data = data
        self.headers = headers
        self.settings = settings


@dataclass(frozen=True)
class Situation:
    """What an exchange needs to know of its server and connection. `date` gives the Date header.

    `began` and `ended` are called around each request; `ended` says whether the connection may stay open.
    """

    app: Application
    scheme: str
    client: tuple[str, int] | None
    server: tuple[str, int] | None
    h2c: bool
    date: Callable[[], tuple[bytes, bytes]]
    is_draining: Callable[[], bool]
    began: Callable[[], None]
    ended: Callable[[], bool]


async def serve(stream: ByteStream, situation: Situation) -> None:
    """Answer the requests of `stream` until one side has had enough. Raises Upgrade, ConnectionError."""
    received = b""
    while True:
        try:
            found = await next_head(received, stream.read)
            if found is None:
                return
            head, received = found
            if situation.h2c:
                await _upgrade(stream, head, received)
            exchange = _Exchange(stream, situation, head, received)
        except h11.RemoteProtocolError as error:
            # Behind the colon it quotes what it could not read, which may be credentials.
            reason = str(error).partition(": ")[0]
            await _refuse(stream, situation, error.error_status_hint, reason)
            return
        except FramingError as error:
            await _refuse(stream, situation, 400, str(error))
            return
        situation.began()
        stays = await exchange.run()
        if not situation.ended() or not stays:
            return
        received = exchange.rest


async def _upgrade(stream: ByteStream, head: Head, received: bytes) -> None:
    """Raise Upgrade if the client wants to go on in HTTP/2 without TLS."""
    if head.method == b"PRI" and head.version == b"2.0":
        raise Upgrade(b"PRI * HTTP/2.0\r\n\r\n" + received)
    headers = dict(head.headers)
    has_body = b"content-length" in headers or b"transfer-encoding" in headers
    settings = headers.get(b"http2-settings", b"")
    if headers.get(b"upgrade", b"").lower() == b"h2c" and _are_settings(settings) and not has_body:
        await stream.send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
        pseudo = [(b":method", head.method), (b":path", head.target)]
        if b"host" in headers:
            pseudo.append((b":authority", headers[b"host"]))
        raise Upgrade(received, pseudo + head.headers, settings)


def _are_settings(encoded: bytes) -> bool:
    """Whether this is the content of a SETTINGS frame (RFC 7540 §3.2.1); without one there is no upgrade."""
    try:
        frame = SettingsFrame(0)
        frame.parse_body(memoryview(urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4))))
        H2Settings(client=True).update(frame.settings)
    except (ValueError, HyperframeError, ProtocolError):
        return False
    return bool(frame.settings)


async def _refuse(stream: ByteStream, situation: Situation, status: int, reason: str) -> None:
    """Answer what cannot be read, and close."""
    code = _CODES.get(status, "BAD_REQUEST")
    body = json.dumps({"errors": [{"code": code, "message": reason[:200]}]}).encode() + b"\n"
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), _CLOSE]
    if status == http.HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append((b"retry-after", b"1"))
    await stream.send(_head(status, [*headers, situation.date()]) + body)


class _Exchange:
    """One request and its answer: what the application receives and sends (ASGI)."""

    def __init__(
        self,
        stream: ByteStream,
        situation: Situation,
        head: Head,
        received: bytes,
    ) -> None:
        self._stream = stream
        self._situation = situation
        self._method = head.method.decode()
        self._target = head.target
        self._version = head.version.decode()
        self._headers = head.headers
        if self._version not in ("1.0", "1.1"):
            raise h11.RemoteProtocolError("the HTTP version is not supported", 505)
        self._body: Body = body_of(self._headers)
        if self._version == "1.0" and isinstance(self._body, ChunkedBody):
            raise FramingError("HTTP/1.0 has no chunks")
        self._waits = head.waits_for_continue
        self._received = received
        # Content that has come and the application has not asked for yet.
        self._ready = b""
        self._told_end = False
        self._broken = ""
        # What comes behind a CONNECT is a tunnel's to whoever believes in one.
        self._closes = self._version == "1.0" or self._method == "CONNECT" or _says_close(self._headers)
        # The answer.
        self._status = 0
        self._head = b""
        self._is_sent = False
        self._left: int | None = None
        self._is_chunked = False

    @property
    def rest(self) -> bytes:
        """What came behind the request."""
        return self._body.rest

    async def run(self) -> bool:
        """Have the request answered. Returns whether the connection can take another. Raises ConnectionError."""
        failed = False
        try:
            if self._take(self._received):
                await self._situation.app(self._scope(), self.receive, self.send)
        except asyncio.CancelledError:
            if not self._status:  # the server stops, and has waited long enough
                await _refuse(self._stream, self._situation, 503, "the server is stopping")
            raise
        except ConnectionError:
            failed = True  # of the client's connection: nobody is left to be told
        except Exception:  # noqa: BLE001  (logged; the client gets a 500 or a cut connection)
            failed = True
            _log.exception("the application failed")
        return await self._conclude(failed=failed)

    async def _conclude(self, *, failed: bool) -> bool:
        """Make the answer whole, or seen not to be. Returns whether the connection can take another request."""
        if self._is_sent:
            if self._closes and not self._body.is_finished:
                await self._linger()
            return not self._closes
        if self._status:  # cut, so that the client sees that there should be more
            self._stream.abort()
        elif self._broken:
            await _refuse(self._stream, self._situation, 400, self._broken)
        elif failed or not self._stream.is_over:
            await _refuse(self._stream, self._situation, 500, "internal server error")
        return False

    def _scope(self) -> dict[str, Any]:
        path, _, query = _origin_form(self._target).partition(b"?")
        situation = self._situation
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": self._version,
            "method": self._method,
            "scheme": situation.scheme,
            "path": unquote(path.decode()) if b"%" in path else path.decode(),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": self._headers,
            "client": situation.client,
            "server": situation.server,
            "extensions": {},
        }

    async def receive(self) -> dict[str, Any]:
        """The body in whatever pieces it comes, then `http.disconnect` once the client is gone or has its answer."""
        if self._told_end:
            if not self._is_sent:
                await self._stream.over()
            return {"type": "http.disconnect"}
        if self._waits and not self._status:
            self._waits = False
            await self._stream.send(_CONTINUE)
        while not self._ready and not self._body.is_finished and not self._is_sent:
            data = await self._stream.read()
            if not data or not self._take(data):
                self._told_end = True
                return {"type": "http.disconnect"}
        block, self._ready = self._ready, b""
        self._told_end = self._body.is_finished or self._is_sent
        return {"type": "http.request", "body": block, "more_body": not self._told_end}

    def _take(self, data: bytes) -> bool:
        """Understand what has come. False: it cannot be understood, and the connection is of no more use."""
        try:
            content = self._body.feed(data)
        except FramingError as error:
            self._broken = str(error)
            self._closes = True
            return False
        self._ready = self._ready + content if self._ready else content
        return True

    async def send(self, message: Mapping[str, Any]) -> None:
        """The answer. Raises ConnectionError when the client is gone."""
        if message["type"] == "http.response.start":
            self._start(message["status"], message.get("headers", ()))
        elif message["type"] == "http.response.body":
            await self._send_body(message.get("body", b""), more=message.get("more_body", False))

    def _start(self, status: int, given: Iterable[tuple[bytes, bytes]]) -> None:
        if self._status:
            raise RuntimeError("an answer has one head")
        headers = list(given)
        self._status = status
        if self._method == "HEAD" or status in _WITHOUT_BODY:
            self._left = 0
        elif (length := _length(headers)) is not None:
            self._left = length
        elif self._version == "1.1":
            self._is_chunked = True
            headers.append(_CHUNKED)
        else:
            self._closes = True
        # A client that is still sending would take the rest of its body for the next request's.
        if self._closes or not self._body.is_finished or self._situation.is_draining():
            self._closes = True
            headers.append(_CLOSE)
        headers.append(self._situation.date())
        self._head = _head(status, headers)

    async def _send_body(self, data: bytes, *, more: bool) -> None:
        if not self._status or self._is_sent:
            raise RuntimeError("a body comes after its head, once")
        if self._method == "HEAD" or self._status in _WITHOUT_BODY:
            data = b""
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                self._stream.abort()
                raise RuntimeError("the body is longer than its Content-Length")
        if self._is_chunked:
            data = (b"%x\r\n%b\r\n" % (len(data), data) if data else b"") + (b"" if more else b"0\r\n\r\n")
        if self._head and len(data) <= _TOGETHER_BYTES_MAX:
            data = self._head + data
        elif self._head:
            await self._stream.send(self._head)
        self._head = b""
        if data:
            await self._stream.send(data)
        self._is_sent = not more and not self._left

    async def _linger(self) -> None:
        """Take in what still comes: closing on it would reset the connection, and the answer would be lost."""
        self._stream.end()
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while not self._broken and not self._body.is_finished and (data := await self._stream.read()):
                    self._take(data)
                    self._ready = b""
        except TimeoutError:
            return


def _says_close(headers: Headers) -> bool:
    return any(name == b"connection" and b"close" in value.lower() for name, value in headers)


def _length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    for name, value in headers:
        if name == b"content-length":
            return int(value)
    return None


def _head(status: int, headers: Headers) -> bytes:
    """The head of an answer. Raises ValueError if a header would begin another one."""
    lines = b"\r\n".join([name + b": " + value for name, value in headers])
    if lines.count(b"\n") != len(headers) - 1 or lines.count(b"\r") != len(headers) - 1 or b"\0" in lines:
        raise ValueError("a header of the answer has a line break in it")
    return b"%b%b\r\n\r\n" % (_STATUS_LINES[status], lines)


def _origin_form(target: bytes) -> bytes:
    """A target as its path and query: a proxy's client sends the whole URL (RFC 9112 §3.2.2)."""
    if target.startswith(b"/") or (found := _AUTHORITY.match(target)) is None:
        return target
    rest = target[found.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest
