"""What a check says while it is under way: findings on standard output, progress on standard error.

On a terminal progress is a bar, elsewhere a line now and then, so that a log shows that it is alive.
"""

from __future__ import annotations

import sys
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import click

from app.cli.fsck import words

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.services.fsck import Finding, Phase, Summary

LINE_SECONDS: Final = 10.0
BAR_SECONDS: Final = 0.1
_CLEAR_LINE: Final = "\r\x1b[K"


class Teller:
    """The listener of a check at the command line. `close` may always follow."""

    def __init__(self, *, is_json: bool, is_repair: bool, clock: Callable[[], float] = monotonic) -> None:
        self._is_json = is_json
        self._is_repair = is_repair
        self._clock = clock
        self._is_terminal = sys.stderr.isatty()
        self._phase: Phase | None = None
        self._bar: Any = None
        self._steps = self._about = self._drawn_steps = 0
        self._due = clock() + (BAR_SECONDS if self._is_terminal else LINE_SECONDS)

    def found(self, finding: Finding) -> None:
        if self._bar is not None:
            click.echo(_CLEAR_LINE, err=True, nl=False)
        click.echo(
            words.document(finding) if self._is_json else words.sentence(finding, is_repair=self._is_repair)
        )

    def began(self, phase: Phase, about: int) -> None:
        self.close()
        self._phase, self._about, self._steps, self._drawn_steps = phase, about, 0, 0
        if self._is_terminal:
            self._bar = click.progressbar(
                length=max(about, 1), label=f"{phase.value:<9}", show_pos=True, file=sys.stderr
            )
            self._bar.__enter__()

    def advanced(self, steps: int) -> None:
        self._steps += steps
        if (now := self._clock()) < self._due:
            return
        if self._bar is not None:
            self._draw()
            self._due = now + BAR_SECONDS
        elif self._phase is not None:
            about = f" of about {self._about:,}" if self._about >= self._steps else ""
            click.echo(f"registry: fsck: {self._phase.value}: {self._steps:,}{about}", err=True)
            self._due = now + LINE_SECONDS

    def end(self, summary: Summary) -> None:
        """Say what it came to."""
        if self._is_json:
            click.echo(words.summary_document(summary))
        else:
            for text in words.summary_lines(summary):
                click.echo(text)

    def close(self) -> None:
        """End the bar, if there is one, with a line of its own."""
        if self._bar is not None:
            self._draw()
            self._bar.__exit__(None, None, None)
            self._bar = None

    def _draw(self) -> None:
        # The length is what PostgreSQL last counted; nothing is 110 % done.
        self._bar.length = max(self._bar.length, self._steps)
        self._bar.update(self._steps - self._drawn_steps)
        self._drawn_steps = self._steps
