"""Every step of a process that matters to a crash, numbered, and what happens at the chosen one.

A step is a statement sent to PostgreSQL, a write, a copy, a flush, a file or a directory that comes or goes. It gives
up to three points: before it, in the midst of it, after it. Points count from the moment that a file named `armed`
is there, so that a test can prepare what it needs first. Each is written to a log at once, whose last line tells where
the process died.

What the system does to names (open, mkdir, unlink, rename) is seen through Python's audit hook, which knows only of
the moment before. The moment after is the one before the next step.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection
    from pathlib import Path

    from app.store.engine import Database
    from app.store.statements import Statement

T = TypeVar("T")

# What a statement has to reach the server, and perhaps to be carried out, before the process that sent it dies.
_UNDER_WAY_SECONDS: Final = 0.0005
_NAMES: Final = {
    "os.mkdir": "mkdir",
    "os.remove": "unlink",
    "os.rmdir": "rmdir",
    "os.rename": "rename",
    "os.link": "link",
}


@dataclass(frozen=True)
class Strike:
    """What happens at the chosen point: `process` gets `signal`. Without a process it is our own."""

    signal: int = signal.SIGKILL
    process: int = 0

    def __call__(self) -> None:
        os.kill(self.process or os.getpid(), self.signal)
        if not self.process:
            threading.Event().wait()  # another thread may still be asked to run until the signal is there


class Steps:
    """The points of this process. At the one numbered `chosen`, from 0, `strike` is called."""

    def __init__(self, log: Path, armed: Path, chosen: int | None, strike: Strike) -> None:
        self.strike = strike
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._armed = str(armed)
        self._is_armed = False
        self._chosen = chosen
        self._count = 0
        self._lock = threading.Lock()

    def point(self, label: str) -> None:
        """A point; die here if it is the one."""
        if self.is_chosen(label):
            self.strike()

    def is_chosen(self, label: str) -> bool:
        """A point; whether it is the one. For those that have their own way to die."""
        with self._lock:
            if not self._is_armed:
                self._is_armed = os.path.exists(self._armed)  # noqa: PTH110  (at every step, so it must be quick)
            if not self._is_armed:
                return False
            os.write(self._log, f"{label}\n".encode())
            number, self._count = self._count, self._count + 1
            return number == self._chosen

    def watch_names(self, root: Path) -> None:
        """From now on, for good, what this process does to names below `root` are steps."""
        below = f"{root}{os.sep}"

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "os.truncate":
                self.point("before truncate")
            elif event == "open":
                path, _, flags = arguments
                if flags & os.O_CREAT and isinstance(path, str) and path.startswith(below):
                    self.point("before create")
            elif event in _NAMES and str(arguments[0]).startswith(below):
                self.point(f"before {_NAMES[event]}")

        sys.addaudithook(hook)


def count_statements(
    database: Database, steps: Steps, *, wrapped: bool, skipped: Collection[str] = ()
) -> None:
    """From now on what `database` is asked are steps. Those in `skipped` are not sent, but said to be done: a fault.

    Where statements are `wrapped` in transactions, their commits are steps too, and come after them.
    """
    for name in ("read", "write"):
        setattr(database, name, _counted(getattr(database, name), steps, skipped, wrapped=wrapped))


def _counted(
    run: Callable[..., Awaitable[Any]], steps: Steps, skipped: Collection[str], *, wrapped: bool
) -> Callable[..., Awaitable[Any]]:
    async def counted(work: Callable[[Any], Awaitable[T]]) -> T:
        def watched(connection: Any) -> Awaitable[T]:
            return work(_Connection(connection, steps, skipped))

        done = await run(watched)
        if wrapped:
            steps.point("after commit")
        return done

    return counted


class _Connection:
    """A connection whose statements are steps."""

    def __init__(self, connection: Any, steps: Steps, skipped: Collection[str]) -> None:
        self._connection = connection
        self._steps = steps
        self._skipped = skipped

    async def all(self, statement: Statement, /, **values: Any) -> Any:
        return await self._sent(self._connection.all, statement, values)

    async def one(self, statement: Statement, /, **values: Any) -> Any:
        return await self._sent(self._connection.one, statement, values)

    async def value(self, statement: Statement, /, **values: Any) -> Any:
        return await self._sent(self._connection.value, statement, values)

    async def _sent(
        self, send: Callable[..., Awaitable[Any]], statement: Statement, values: dict[str, Any]
    ) -> Any:
        if statement.name in self._skipped:
            return True
        self._steps.point(f"before {statement.name}")
        doomed = self._steps.is_chosen(f"amid {statement.name}")
        if doomed:
            asyncio.get_running_loop().call_later(_UNDER_WAY_SECONDS, self._steps.strike)
        answered = await send(statement, **values)
        if doomed and not self._steps.strike.process:
            self._steps.strike()
        self._steps.point(f"after {statement.name}")
        return answered
