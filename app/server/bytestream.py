"""A client's bytes, over TCP, TLS or a Unix socket: what has come and nobody has read, and what is still to be sent.

In the place of asyncio's streams, which copy everything twice and hand out what they were asked for, not what is there.
Both directions are bounded. A client that takes nothing of what it asked for is cut off.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# What may wait to be read before the client is held up.
UNREAD_BYTES_MAX: Final = 512 * 1024
# A client that is being sent to must take this much in this time.
STALL_SECONDS: Final = 60.0
STALL_BYTES: Final = 64 * 1024


class ByteStream(asyncio.Protocol):
    """One connection's bytes. `opened` is called with it once it is connected."""

    def __init__(self, opened: Callable[[ByteStream], None]) -> None:
        self._opened = opened
        self._transport: Any = None
        self._blocks: deque[bytes] = deque()
        self._unread_bytes = 0
        self._held_up = False
        # Set while there is something to read, or nothing will come any more.
        self._readable = asyncio.Event()
        self._over = asyncio.Event()
        self._lost = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come: the client has ended its side, or is gone."""
        return self._over.is_set()

    @property
    def is_lost(self) -> bool:
        """Whether nothing more can be sent."""
        return self._lost.is_set()

    def fact(self, name: str) -> Any:
        """What asyncio knows about the connection (BaseTransport.get_extra_info)."""
        return self._transport.get_extra_info(name)

    async def read(self) -> bytes:
        """All that has come since the last call; waits for something. Empty once it is over."""
        if not self._blocks:
            await self._readable.wait()
        if not self._blocks:
            return b""
        data = self._blocks[0] if len(self._blocks) == 1 else b"".join(self._blocks)
        self._blocks.clear()
        self._unread_bytes = 0
        if not self.is_over:
            self._readable.clear()
            if self._held_up:
                self._held_up = False
                self._transport.resume_reading()
        return data

    async def over(self) -> None:
        """Wait until nothing more will come."""
        await self._over.wait()

    async def send(self, data: bytes) -> None:
        """Send all of `data`; waits while much is unsent. Raises ConnectionError when the client is gone."""
        if self.is_lost:
            raise ConnectionResetError("the client is gone")
        self._transport.write(data)
        if not self._writable.is_set():
            await self._until(self._writable)
            if self.is_lost:
                raise ConnectionResetError("the client is gone")

    def end(self) -> None:
        """Say that nothing more will be sent, where the transport can say so."""
        if not self.is_lost and self._transport.can_write_eof():
            self._transport.write_eof()

    def abort(self) -> None:
        """Cut the connection, whatever is still to be sent."""
        self._transport.abort()

    def shut(self) -> None:
        """Send what is still to be sent, then close."""
        # To close twice breaks asyncio's own TLS, which the debug address has.
        if not self._transport.is_closing():
            self._transport.close()

    async def close(self) -> None:
        """As `shut`; returns when it is done."""
        self.shut()
        await self._until(self._lost)

    async def _until(self, event: asyncio.Event) -> None:
        """Wait for `event`, which the loss of the connection sets, too; cut a client off that takes next to nothing."""
        unsent = self._transport.get_write_buffer_size()
        while not await self._within_patience(event):
            unsent, before = self._transport.get_write_buffer_size(), unsent
            if before - unsent < STALL_BYTES:
                self.abort()

    async def _within_patience(self, event: asyncio.Event) -> bool:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await event.wait()
        except TimeoutError:
            return False
        return True

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._opened(self)

    def data_received(self, data: bytes) -> None:
        self._blocks.append(data)
        self._unread_bytes += len(data)
        self._readable.set()
        if self._unread_bytes > UNREAD_BYTES_MAX and not self._held_up:
            self._held_up = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._readable.set()
        self._over.set()
        # Answers can still be sent, but for TLS, which has no half of a connection.
        return self._transport.get_extra_info("ssl_object") is None

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        for event in (self._readable, self._over, self._lost, self._writable):
            event.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()
