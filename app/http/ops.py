"""What operators ask: is it well, and what has it done. Served at an address of its own, apart from the API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

Check = Callable[[], Awaitable[None]]
Failures = Callable[[], Awaitable[Mapping[str, str]]]
# The page in the form that an Accept header asks for, and its content type.
Page = Callable[[str], tuple[bytes, str]]

HEALTH_PATH: Final = "/debug/health"
CHECK_SECONDS: Final = 5.0
# Several probes at once, or an eager one, cost no more than one.
FRESH_SECONDS: Final = 1.0


class Health:
    """Runs the checks, which say what is wrong by raising it, and remembers the result for a moment.

    A check that hangs is a failed one, at once for whoever asks while it still does. It is not run a second time
    beside itself, so that a disk or a network that hangs does not use up the threads of who looks after it.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        check_seconds: float = CHECK_SECONDS,
        fresh_seconds: float = FRESH_SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._checks = checks
        self._check_seconds = check_seconds
        self._fresh_seconds = fresh_seconds
        self._clock = clock
        self._running = asyncio.Lock()
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._result: dict[str, str] = {}
        self._until = float("-inf")

    async def failures(self) -> dict[str, str]:
        """What is wrong: the names of the checks that failed, each with a sentence."""
        async with self._running:
            if self._clock() >= self._until:
                self._result = await self._run()
                self._until = self._clock() + self._fresh_seconds
        return self._result

    async def _run(self) -> dict[str, str]:
        async with asyncio.TaskGroup() as group:
            tasks = {name: group.create_task(self._complaint(name)) for name in self._checks}
        return {name: complaint for name, task in tasks.items() if (complaint := task.result())}

    async def _complaint(self, name: str) -> str:
        silent = f"no answer within {self._check_seconds:g} seconds"
        task = self._under_way.get(name)
        if task is not None and not task.done():
            task.cancel()  # what cleans up after the first time may hang as well
            return silent
        task = self._under_way[name] = asyncio.ensure_future(self._checks[name]())
        await asyncio.wait((task,), timeout=self._check_seconds)
        if task.done():
            return _complaint_of(task)
        task.add_done_callback(_complaint_of)  # asked for, so that it is not reported as forgotten
        task.cancel()
        return silent


def _complaint_of(task: asyncio.Task[None]) -> str:
    if task.cancelled():
        return "the check was cancelled"
    error = task.exception()
    return "" if error is None else str(error) or type(error).__name__


def debug_app(failures: Failures, pages: Mapping[str, Page]) -> ASGIApp:
    """The debug server's application: health, and each of `pages` at its path."""

    async def health(_: Request) -> Response:
        found = await failures()
        return JSONResponse(
            dict(found), status_code=503 if found else 200, headers={"Cache-Control": "no-store"}
        )

    async def respond(request: Request) -> Response:
        page = pages.get(request.scope["path"])
        if request.method not in {"GET", "HEAD"}:
            return PlainTextResponse("only GET and HEAD\n", status_code=405, headers={"Allow": "GET, HEAD"})
        if page is not None:
            content, content_type = page(request.headers.get("accept", ""))
            return Response(content, headers={"Content-Type": content_type})
        if request.scope["path"] == HEALTH_PATH:
            return await health(request)
        return PlainTextResponse(f"here are {', '.join((HEALTH_PATH, *pages))}\n", status_code=404)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            response = await respond(Request(scope))
            await response(scope, receive, send)

    return app
