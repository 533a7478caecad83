"""A worker process: builds the registry and serves it on the socket that it was handed.

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
from app.server import choices
from app.server.channel import DRAIN, FAILED, LINE_BYTES_MAX, PING, PONG, READY, Channel
from app.server.serving import serve

if TYPE_CHECKING:
    from app.server.channel import Order

# For what is left to do after the last request, such as closing database connections.
CLOSE_SECONDS: Final = 5.0

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
        await _serve(order, settings, channel)
    except Exception as error:  # noqa: BLE001  (the supervisor is who can do something about it)
        _log.debug("the worker failed", exc_info=error)
        channel.say(FAILED, str(error) or type(error).__name__)
        await channel.flush()
        return 1
    return 0


async def _serve(order: Order, settings: Settings, channel: Channel) -> None:
    manner = choices.manner(settings)
    if order.metrics:
        metrics.share(Path(order.metrics), order.place)
    assembly = await importlib.import_module(order.wiring).assemble(settings, metrics.Metrics())
    stopped = asyncio.create_task(_obey(channel))
    try:
        await serve(
            assembly.app,
            [socket.socket(fileno=order.listener)],
            manner,
            stop=lambda: asyncio.wait([stopped]),
            started=lambda: channel.say(READY),
        )
    finally:
        async with asyncio.timeout(CLOSE_SECONDS):
            await assembly.close()
    if order.metrics and not stopped.result():
        # Nobody else is left to do it.
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
