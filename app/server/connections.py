"""One client's connection, from its first byte to its last: in HTTP/1.1 or HTTP/2, and idle only for so long.

HTTP/2 without TLS is spoken only where it was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hypercorn.events import Closed, RawData, Updated
from hypercorn.typing import ConnectionState

from app.server import http1
from app.server.http2 import Http2, ServerContext, Tasks
from app.server.idle import IdleTimer

if TYPE_CHECKING:
    import asyncio

    from hypercorn.config import Config
    from hypercorn.events import Event

    from app.server.bytestream import ByteStream


class Connection:
    """Serves the application to one client."""

    def __init__(
        self,
        app: http1.Application,
        loop: asyncio.AbstractEventLoop,
        config: Config,
        context: ServerContext,
        stream: ByteStream,
    ) -> None:
        self._app = app
        self._loop = loop
        self._config = config
        self._context = context
        self._stream = stream
        self._http2: Http2 | None = None
        self._idle = IdleTimer(loop, config.keep_alive_timeout, stream.shut)

    async def run(self) -> None:
        """Serve until one side has had enough."""
        self._idle.begin()
        try:
            tls = self._stream.fact("ssl_object")
            if tls is not None and tls.selected_alpn_protocol() == "h2":
                await self._serve_http2()
            else:
                await self._serve_http1()
        except ConnectionError:
            pass  # The client is gone, which whoever served it has been told.
        finally:
            self._idle.cancel()
            await self._stream.close()

    def end_if_idle(self, patience_seconds: float) -> None:
        """Close the connection if nothing is under way on it.

        With TLS that waits for the client's own goodbye, which whoever keeps the connection for later may never send:
        not for longer than `patience_seconds`.
        """
        if self._idle.is_idle:
            self._stream.shut()
            if self._is_tls:
                self._loop.call_later(patience_seconds, self._stream.abort)

    async def goodbye(self) -> None:
        """Tell the client that this server stops. HTTP/1.1 says so with its next answer."""
        if self._http2 is not None:
            await self._http2.goodbye()

    def abort(self) -> None:
        """Cut the connection, whatever is still to be sent."""
        self._stream.abort()

    async def _serve_http1(self) -> None:
        situation = http1.Situation(
            app=self._app,
            scheme="https" if self._is_tls else "http",
            client=self._address("peername"),
            server=self._address("sockname"),
            h2c=self._context.h2c and not self._is_tls,
            date=lambda: self._config.response_headers("h11")[0],
            is_draining=lambda: self._context.draining,
            began=self._idle.end,
            ended=self._ended,
        )
        try:
            await http1.serve(self._stream, situation)
        except http1.Upgrade as upgrade:
            await self._serve_http2(upgrade)

    def _ended(self) -> bool:
        self._idle.begin()
        return not self._context.terminated.is_set()

    async def _serve_http2(self, upgrade: http1.Upgrade | None = None) -> None:
        tasks = Tasks(self._loop)
        async with tasks:
            self._http2 = Http2(
                self._app,
                self._config,
                self._context,
                tasks,
                ConnectionState({}),
                self._is_tls,
                self._address("peername"),
                self._address("sockname"),
                self._send,
            )
            if upgrade is None:
                await self._http2.initiate()
            else:
                await self._http2.initiate(upgrade.headers, upgrade.settings)
            data = upgrade.data if upgrade is not None else b""
            while data or (data := await self._stream.read()):
                await self._http2.handle(RawData(data))
                data = b""
            await self._http2.handle(Closed())

    async def _send(self, event: Event) -> None:
        """What hypercorn asks of a connection."""
        if isinstance(event, RawData):
            try:
                await self._stream.send(event.data)
            except ConnectionError:
                assert self._http2 is not None
                await self._http2.handle(Closed())
        elif isinstance(event, Updated):
            if not event.idle:
                self._idle.end()
            elif not self._ended():
                self._stream.shut()
        else:
            self._stream.shut()

    @property
    def _is_tls(self) -> bool:
        return self._stream.fact("ssl_object") is not None

    def _address(self, name: str) -> tuple[str, int] | None:
        """`peername` or `sockname`; None for a Unix socket, which has none."""
        address = self._stream.fact(name)
        if not isinstance(address, tuple):
            return None
        host, port = cast("tuple[str, int]", address[:2])
        # IPv4 comes to a socket for both kinds in IPv6's clothes.
        return host.removeprefix("::ffff:") if "." in host else host, port
