"""What a check says while it is under way: findings on standard output, progress on standard error."""

from __future__ import annotations

import sys
from time import monotonic
from typing import TYPE_CHECKING

import click

from app.cli.fsck import words
from app.cli.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.services.fsck import Finding, Phase, Summary


class Teller:
    """The listener of a check at the command line. `close` may always follow."""

    def __init__(self, *, is_json: bool, is_repair: bool, clock: Callable[[], float] = monotonic) -> None:
        self._is_json = is_json
        self._is_repair = is_repair
        self._clock = clock
        self._progress: Progress | None = None
        self._steps = 0

    def found(self, finding: Finding) -> None:
        if self._progress is not None:
            self._progress.give_way()
        click.echo(
            words.document(finding) if self._is_json else words.sentence(finding, is_repair=self._is_repair)
        )

    def began(self, phase: Phase, about: int) -> None:
        self.close()
        self._steps = 0
        self._progress = Progress(f"fsck: {phase.value}", about, clock=self._clock).__enter__()

    def advanced(self, steps: int) -> None:
        self._steps += steps
        if self._progress is not None:
            self._progress.reached(self._steps)

    def end(self, summary: Summary) -> None:
        """Say what it came to."""
        if self._is_json:
            click.echo(words.summary_document(summary))
        else:
            for text in words.summary_lines(summary):
                click.echo(text)

    def close(self) -> None:
        """End the progress of the phase, if there is one."""
        if self._progress is not None:
            self._progress.__exit__(*sys.exc_info())
            self._progress = None
