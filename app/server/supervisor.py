"""The supervisor: starts the workers, replaces those that die, serves the debug address, and stops everything.

It answers no request of the API itself, so whatever a request does to a worker, the supervisor is there to put it
right. The first signal lets requests finish; a second one ends everything at once.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import shutil
import signal
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from app.server import choices
from app.server.channel import Order
from app.server.errors import ServerError
from app.server.seat import Seat

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from app.config import Settings
    from app.server.choices import Doors

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
WATCH_SECONDS: Final = 0.5

_log = logging.getLogger("registry.server")


def _nothing_wrong() -> str:
    return ""


@dataclass(frozen=True)
class Site:
    """What is run: the settings, the sockets made from them, and who is told of what.

    `ready` is called once, when every worker serves. `trouble` is asked now and then whether something that the
    registry cannot do without is gone; the sentence that it answers ends the registry. `doors` is None where the
    API is not served. The modules build what runs: the API in the workers, the collectors in a process of their own,
    if `collecting` is given, and the checks in the supervisor's.
    """

    settings: Settings
    doors: Doors
    ready: Callable[[], None]
    trouble: Callable[[], str] = field(default=_nothing_wrong)
    serving: str = "app.wiring.serving"
    collecting: str | None = None
    checks: str = "app.wiring.checks"


def run(site: Site) -> None:
    """Serve until a signal says otherwise. Raises ServerError if that fails, or if it had to end at once."""
    with _metrics_directory(site.settings) as metrics:
        try:
            asyncio.run(Supervisor(site, metrics).run())
        except BaseExceptionGroup as errors:
            # Not `except*`: before Python 3.11.4 that would wrap what is raised here in a group again.
            failed = errors.subgroup(ServerError)
            if failed is None:
                raise
            raise _first(failed) from None


class Supervisor:
    """See `run`. `metrics` is where the workers count, None if they do not."""

    def __init__(self, site: Site, metrics: Path | None) -> None:
        self._site = site
        self._metrics = metrics
        self._stopping = asyncio.Event()
        self._over = asyncio.Event()
        self._hurried = False
        self._settings = site.settings.model_dump_json()
        main = site.doors.main
        workers = 0 if main is None else choices.worker_count(site.settings)
        self._workers = [
            self._seat(place, site.serving, main.of(place).fileno())
            for place in range(workers)
            if main is not None
        ]
        self._collectors = None if site.collecting is None else self._seat(workers, site.collecting, None)
        self._seats = self._workers if self._collectors is None else [*self._workers, self._collectors]

    async def run(self) -> None:
        """Serve until a signal comes and everything has ended."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._signalled)
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(seat.keep()) for seat in self._seats]
            others = [group.create_task(task) for task in (self._announce(), self._watch(), self._debug())]
            await self._stopping.wait()
            self._stop()
            await asyncio.wait(keepers)
            self._over.set()
            await asyncio.wait(others)
        if self._hurried:
            raise ServerError("stopped at once, as the second signal asked: requests under way were cut off")

    def _seat(self, place: int, wiring: str, listener: int | None) -> Seat:
        metrics = str(self._metrics or "")
        return Seat(Order(place, self._settings, listener, metrics, wiring), left=self._forget)

    def _signalled(self) -> None:
        if self._stopping.is_set():
            self._hurried = True
            for seat in self._seats:
                seat.kill()
        self._stopping.set()

    def _stop(self) -> None:
        _log.info("stopping")
        # Ours first: a connection that comes between the last worker's close and ours would wait for nobody.
        if self._site.doors.main is not None:
            self._site.doors.main.close()
        for seat in self._seats:
            seat.stop(choices.drain_seconds(self._site.settings))

    async def _announce(self) -> None:
        for seat in self._seats:
            if not await self._unless_stopping(seat.ready.wait()):
                return
        self._site.ready()

    async def _watch(self) -> None:
        while await self._unless_over(WATCH_SECONDS):
            if trouble := self._site.trouble():
                raise ServerError(trouble)

    async def _unless_stopping(self, event: Awaitable[Any]) -> bool:
        """Wait for `event` or the signal to stop, whichever comes first."""
        waiting = [asyncio.ensure_future(event), asyncio.ensure_future(self._stopping.wait())]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        return not self._stopping.is_set()

    async def _unless_over(self, seconds: float) -> bool:
        """Sleep; then whether there still is something to watch."""
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            return True
        return False

    async def _debug(self) -> None:
        door = self._site.doors.debug
        if door is None:
            return
        # Most of the registry's modules, which the supervisor has no other use for.
        from app.http.ops import Health, debug_app  # noqa: PLC0415
        from app.runtime.metrics import Scrape  # noqa: PLC0415
        from app.server.serving import serve  # noqa: PLC0415

        settings = self._site.settings
        checks: dict[str, Any] = dict(importlib.import_module(self._site.checks).checks(settings))
        if self._workers:
            checks["workers"] = self._check_workers
        if self._collectors is not None:
            checks["collectors"] = self._check_collectors
        health = Health({**checks, "shutdown": self._check_shutdown})
        path = settings.http.debug.metrics_path
        pages = {path: Scrape(self._metrics)} if path is not None and self._metrics is not None else {}
        app = debug_app(health.failures, pages)
        manner = choices.debug_manner(settings)
        _log.info("health and metrics are at %s://%s", "https" if manner.tls else "http", door.name)
        await serve(app, door.sockets, manner, stop=self._over.wait)

    async def _check_workers(self) -> None:
        """A worker that is being replaced is no trouble; one that hangs is, and so is having none."""
        if self._stopping.is_set():
            return
        serving = [seat for seat in self._workers if seat.ready.is_set()]
        if not serving:
            raise ServerError("no worker process is serving")
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(seat.answers()) for seat in serving]
        if silent := sum(not answer.result() for answer in answers):
            raise ServerError(f"{silent} of {len(self._workers)} worker processes do not answer")

    async def _check_collectors(self) -> None:
        seat = self._collectors
        if self._stopping.is_set() or seat is None or not seat.ready.is_set():
            return
        if not await seat.answers():
            raise ServerError("the collectors' process does not answer")

    async def _check_shutdown(self) -> None:
        if self._stopping.is_set():
            raise ServerError("the registry is stopping")

    def _forget(self, place: int) -> None:
        if self._metrics is not None:
            from app.runtime.metrics import forget  # noqa: PLC0415  (as in _debug)

            forget(self._metrics, place)


@contextmanager
def _metrics_directory(settings: Settings) -> Generator[Path | None]:
    if settings.http.debug.metrics_path is None:
        yield None
        return
    directory = Path(tempfile.mkdtemp(prefix="registry-metrics-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _first(errors: BaseExceptionGroup[ServerError]) -> ServerError:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
