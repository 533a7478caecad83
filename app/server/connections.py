"""One client's connection: hypercorn's protocols, with what a registry needs of them beyond that.

- A server that stops answers what has already been sent to it: it says goodbye first (`Connection: close`, GOAWAY)
  and closes idle connections a moment later.
- An answer that comes before the end of the request's body reaches the client, whatever it is still sending.
- HTTP/2 without TLS only where it was asked for.
- On HTTP/2 a request that nobody reads holds up no other, and an answer cut short is seen to be.

These classes know hypercorn's inside (0.18); the tests of this package show whether a newer one still fits.
"""
# hypercorn declares its attributes wider than they are here, and some of its functions only in part.
# pyright: reportIncompatibleVariableOverride=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import h2.events
import h11
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.events import Closed, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.events import Body, EndBody, Response, StreamClosed
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H2CProtocolRequiredError, H2ProtocolAssumedError, H11Protocol
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr
from hyperframe.frame import GoAwayFrame

from app.server.idle import IdleTimer
from app.server.inbox import Inbox

if TYPE_CHECKING:
    from hypercorn.config import Config
    from hypercorn.events import Event
    from hypercorn.protocol.events import Event as StreamEvent
    from hypercorn.typing import AppWrapper, ASGIReceiveCallable

# How long a client that was answered early may go on sending before it is cut off.
LINGER_SECONDS: Final = 5.0
# What a client may send ahead of the application: on one stream, and on all of a connection together. HTTP/2's own
# 64 KiB would hold an upload to 64 KiB per round trip.
STREAM_WINDOW_BYTES: Final = 1024 * 1024
CONNECTION_WINDOW_BYTES: Final = 4 * STREAM_WINDOW_BYTES
# Bytes of a body that are copied behind the answer's head rather than sent after it.
_TOGETHER_BYTES_MAX: Final = 64 * 1024
_DEFAULT_WINDOW_BYTES: Final = 65_535
_LAST_STREAM: Final = 2**31 - 1


class ServerContext(WorkerContext):
    """What the connections of one server share. `terminated` cuts idle ones; `draining` only says goodbye."""

    def __init__(self, *, h2c: bool) -> None:
        super().__init__(None)
        self.h2c = h2c
        self.draining = False


class Tasks(TaskGroup):
    """The tasks of one connection: its applications, each reading from an inbox."""

    async def spawn_app(self, app: AppWrapper, config: Config, scope: Any, send: Any) -> Any:
        inbox = Inbox(config.max_app_queue_size)
        self.spawn(_run_app, app, config, scope, inbox, send)
        return inbox


async def _run_app(app: AppWrapper, config: Config, scope: Any, inbox: Inbox, send: Any) -> None:
    loop = asyncio.get_running_loop()
    receive = cast("ASGIReceiveCallable", inbox.get)
    try:
        await app(scope, receive, send, partial(loop.run_in_executor, None), _never)
    except Exception:  # noqa: BLE001  (logged; the client gets a 500 or a cut connection)
        await config.log.exception("the application failed")
    finally:
        await send(None)


def _never(*_: Any) -> Any:
    raise NotImplementedError("for WSGI applications, which this is none of")


class PriorKnowledgeError(Exception):
    """A client speaks HTTP/2 without having been asked."""


class Http1(H11Protocol):
    """HTTP/1.1."""

    context: ServerContext
    connection: h11.Connection

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._lingers = False
        self._settled = asyncio.Event()
        self._head = b""

    async def handle(self, event: Event) -> None:
        if isinstance(event, Closed):
            self._settled.set()
        if isinstance(event, RawData) and self._lingers:
            self.connection.receive_data(event.data)
            self._discard()
        else:
            await super().handle(event)

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, Response) and (self.context.draining or self._is_early()):
            event.headers.append((b"connection", b"close"))
        await super().stream_send(event)

    async def _send_h11_event(self, event: Any) -> None:
        """Head and first bytes of an answer go out together: one system call and one packet fewer for each."""
        try:
            data: bytes = cast("bytes | None", self.connection.send(event)) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return
        if isinstance(event, h11.Response):
            self._head = data
            return
        if self._head and len(data) <= _TOGETHER_BYTES_MAX:
            data, self._head = self._head + data, b""
        elif self._head:
            head, self._head = self._head, b""
            await self.send(RawData(data=head))
        if data:
            await self.send(RawData(data=data))

    async def refuse(self, status: int) -> None:
        """Answer what cannot be served at all, and close."""
        await self._send_error_response(status)
        await self.send(Closed())

    async def _check_protocol(self, event: h11.Request) -> None:
        if self.context.h2c:
            await super()._check_protocol(event)
        elif event.method == b"PRI" and event.http_version == b"2.0":
            raise PriorKnowledgeError

    async def _maybe_recycle(self) -> None:
        if self._is_early() and not self._settled.is_set():
            await self._close_stream()
            await self._linger()
        await super()._maybe_recycle()

    def _is_early(self) -> bool:
        """Whether the client is still sending."""
        return self.connection.their_state is h11.SEND_BODY

    async def _linger(self) -> None:
        """Take in what still comes: closing on it would reset the connection, and the answer would be lost."""
        self._lingers = True
        self._discard()
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                await self._settled.wait()
        except TimeoutError:
            return

    def _discard(self) -> None:
        try:
            while isinstance(self.connection.next_event(), (h11.Data, h11.EndOfMessage)):
                pass
        except h11.RemoteProtocolError:
            self._settled.set()
        if not self._is_early():
            self._settled.set()


class Http2(H2Protocol):
    """HTTP/2."""

    context: ServerContext

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._answered: set[int] = set()
        self.connection.local_settings.update({SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES})
        self.connection.local_settings.acknowledge()

    async def initiate(
        self, headers: list[tuple[bytes, bytes]] | None = None, settings: bytes | None = None
    ) -> None:
        await super().initiate(headers, settings)
        self.connection.increment_flow_control_window(CONNECTION_WINDOW_BYTES - _DEFAULT_WINDOW_BYTES)
        await self._flush()
        if self.context.draining:
            await self.goodbye()

    async def goodbye(self) -> None:
        """Ask the client to open its next streams elsewhere. Those under way go on, and so does one in flight."""
        await self.send(RawData(data=GoAwayFrame(0, last_stream_id=_LAST_STREAM).serialize()))

    async def handle(self, event: Event) -> None:
        await super().handle(event)
        if isinstance(event, Closed):
            # Applications that wait for room in a buffer would wait for ever.
            for buffer in self.stream_buffers.values():
                await buffer.close()

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, EndBody):
            self._answered.add(event.stream_id)
        elif isinstance(event, StreamClosed):
            await self._reset_unfinished(event.stream_id)
        await super().stream_send(event)

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.DataReceived):
                await self._receive(event)
            elif isinstance(event, h2.events.RequestReceived) and self.context.terminated.is_set():
                self._reset(event.stream_id, ErrorCodes.REFUSED_STREAM)
            else:
                await super()._handle_events([event])
        await self._flush()

    async def _receive(self, event: h2.events.DataReceived) -> None:
        """Hand data to its application, and the room it took back to the client once that has read it."""
        stream_id, size = event.stream_id, event.flow_controlled_length
        stream = self.streams.get(stream_id)
        inbox = getattr(stream, "app_put", None)
        if stream is None or stream.closed or not isinstance(inbox, Inbox):
            self._acknowledge(stream_id, size)
            return
        self._acknowledge(stream_id, size - len(event.data))
        inbox.taken = partial(self._taken, stream_id)
        await stream.handle(Body(stream_id=stream_id, data=event.data))

    def _taken(self, stream_id: int, size: int) -> None:
        self._acknowledge(stream_id, size)
        # Most of the time the window is not worth an update yet.
        if not self.closed and (data := self.connection.data_to_send()):
            self.task_group.spawn(self.send, RawData(data=data))

    def _acknowledge(self, stream_id: int, size: int) -> None:
        try:
            self.connection.acknowledge_received_data(size, stream_id)
        except ProtocolError:
            return

    async def _reset_unfinished(self, stream_id: int) -> None:
        """An application stopped in the middle of its answer: the client would wait for the rest."""
        if stream_id in self._answered:
            self._answered.discard(stream_id)
        elif (buffer := self.stream_buffers.get(stream_id)) is not None:
            self._reset(stream_id, ErrorCodes.INTERNAL_ERROR)
            await self._flush()
            await buffer.close()

    def _reset(self, stream_id: int, code: ErrorCodes) -> None:
        try:
            self.connection.reset_stream(stream_id, code)
        except ProtocolError:
            return


class Protocol(ProtocolWrapper):
    """Whichever of the two the client speaks."""

    def __init__(self, alpn_protocol: str | None, *arguments: Any) -> None:
        self._arguments = arguments
        self.protocol: Http1 | Http2 = (Http2 if alpn_protocol == "h2" else Http1)(*arguments)

    async def handle(self, event: Event) -> None:
        try:
            await self.protocol.handle(event)
        except PriorKnowledgeError:
            await cast("Http1", self.protocol).refuse(505)
        except H2ProtocolAssumedError as error:
            await self._become_http2(error.data)
        except H2CProtocolRequiredError as error:
            await self._become_http2(error.data, error.headers, error.settings)

    async def _become_http2(
        self, data: bytes, headers: list[tuple[bytes, bytes]] | None = None, settings: bytes | None = None
    ) -> None:
        self.protocol = Http2(*self._arguments)
        await self.protocol.initiate(headers, settings)
        if data:
            await self.protocol.handle(RawData(data=data))


class Connection(TCPServer):
    """One accepted connection, from its first byte to its last."""

    context: ServerContext
    protocol: Protocol

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._idle = IdleTimer(self.loop, self.config.keep_alive_timeout, self._end)

    async def run(self) -> None:
        try:
            tasks = Tasks(self.loop)
            async with tasks:
                self._task_group = tasks
                self.protocol = self._made_protocol(tasks)
                await self.protocol.initiate()
                self._idle.begin()
                await self._read_data()
        except* OSError:
            pass  # The client is gone, which whoever served it has been told.
        finally:
            self._idle.cancel()
            await self._close()

    async def protocol_send(self, event: Event) -> None:
        if not isinstance(event, Updated):
            await super().protocol_send(event)
        elif not event.idle:
            self._idle.end()
        else:
            self._idle.begin()
            if self.context.terminated.is_set():
                self._end()

    def end_if_idle(self) -> None:
        """Close the connection if nothing is under way on it."""
        if self._idle.is_idle:
            self._end()

    def _end(self) -> None:
        self._task_group.spawn(self._initiate_server_close)

    async def goodbye(self) -> None:
        """Tell the client that this server stops. HTTP/1.1 says so with its next answer."""
        wrapper = getattr(self, "protocol", None)
        if isinstance(wrapper, Protocol) and isinstance(wrapper.protocol, Http2):
            await wrapper.protocol.goodbye()

    def abort(self) -> None:
        """Cut the connection, whatever is still to be sent."""
        self.writer.transport.abort()

    def _made_protocol(self, tasks: Tasks) -> Protocol:
        socket = self.writer.get_extra_info("socket")
        tls = self.writer.get_extra_info("ssl_object")
        return Protocol(
            tls.selected_alpn_protocol() if tls is not None else None,
            self.app,
            self.config,
            self.context,
            tasks,
            ConnectionState(self.state),
            tls is not None,
            _plain(parse_socket_addr(socket.family, socket.getpeername())),
            _plain(parse_socket_addr(socket.family, socket.getsockname())),
            self.protocol_send,
        )


def _plain(address: tuple[str, int] | None) -> tuple[str, int] | None:
    """An IPv4 address that came to a socket for both kinds, as IPv4 writes it."""
    if address is None:
        return None
    return address[0].removeprefix("::ffff:") if "." in address[0] else address[0], address[1]
