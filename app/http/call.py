"""One request on its way through the API: what the route table has parsed, and the body as a stream."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import cached_property
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from starlette.datastructures import Headers

from app.domain.errors import ClientGone, ClientStalled
from app.domain.limits import BODY_BYTES_PER_SECOND_MIN, BODY_PATIENCE_SECONDS, DRAIN_BYTES_MAX, DRAIN_SECONDS
from app.http.wire import Origin, Query, peer_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from starlette.types import Message, Receive, Scope

    from app.domain.access import Caller
    from app.domain.names import RepositoryName
    from app.services.issue_token import IssueToken
    from app.services.listings import Listings
    from app.services.pull import Pull
    from app.services.push_blob import PushBlob
    from app.services.push_manifest import PushManifest
    from app.services.remove import Remove


async def no_tokens() -> IssueToken | None:
    """The built-in token service of a registry that has none."""
    return None


@dataclass(frozen=True)
class Services:
    """The use cases that handlers call."""

    pull: Pull
    push_blob: PushBlob
    push_manifest: PushManifest
    remove: Remove
    listings: Listings
    tokens: Callable[[], Awaitable[IssueToken | None]] = no_tokens


@dataclass(frozen=True)
class ApiRules:
    """What the operator decided about the API: values, not settings."""

    origin: Origin = field(default_factory=Origin)
    prefix: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    delete_enabled: bool = False
    read_only: bool = False
    catalog_entries_max: int = 1000
    tags_max: int = 1000
    body_patience_seconds: float = BODY_PATIENCE_SECONDS
    catalog_open: bool = False
    # What a request's failed logins are counted under.
    login_bucket: Callable[[Mapping[str, Any]], str] = peer_of


class RequestBody:
    """The request's body, read once, in the blocks in which it arrives.

    A client is waited for as long as it sends something: what arrives buys it more patience, up to what it began with.
    The time that the registry takes to store a block is not the client's.
    """

    def __init__(self, receive: Receive, patience_seconds: float = BODY_PATIENCE_SECONDS) -> None:
        self._receive = receive
        self._patience_seconds = patience_seconds
        self._patience_left = patience_seconds
        self._finished = False
        self.received = 0

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The body. Raises ClientGone if the client leaves before its end, ClientStalled if it keeps us waiting."""
        while not self._finished:
            message = await self._next()
            if message["type"] == "http.disconnect":
                self._finished = True
                raise ClientGone
            self._finished = not message.get("more_body", False)
            if block := message.get("body", b""):
                self.received += len(block)
                yield block

    async def _next(self) -> Message:
        began = monotonic()
        try:
            async with asyncio.timeout(self._patience_left):
                message = await self._receive()
        except TimeoutError:
            self._finished = True
            raise ClientStalled from None
        bought = len(message.get("body", b"")) / BODY_BYTES_PER_SECOND_MIN
        left = self._patience_left - (monotonic() - began) + bought
        self._patience_left = min(left, self._patience_seconds)
        return message

    async def read(self, bytes_max: int) -> bytes | None:
        """The whole body, None if it has more than `bytes_max` bytes. Raises ClientGone."""
        blocks: list[bytes] = []
        size = 0
        async for block in self.stream():
            size += len(block)
            if size > bytes_max:
                return None
            blocks.append(block)
        return b"".join(blocks)

    async def drain(self) -> None:
        """Read a little of what a refused client is still sending, so that it sees the answer, not a broken pipe."""
        limit = self.received + DRAIN_BYTES_MAX
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                async for _ in self.stream():
                    if self.received > limit:
                        return
        except (ClientGone, TimeoutError):
            return


@dataclass
class Call:
    """A request that a handler answers. `name` is set on routes that have one, `parameters` hold the other parts."""

    scope: Scope
    receive: Receive
    services: Services
    rules: ApiRules
    caller: Caller
    body: RequestBody
    name: RepositoryName = field(default=cast("RepositoryName", ""))
    parameters: dict[str, str] = field(default_factory=dict[str, str])

    @cached_property
    def headers(self) -> Headers:
        return Headers(scope=self.scope)

    @cached_property
    def query(self) -> Query:
        return Query(self.scope["query_string"])

    @property
    def is_head(self) -> bool:
        return self.scope["method"] == "HEAD"

    def address(self) -> str:
        """The client's address, as failed logins are counted."""
        return self.rules.login_bucket(self.scope)

    def url(self, path: str, query: Any = ()) -> str:
        """The URL of a path of ours, as this client reaches it."""
        return self.rules.origin.url(self.scope, path, query)
