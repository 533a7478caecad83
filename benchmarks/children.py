"""Programs that run for a while and end. Whoever waits for one and is cancelled ends it."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.errors import CaseError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Done:
    """What a program printed, and the processor time that children took while it ran: its own if it ran alone."""

    output: str
    cpu_seconds: float


async def run(command: Sequence[str], environment: Mapping[str, str] | None = None, words: str = "") -> Done:
    """Run a program to its end, with `words` as its input. Raises CaseError if that is not a good one."""
    before = cpu_seconds()
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate(words.encode())
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    text = output.decode(errors="replace")
    if process.returncode != 0:
        raise CaseError(f"{os.path.basename(command[0])} ended with {process.returncode}: {text.strip()}")  # noqa: PTH119
    return Done(text, cpu_seconds() - before)


def cpu_seconds() -> float:
    """Processor time of all our children that have ended."""
    times = os.times()
    return times.children_user + times.children_system
