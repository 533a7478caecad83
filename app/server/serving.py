"""Serving an ASGI application on sockets until told to stop, and stopping without losing an answer."""

from __future__ import annotations

import asyncio
import logging
import ssl
import sys
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final

from hypercorn.config import Config

from app.server.bytestream import ByteStream
from app.server.connections import Connection
from app.server.heads import HEAD_BYTES_MAX
from app.server.http2 import ServerContext
from app.server.sockets import BACKLOG

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from app.server.manner import Manner

KEEP_ALIVE_SECONDS: Final = 75.0
# After the goodbye: long enough for a request that a client has already sent on an idle connection.
GOODBYE_SECONDS: Final = 0.5
# What an idle TLS connection has for the last bytes of an answer, and for the client's goodbye.
PARTING_SECONDS: Final = 2.0
TLS_HANDSHAKE_SECONDS: Final = 60.0

_log = logging.getLogger("registry.server")


async def serve(
    app: Any,
    sockets: Iterable[socket.socket],
    manner: Manner,
    *,
    stop: Callable[[], Awaitable[object]],
    started: Callable[[], None] | None = None,
) -> None:
    """Serve `app` on `sockets` until `stop` returns; then answer what is under way and close. Closes the sockets."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_report)
    context = ServerContext(h2c=manner.h2c)
    config = _config()
    open_connections: dict[asyncio.Task[Any], Connection] = {}

    def opened(stream: ByteStream) -> None:
        connection = Connection(app, loop, config, context, stream)
        task = loop.create_task(_run(connection))
        open_connections[task] = connection
        task.add_done_callback(open_connections.pop)

    servers = [
        await loop.create_server(
            lambda: ByteStream(opened),
            sock=listening,
            backlog=BACKLOG,
            ssl=manner.tls,
            ssl_handshake_timeout=TLS_HANDSHAKE_SECONDS if manner.tls else None,
        )
        for listening in sockets
    ]
    try:
        if started is not None:
            started()
        await stop()
    finally:
        for server in servers:
            server.close()
    await _drain(context, open_connections, manner.drain_seconds)


async def _run(connection: Connection) -> None:
    try:
        await connection.run()
    except asyncio.CancelledError:
        connection.abort()  # Cut off by us.
    except Exception:  # noqa: BLE001  (a fault of ours, but of this connection alone)
        _log.exception("a connection failed")


async def _drain(
    context: ServerContext, connections: Mapping[asyncio.Task[Any], Connection], seconds: float
) -> None:
    """End the connections: with a goodbye, then the idle ones, then those whose time is up."""
    if not connections:
        return
    context.draining = True
    goodbyes = [asyncio.create_task(connection.goodbye()) for connection in connections.values()]
    goodbye_seconds = min(GOODBYE_SECONDS, seconds)
    await asyncio.wait(list(connections), timeout=goodbye_seconds)
    await context.terminated.set()
    left_seconds = seconds - goodbye_seconds
    for connection in connections.values():
        connection.end_if_idle(min(PARTING_SECONDS, left_seconds / 2))
    if connections:
        await asyncio.wait(list(connections), timeout=left_seconds)
    if connections:
        _log.warning(
            "cut %d connections off, which were still busy after %g seconds", len(connections), seconds
        )
        for task in list(connections):
            task.cancel()
        await asyncio.wait(list(connections), timeout=1)
    for goodbye in goodbyes:
        goodbye.cancel()


class _Config(Config):
    """hypercorn's settings. The date of an answer is written anew once a second, not for each answer."""

    _second = 0
    _date = (b"date", b"")

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        del protocol
        if (second := int(time.time())) != self._second:
            self._second = second
            self._date = (b"date", formatdate(second, usegmt=True).encode())
        return [self._date]


def _config() -> Config:
    config = _Config()
    config.accesslog = None
    config.errorlog = _log
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    config.keep_alive_max_requests = sys.maxsize
    config.h2_max_header_list_size = HEAD_BYTES_MAX
    config.max_app_queue_size = 10
    return config


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What happened to nobody in particular: failed handshakes are everyday life, the rest is a fault."""
    error = context.get("exception")
    if isinstance(error, (ssl.SSLError, ConnectionError)):
        _log.debug("%s: %s", context.get("message"), error)
    else:
        _log.error("%s", context.get("message"), exc_info=error)
    del loop
