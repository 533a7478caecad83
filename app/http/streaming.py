"""A response whose body comes in blocks, and stops when the client does."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from starlette.types import Receive, Scope, Send


class StreamedResponse(Response):
    """Sends `content` block by block; memory holds one block.

    The first block is read before the status goes out, so that storage which cannot be read is an error, not a
    truncated 200. When the client is gone, `send` says so (ASGI 2.4), and the rest is not read.
    """

    def __init__(self, content: AsyncGenerator[bytes, None], status: int, headers: Mapping[str, str]) -> None:
        super().__init__(status_code=status, headers=headers)
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        async with aclosing(self._content) as blocks:
            block = await anext(blocks, b"")
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            more = True
            while more:
                following = await anext(blocks, b"")
                more = bool(following)
                await send({"type": "http.response.body", "body": block, "more_body": more})
                block = following
