"""A worker process: builds the registry and serves it on the socket that it was handed, or runs the collectors.

Its only master is the supervisor: signals that a terminal or a service manager sends to everybody at once do
nothing here, and when the supervisor is gone, for whatever reason, the worker finishes its requests and goes too.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import select
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop

from app.config import Settings
from app.runtime import metrics
from app.runtime.gc_metrics import GcMetrics
from app.server import choices
from app.server.channel import DRAIN, FAILED, LINE_BYTES_MAX, PING, PONG, READY, Channel

if TYPE_CHECKING:
    from app.server.channel import Order

# For what is left to do after the last request, such as closing database connections.
CLOSE_SECONDS: Final = 5.0
# Requests come first where processors are short.
NICENESS: Final = 10

_log = logging.getLogger("registry.server")


def main() -> int:
    """Work until there is nothing more to do. Returns the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    return uvloop.run(_work(socket.socket(fileno=0)))


async def _work(supervisor: socket.socket) -> int:
    channel = Channel(*await asyncio.open_unix_connection(sock=supervisor, limit=LINE_BYTES_MAX))
    order = await channel.ordered()
    if order is None:
        return 0
    settings = Settings.model_validate_json(order.settings)
    choices.configure_logs(settings)
    _outlive_by(choices.drain_seconds(settings) + CLOSE_SECONDS + 1)
    try:
        if order.metrics:
            metrics.share(Path(order.metrics), order.place)
        if order.listener is None:
            await _collect(order, settings, channel)
        else:
            await _serve(order, order.listener, settings, channel)
    except Exception as error:  # noqa: BLE001  (the supervisor is who can do something about it)
        _log.debug("the worker failed", exc_info=error)
        channel.say(FAILED, str(error) or type(error).__name__)
        await channel.flush()
        return 1
    return 0


async def _serve(order: Order, listener: int, settings: Settings, channel: Channel) -> None:
    # With it comes all of the HTTP server, which the collectors have no use for.
    from app.server.serving import serve  # noqa: PLC0415

    manner = choices.manner(settings)
    assembly = await importlib.import_module(order.wiring).assemble(settings, metrics.Metrics())
    stopped = asyncio.create_task(_obey(channel))
    try:
        await serve(
            assembly.app,
            [socket.socket(fileno=listener)],
            manner,
            stop=lambda: asyncio.wait([stopped]),
            started=lambda: channel.say(READY),
        )
    finally:
        async with asyncio.timeout(CLOSE_SECONDS):
            await assembly.close()
    _tidy(order, stopped)


async def _collect(order: Order, settings: Settings, channel: Channel) -> None:
    os.nice(NICENESS)
    crew = await importlib.import_module(order.wiring).open_crew(settings, GcMetrics())
    stopped = asyncio.create_task(_obey(channel))
    stopping = asyncio.Event()
    stopped.add_done_callback(lambda _: stopping.set())
    channel.say(READY)
    try:
        await crew.run(stopping)
    finally:
        async with asyncio.timeout(CLOSE_SECONDS):
            await crew.close()
    _tidy(order, stopped)


def _tidy(order: Order, stopped: asyncio.Task[bool]) -> None:
    """Where the supervisor is gone, nobody else is left to remove what the processes count in."""
    if order.metrics and stopped.done() and not stopped.result():
        shutil.rmtree(order.metrics, ignore_errors=True)


async def _obey(channel: Channel) -> bool:
    """Wait until it is time to stop. Returns whether the supervisor said so; otherwise it is gone."""
    async for message in channel.messages():
        if message.word == PING:
            channel.say(PONG)
        elif message.word == DRAIN:
            return True
    return False


def _outlive_by(seconds: float) -> None:
    """See to it that this process ends soon after the supervisor, even if it hangs."""

    def watch() -> None:
        poll = select.poll()
        poll.register(0, 0)
        poll.poll()
        time.sleep(seconds)
        os._exit(1)

    threading.Thread(target=watch, name="watch", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
