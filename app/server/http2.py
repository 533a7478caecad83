"""HTTP/2: hypercorn's protocol, with what a registry needs of it beyond that.

- A request that nobody reads holds up no other; an answer cut short is seen to be; an application whose client is gone
  is told so when it sends.
- A server that stops says goodbye first (GOAWAY) and finishes what is under way.
- A client that grants no room for what it asked for holds little memory, and is cut off after a while.
- No client makes the others wait: what it sends is taken in slices, however much work a slice is.
- Priorities are ignored, as RFC 9113 §5.3 has it, and nothing but HTTP is spoken: no CONNECT, no WebSocket.

These classes know hypercorn's inside (0.18); the tests of this package show whether a newer one still fits.
"""
# hypercorn declares its attributes wider than they are here, and some of its functions only in part.
# pyright: reportIncompatibleVariableOverride=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import h2.events
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.events import Closed, RawData
from hypercorn.protocol.events import Body, EndBody, Request, StreamClosed
from hypercorn.protocol.h2 import BufferCompleteError, H2Protocol, StreamBuffer
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.utils import filter_pseudo_headers
from hyperframe.frame import GoAwayFrame
from priority.priority import DeadlockError, MissingStreamError

from app.server.inbox import Inbox

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from hypercorn.config import Config
    from hypercorn.events import Event
    from hypercorn.protocol.events import Event as StreamEvent

# What a client may send ahead of the application: on one stream, and on all of a connection together. HTTP/2's own
# 64 KiB would hold an upload to 64 KiB per round trip.
STREAM_WINDOW_BYTES: Final = 1024 * 1024
CONNECTION_WINDOW_BYTES: Final = 4 * STREAM_WINDOW_BYTES
# How long a piece of an answer may wait for its client to grant room for it.
STALL_SECONDS: Final = 300.0
# Of an answer, what may wait for the client to grant room for it.
BUFFER_BYTES_MAX: Final = 64 * 1024
# What is taken in of a client's frames before others have their turn: some thousand of the smallest.
SLICE_BYTES: Final = 16 * 1024
# The compression table of answers' headers: HTTP/2's own size, even if the client allows more.
TABLE_BYTES_MAX: Final = 4096
# Requests that are worked on at a time. A client may open half as many; more come of one that resets its streams as
# fast as it opens them (CVE-2023-44487).
APPLICATIONS_MAX: Final = 200
_FRAME_HEAD_BYTES: Final = 9
_DEFAULT_WINDOW_BYTES: Final = 65_535
_LAST_STREAM: Final = 2**31 - 1


class ServerContext(WorkerContext):
    """What the connections of one server share. `terminated` cuts idle ones; `draining` only says goodbye."""

    def __init__(self, *, h2c: bool) -> None:
        super().__init__(None)
        self.h2c = h2c
        self.draining = False


class Tasks(TaskGroup):
    """The tasks of one connection: its applications, each reading from an inbox. `running` counts them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.running = 0

    async def spawn_app(self, app: Any, config: Config, scope: Any, send: Any) -> Any:
        inbox = Inbox(config.max_app_queue_size)
        self.running += 1
        self.spawn(self._run, _run_app(app, config, scope, inbox, send))
        return inbox

    async def _run(self, application: Coroutine[Any, Any, None]) -> None:
        try:
            await application
        finally:
            self.running -= 1


async def _run_app(app: Any, config: Config, scope: Any, inbox: Inbox, send: Any) -> None:
    async def send_if_there(message: Any) -> None:
        if inbox.is_over:
            raise ConnectionResetError("the client is gone")
        await send(message)

    try:
        await app(scope, inbox.get, send_if_there)
    except ConnectionError:
        pass  # of the client's connection: nobody is left to be told
    except Exception:  # noqa: BLE001  (logged; the client gets a 500 or a cut connection)
        await config.log.exception("the application failed")
    finally:
        await send(None)


class _Turns:
    """Streams with something to send, one after the other: all that is used of hypercorn's tree of priorities."""

    def __init__(self) -> None:
        self._known: set[int] = set()
        self._waiting: OrderedDict[int, None] = OrderedDict()

    def insert_stream(self, stream_id: int) -> None:
        self._known.add(stream_id)

    def remove_stream(self, stream_id: int) -> None:
        self._known.discard(stream_id)
        self._waiting.pop(stream_id, None)

    def unblock(self, stream_id: int) -> None:
        if stream_id not in self._known:
            raise MissingStreamError(stream_id)
        self._waiting.setdefault(stream_id)

    def block(self, stream_id: int) -> None:
        self._waiting.pop(stream_id, None)

    def __next__(self) -> int:
        """Whose turn it is; after it the stream is last in the line."""
        if not self._waiting:
            raise DeadlockError
        stream_id = next(iter(self._waiting))
        self._waiting.move_to_end(stream_id)
        return stream_id


class _Buffer(StreamBuffer):
    """What is to be sent on one stream. hypercorn's own takes any amount while the client's window is shut."""

    async def push(self, data: bytes) -> None:
        if self._complete:
            raise BufferCompleteError
        self.buffer.extend(data)
        await self._is_empty.clear()
        if len(self.buffer) >= BUFFER_BYTES_MAX:
            await self._paused.clear()
            await self._paused.wait()

    async def pop(self, max_length: int) -> bytes:
        data = bytes(self.buffer[:max_length])
        del self.buffer[: len(data)]
        if len(self.buffer) < BUFFER_BYTES_MAX:
            await self._paused.set()
        if not self.buffer:
            await self._is_empty.set()
        return data


class Http2(H2Protocol):
    """HTTP/2."""

    context: ServerContext
    task_group: Tasks

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._answered: set[int] = set()
        self.priority: Any = _Turns()
        self.connection.local_settings.update(
            {SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES, SettingCodes.ENABLE_CONNECT_PROTOCOL: 0}
        )
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
        if isinstance(event, RawData):
            await self._take(event.data)
            return
        await super().handle(event)
        if isinstance(event, Closed):
            # Applications that wait for room in a buffer would wait for ever.
            for buffer in self.stream_buffers.values():
                await buffer.close()

    async def _take(self, data: bytes) -> None:
        """Take in what has come, a slice at a time."""
        for at in range(0, len(data), SLICE_BYTES):
            if at:
                await asyncio.sleep(0)
            if self.closed:
                return
            await super().handle(RawData(data=data[at : at + SLICE_BYTES]))
            if self._is_overlong():
                self.connection.close_connection(ErrorCodes.FRAME_SIZE_ERROR)
                await self._flush()
                await self.send(Closed())
                return

    def _is_overlong(self) -> bool:
        """Whether a frame is announced that is longer than allowed. h2 looks when all of it has come, up to 16 MiB."""
        frames: Any = self.connection.incoming_buffer
        waiting: bytearray = frames._data  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        if len(waiting) < _FRAME_HEAD_BYTES:
            return False
        return int.from_bytes(waiting[:3], "big") > self.connection.max_inbound_frame_size

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, EndBody):
            self._answered.add(event.stream_id)
        elif isinstance(event, StreamClosed):
            await self._reset_unfinished(event.stream_id)
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await super().stream_send(event)
        except TimeoutError:
            self._reset(event.stream_id, ErrorCodes.CANCEL)
            raise ConnectionResetError("the client takes nothing of what it asked for") from None

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.DataReceived):
                await self._receive(event)
            elif isinstance(event, h2.events.RequestReceived) and self.context.terminated.is_set():
                self._reset(event.stream_id, ErrorCodes.REFUSED_STREAM)
            elif isinstance(event, h2.events.PriorityUpdated):
                continue
            else:
                await super()._handle_events([event])
            if isinstance(event, h2.events.RemoteSettingsChanged):
                encoder: Any = self.connection.encoder
                encoder.header_table_size = min(encoder.header_table_size, TABLE_BYTES_MAX)
        await self._flush()

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        stream_id = request.stream_id
        headers = dict(request.headers)
        method, path = headers.get(b":method", b""), headers.get(b":path", b"")
        if method == b"CONNECT" or b":protocol" in headers or not (method + path).isascii():
            status = 405 if method == b"CONNECT" else 400
            refusal = [(b":status", b"%d" % status), (b"content-length", b"0")]
            self.connection.send_headers(stream_id, refusal, end_stream=True)
            self._reset(stream_id, ErrorCodes.NO_ERROR)
            return
        if self.task_group.running >= APPLICATIONS_MAX:
            self.connection.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            await self._flush()
            await self.send(Closed())
            return
        stream = HTTPStream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            stream_id,
        )
        self.streams[stream_id] = stream
        self.stream_buffers[stream_id] = _Buffer(self.context.event_class)
        self.priority.insert_stream(stream_id)
        await stream.handle(
            Request(
                stream_id=stream_id,
                headers=filter_pseudo_headers(request.headers),
                http_version="2",
                method=method.decode(),
                raw_path=path,
                state=self.connection_state,
            )
        )

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
