"""One worker's place: whoever dies in it is replaced, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import app
from app.server.channel import DRAIN, FAILED, LINE_BYTES_MAX, PING, PONG, READY, Channel, Order
from app.server.errors import ServerError

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Callable

# From its start until it serves; a database may take a minute to answer.
START_SECONDS: Final = 120.0
# Beyond the time that requests have: for what a worker does before and after.
STOP_SECONDS: Final = 15.0
PING_SECONDS: Final = 4.0
# A worker that served this long has not failed at starting.
STEADY_SECONDS: Final = 10.0
_DELAY_SECONDS_FIRST: Final = 0.1
_DELAY_SECONDS_MAX: Final = 5.0

_log = logging.getLogger("registry.server")


class Seat:
    """Keeps a worker process on its order. `ready` is set while one serves; `left` is told when one has ended."""

    def __init__(self, order: Order, *, left: Callable[[int], None]) -> None:
        self.ready = asyncio.Event()
        self._order = order
        self._left = left
        self._stopping = asyncio.Event()
        self._process: Process | None = None
        self._channel: Channel | None = None
        self._pong = asyncio.Event()
        self._reason = ""

    @property
    def name(self) -> str:
        """What people call who sits here; workers are counted from 1."""
        return "collectors" if self._order.listener is None else f"worker {self._order.place + 1}"

    async def keep(self) -> None:
        """Keep a worker here until `stop`. Raises ServerError if the first one does not get to serve."""
        delay, served = 0.0, False
        while not self._stopping.is_set():
            began = asyncio.get_running_loop().time()
            self._reason = ""
            status = await self._run()
            served = served or self.ready.is_set()
            self.ready.clear()
            self._left(self._order.place)
            if self._stopping.is_set():
                return
            reason = self._reason or _ending(status)
            if not served:
                raise ServerError(f"the registry cannot start: {reason}")
            lived = asyncio.get_running_loop().time() - began
            delay = 0.0 if lived >= STEADY_SECONDS else _longer(delay)
            _log.error("%s ended: %s; the next one starts in %g seconds", self.name, reason, delay)
            await self._pause(delay)

    def stop(self, seconds: float) -> None:
        """Have the worker finish its requests, which may take it `seconds`, and leave the seat empty."""
        self._stopping.set()
        if self._channel is not None:
            self._channel.say(DRAIN)
        asyncio.get_running_loop().call_later(seconds + STOP_SECONDS, self.kill)

    def kill(self) -> None:
        """End the worker at once."""
        self._stopping.set()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def answers(self) -> bool:
        """Whether the worker's event loop turns."""
        if self._channel is None:
            return False
        self._pong.clear()
        self._channel.say(PING)
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self._pong.wait()
        except TimeoutError:
            return False
        return True

    async def _run(self) -> int:
        """Run one worker from its start to its end. Returns its exit status."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await self._spawn(theirs)
        self._process = process
        channel = Channel(*await asyncio.open_unix_connection(sock=ours, limit=LINE_BYTES_MAX))
        self._channel = channel
        timer = asyncio.get_running_loop().call_later(START_SECONDS, self._give_up)
        try:
            channel.order(self._order)
            if self._stopping.is_set():
                channel.say(DRAIN)
            async for message in channel.messages():
                if message.word == READY:
                    timer.cancel()
                    _log.info("%s (process %d) is ready", self.name, process.pid)
                    self.ready.set()
                elif message.word == PONG:
                    self._pong.set()
                elif message.word == FAILED:
                    self._reason = message.reason
            async with asyncio.timeout(STOP_SECONDS):
                return await process.wait()
        except TimeoutError:
            self._reason = "it did not end by itself"
            return -signal.SIGKILL
        finally:
            timer.cancel()
            self._channel = None
            channel.close()
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _spawn(self, channel: socket.socket) -> Process:
        root = str(Path(app.__file__).parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        return await asyncio.create_subprocess_exec(
            # The name is for whoever looks at the list of processes.
            *(sys.executable, "-P", "-m", "app.server.worker", self.name),
            stdin=channel.fileno(),
            pass_fds=() if self._order.listener is None else (self._order.listener,),
            env={**os.environ, "PYTHONPATH": path},
            # Ctrl-C in a terminal is for the supervisor alone.
            start_new_session=True,
        )

    def _give_up(self) -> None:
        self._reason = f"it was not ready after {START_SECONDS:g} seconds"
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


def _longer(delay: float) -> float:
    return min(max(2 * delay, _DELAY_SECONDS_FIRST), _DELAY_SECONDS_MAX)


def _ending(status: int) -> str:
    if status >= 0:
        return f"a worker process ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"a worker process was ended by {name}"
