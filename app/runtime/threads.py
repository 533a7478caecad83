"""A bounded set of threads for calls that block; a cancelled task leaves none of its calls running.

A call that no thread has taken up yet is dropped; one that runs is waited for, and only then does the
cancellation go on. So whatever a call uses, a file descriptor say, may be closed once the awaiting task is
past its `await`.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


class ThreadsClosed(RuntimeError):
    """A call came after `close`."""


class Threads:
    """At most `count` threads, started as they are needed and named after `name`."""

    def __init__(self, name: str, count: int) -> None:
        if count < 1:
            raise ValueError(f"the {name} threads must be at least 1, not {count}")
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._closed = False

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `call` returns or raises. Cancelled: dropped if it has not begun, waited for if it has."""
        job = self._submit(call, *args, **kwargs)
        future = asyncio.wrap_future(job)
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError:
            job.cancel()
            await settle(future)
            raise
        return future.result()

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
        return asyncio.wrap_future(self._submit(call, *args, **kwargs))

    async def close(self) -> None:
        """Let the calls that are under way end, then end the threads."""
        self._closed = True
        await asyncio.to_thread(self._pool.shutdown)

    def _submit(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        if self._closed:
            raise ThreadsClosed("the threads are closed")
        return self._pool.submit(call, *args, **kwargs)


async def result_of(future: asyncio.Future[T]) -> T:
    """What `future` ends with. A cancellation of the waiting task does not reach the future."""
    await asyncio.wait((future,))
    return future.result()


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
