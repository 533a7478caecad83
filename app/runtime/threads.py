"""A bounded set of threads for calls that block; a cancelled task leaves none of its calls running.

A call that no thread has taken up yet is dropped; one that runs is waited for, and only then does the
cancellation go on. So whatever a call uses, a file descriptor say, may be closed once the awaiting task is
past its `await`.

Every block of an upload or a download is a call, so the way there and back is short: 46 µs of processor time,
where concurrent.futures takes 74 and what asyncio needs to wait for that without losing it another 6.

Calls that belong to something begun wait for a thread as long as they must. Who begins something asks first (`admit`),
so that what is slow or hangs is not waited for by more than can be served (`app/runtime/line.py`).
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from app.runtime.line import Line

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

# The longest wait for leave to begin.
ADMIT_SECONDS: Final = 5.0


class ThreadsBusy(RuntimeError):
    """More calls wait for the threads than can be served soon."""


class ThreadsClosed(RuntimeError):
    """A call came after `close`."""


class _Job:
    """One call, and the future that its loop waits for."""

    __slots__ = ("calls", "future", "loop")

    def __init__(self, call: Callable[[], Any]) -> None:
        self.loop: Final = asyncio.get_running_loop()
        self.future: Final[asyncio.Future[Any]] = self.loop.create_future()
        # The call, until a thread or a cancellation takes it: list.pop lets only one of them have it.
        self.calls: Final = [call]

    def taken(self) -> Callable[[], Any] | None:
        try:
            return self.calls.pop()
        except IndexError:
            return None

    def run(self) -> None:
        """In a thread: carry out the call, unless it was dropped."""
        if (call := self.taken()) is None:
            return
        try:
            result, error = call(), None
        except BaseException as raised:  # noqa: BLE001 - whatever it is, whoever waits is told
            result, error = None, raised
        self.loop.call_soon_threadsafe(self._end, result, error)

    def _end(self, result: Any, error: BaseException | None) -> None:
        if self.future.cancelled():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class Threads:
    """At most `count` threads, started as they are needed and named after `name`. Used by one event loop."""

    def __init__(self, name: str, count: int, admit_seconds: float = ADMIT_SECONDS) -> None:
        if count < 1:
            raise ValueError(f"the {name} threads must be at least 1, not {count}")
        self._name = name
        self._count = count
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._unfinished = 0
        self._closed = False
        # Who forgets to close it leaves no threads behind that wait for ever.
        self._dismissal = weakref.finalize(self, _dismiss, self._jobs, self._threads)
        self._line: Line[None] = Line(
            admit_seconds, places_min=count, refusal=ThreadsBusy, unclaimed=lambda _: None
        )

    async def admit(self) -> None:
        """Return when a thread is free, or soon will be. Raises ThreadsBusy if too many wait for that already."""
        if self._unfinished >= self._count:
            await self._line.wait()

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `call` returns or raises. Cancelled: dropped if it has not begun, waited for if it has."""
        job = self._submit(call, *args, **kwargs)
        try:
            return await asyncio.shield(job.future)
        except asyncio.CancelledError:
            if job.taken() is not None:
                job.future.cancel()
            else:
                await settle(job.future)
            raise

    async def run_surely(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> None:
        """As `run`, for clean-up: it is never dropped, not by a cancellation and not by `close`."""
        if self._closed:
            call(*args, **kwargs)
            return
        future = self.start(call, *args, **kwargs)
        await settle(future)
        future.result()

    def start(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Begin `call` now, to be collected by `result_of`, or by `settle` if nobody wants its result."""
        return self._submit(call, *args, **kwargs).future

    async def close(self) -> None:
        """Let the calls that are under way end, then end the threads."""
        self._closed = True
        self._dismissal()
        await asyncio.to_thread(_join, self._threads)

    def _submit(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> _Job:
        if self._closed:
            raise ThreadsClosed("the threads are closed")
        job = _Job(partial(call, *args, **kwargs) if args or kwargs else call)
        self._unfinished += 1
        job.future.add_done_callback(self._finished)
        if self._unfinished > len(self._threads) < self._count:
            self._add_thread()
        self._jobs.put(job)
        return job

    def _finished(self, future: asyncio.Future[Any]) -> None:
        del future
        self._unfinished -= 1
        if self._unfinished < self._count:
            self._line.serve(None)

    def _add_thread(self) -> None:
        name = f"{self._name}_{len(self._threads)}"
        thread = threading.Thread(target=_work, args=(self._jobs,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()


def _work(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        job.run()
        del job  # a thread that waits for work holds on to nothing


def _dismiss(jobs: SimpleQueue[_Job | None], threads: list[threading.Thread]) -> None:
    """Have every thread end once the jobs before this are done."""
    for _ in threads:
        jobs.put(None)


def _join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join()


async def result_of(future: asyncio.Future[T]) -> T:
    """What `future` ends with. A cancellation of the waiting task does not reach the future."""
    return await asyncio.shield(future)


async def settle(future: asyncio.Future[T]) -> None:
    """Return when `future` is done, however often the task is cancelled; then raise that cancellation."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError as error:
            cancelled = error
    if not future.cancelled():
        # Asked for, so that a failure which nobody waits for any more is not reported as forgotten.
        future.exception()
    if cancelled is not None:
        raise cancelled
