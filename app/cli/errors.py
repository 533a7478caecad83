"""Errors as the person at the terminal sees them."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

USAGE: Final = 2
FAILED: Final = 1
INTERRUPTED: Final = 130
# What a full disk or a broken one makes of printing.
_UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})


class Failure(click.ClickException):
    """Something that went wrong, in one sentence."""

    exit_code = FAILED


class BadConfiguration(click.ClickException):
    """What is wrong with the configuration, a sentence each."""

    exit_code = USAGE

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


@contextmanager
def told(*expected: type[Exception]) -> Generator[None]:
    """Let errors of these kinds, whose text is a sentence, be told by that alone."""
    try:
        yield
    except expected as error:
        raise Failure(str(error)) from error


def report(error: BaseException) -> int:
    """Say what went wrong. Returns the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else FAILED
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        # Whoever read has enough, as `head` has. What is still buffered must not be an error at the process's end.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    code, sentences = _told(error)
    for sentence in sentences:
        click.echo(f"registry: {sentence}", err=True)
    return code


def _told(error: BaseException) -> tuple[int, tuple[str, ...]]:
    if isinstance(error, BadConfiguration):
        return error.exit_code, error.problems
    if isinstance(error, click.ClickException):
        return error.exit_code, (_sentence(error),)
    if isinstance(error, click.Abort) and not isinstance(error.__cause__, KeyboardInterrupt):
        return FAILED, ("nothing was done",)
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return INTERRUPTED, ("interrupted",)
    if isinstance(error, OSError) and error.errno in _UNWRITABLE and error.filename is None:
        return FAILED, (f"the output could not be written: {error.strerror}",)
    return FAILED, (_unexpected(error),)


def _sentence(error: click.ClickException) -> str:
    text = error.format_message()
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None:
        return text
    return f"{text.rstrip('.')} (see {context.command_path} --help)"


def _unexpected(error: BaseException) -> str:
    """A fault of ours: what is needed to find it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    text = str(error).strip().splitlines()
    return f"unexpected {type(error).__name__}{f': {text[0]}' if text else ''}{place}"
