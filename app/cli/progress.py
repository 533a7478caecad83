"""How far something is, on standard error: a bar on a terminal, a line now and then in a log, so that it shows life."""

from __future__ import annotations

import sys
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Self

import click

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

LINE_SECONDS: Final = 10.0
BAR_SECONDS: Final = 0.1
_CLEAR_LINE: Final = "\r\x1b[K"


class Progress:
    """A piece of work with a name and about how much there is to do; `about` 0 is unknown."""

    def __init__(self, name: str, about: int = 0, *, clock: Callable[[], float] = monotonic) -> None:
        self._name = name
        self._about = about
        self._clock = clock
        self._count = self._drawn = 0
        is_terminal = sys.stderr.isatty()
        self._every = BAR_SECONDS if is_terminal else LINE_SECONDS
        self._due = clock() + self._every
        self._bar: Any = None
        if is_terminal:
            self._bar = click.progressbar(length=max(about, 1), label=name, show_pos=True, file=sys.stderr)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            if kind is None:
                self._bar.length = max(self._count, 1)  # there was less than was thought
            self._draw()
            self._bar.__exit__(kind, error, trace)

    def reached(self, count: int) -> None:
        """So much is done by now."""
        self._count = count
        if (now := self._clock()) < self._due:
            return
        self._due = now + self._every
        if self._bar is not None:
            self._draw()
        else:
            about = f" of about {self._about:,}" if self._about >= count else ""
            click.echo(f"registry: {self._name}: {count:,}{about}", err=True)

    def give_way(self) -> None:
        """Make room for a line of something else."""
        if self._bar is not None:
            click.echo(_CLEAR_LINE, err=True, nl=False)

    def _draw(self) -> None:
        # There may be more than was thought; nothing is 110 % done.
        self._bar.length = max(self._bar.length, self._count)
        self._bar.update(self._count - self._drawn)
        self._drawn = self._count
