"""Any method, on any path, with any query, headers and body: never a 5xx, and nothing written by what is no write.

Made of the parts of real requests, of what exists, what does not and what cannot, so that many of them get far. Once
through the application alone, where every row and file is compared after each request, and once through the server.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.badinput.arbitrary import IMAGE, LIST, Request, requests, sendable
from tests.badinput.support import QUEUES, Ledger, assert_well_formed, differences, opened_ledger
from tests.badinput.wire import PRESCRIBED
from tests.http.support import ask, unnamed_objects
from tests.support.effort import EFFORT
from tests.support.invariants import assert_invariants
from tests.support.registry import digest_of, open_registry

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from app.store.engine import Target
    from tests.badinput.wire import Attacked
    from tests.support.registry import Registry

TRY = settings(
    max_examples=40 * EFFORT,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example],
)
# What a row or a file can belong to: the requests against the server may change all of it.
EVERYTHING = frozenset({"blob", "repositor", "manifest", "layers", "tags", "gc_", "file "})
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Subject:
    """A registry in this process with things in it that can be found, changed and deleted."""

    def __init__(self, registry: Registry, ledger: Ledger) -> None:
        self._registry = registry
        self._ledger = ledger
        self._session = ""
        self._held: dict[str, Any] = {}
        self._spent = True

    async def fill(self) -> None:
        """Make sure that there is something, after requests that may have used it up."""
        if not self._spent:
            return
        self._spent = False
        await self._registry.push_image("a/b", "latest", IMAGE)
        await self._registry.push_image("a/b", "list", LIST)
        await self._registry.push_blob("other", b"something")
        answer = await self._registry.client.post("/v2/a/b/blobs/uploads/")
        self._session = answer.headers["Location"].rpartition("/")[2]
        self._held = await self._ledger.look()

    async def try_out(self, request: Request) -> None:
        answer = await ask(
            self._registry, request.method, request.target(self._session), request.headers, request.body
        )
        assert_well_formed(answer, method=request.method)
        self._check_headers(answer, request)
        held = await self._ledger.look()
        changed = differences(self._held, held)
        self._held = held
        if request.method in WRITES and answer.status_code < 300:
            self._spent = True
            return
        if request.method == "HEAD" and answer.status_code == 200:
            changed = [name for name in changed if name not in QUEUES]
        elif request.method in ("PUT", "POST"):
            # A wrong digest ends an upload, whose object is then a tombstone; a mount that misses opens a session.
            allowed = ("blob_uploads", "gc_storage_deletions", "file objects/", "repositories")
            ended = answer.status_code == 400 and "the content's digest is" in answer.text
            changed = [name for name in changed if not (ended and name.startswith(allowed))]
            self._spent = self._spent or ended
        elif request.method == "PATCH" and answer.status_code in (400, 416):
            # It had the session, and gave it back as it was: with another object, if it had taken it over.
            changed = [name for name in changed if not name.startswith("file objects/")]
        assert changed == [], answer.text[:500]

    def _check_headers(self, answer: httpx.Response, request: Request) -> None:
        for name, value in answer.headers.items():
            assert value.isascii(), (name, value)
            assert value.isprintable(), (name, value)
        if answer.status_code in (200, 206, 304) and request.method in ("GET", "HEAD"):
            assert answer.status_code == 304 or "Content-Length" in answer.headers
        if answer.status_code == 405:
            assert answer.headers["Allow"]


def test_request_when_any_then_is_answered_well_and_writes_nothing_unless_it_is_a_write_that_succeeds(
    database: Target, tmp_path: Path
) -> None:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        registry = runner.run(stack.enter_async_context(open_registry(database, tmp_path)))
        subject = Subject(registry, runner.run(stack.enter_async_context(opened_ledger(database, tmp_path))))

        @TRY
        @given(st.lists(requests(), min_size=1, max_size=5))
        def check(some: list[Request]) -> None:
            runner.run(subject.fill())
            for request in some:
                runner.run(subject.try_out(request))

        try:
            check()
            assert runner.run(unnamed_objects(registry)) == []
            runner.run(assert_invariants(database, registry.driver))
        finally:
            runner.run(stack.aclose())


def as_bytes(request: Request, session: str) -> bytes:
    lines = [f"{request.method} {request.target(session)} HTTP/1.1", f"Content-Length: {len(request.body)}"]
    if not any(name == "Host" for name, _ in request.headers):
        lines.append("Host: registry.test")
    lines += [f"{name}: {value}" for name, value in request.headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + request.body


def test_request_when_any_then_the_server_answers_it_and_goes_on(plain: Attacked) -> None:
    client, url = plain.served.client, plain.served.url
    for blob in (b"{}", b"a layer"):
        client.post(f"{url}/v2/a/b/blobs/uploads/?digest={digest_of(blob)}", content=blob)
    client.put(f"{url}/v2/a/b/manifests/latest", content=IMAGE.payload)
    session = client.post(f"{url}/v2/a/b/blobs/uploads/").headers["Location"].rpartition("/")[2]

    @TRY
    @given(st.lists(sendable(), min_size=1, max_size=5))
    def check(some: list[Request]) -> None:
        """One behind the other on one connection, up to the first that ends it."""
        payload = b"".join(as_bytes(request, session) for request in some)
        exchange = plain.send(payload, ends=True, heads=[request.method == "HEAD" for request in some])
        assert exchange.statuses
        for reply in exchange.replies:
            assert reply.status < 500 or reply.status in PRESCRIBED, (payload[:2000], reply)

    with plain.survives(changes=EVERYTHING):
        check()
