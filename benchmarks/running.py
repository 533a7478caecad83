"""A server from its start to its end. Whatever ends the benchmark ends its servers, and theirs with them."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from benchmarks import trees
from benchmarks.errors import BenchError
from benchmarks.programs import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.05
_SHOWN_LINES: Final = 2
_SHOWN_CHARACTERS: Final = 200


@dataclass
class Running:
    """A server process. `ready` looks at what it has printed and says its URL once it serves."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    ready: Callable[[str], str | None]
    url: str = ""
    _process: asyncio.subprocess.Process | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        """The root of its processes."""
        if self._process is None:
            raise BenchError(f"{self.name} does not run")
        return self._process.pid

    @property
    def is_up(self) -> bool:
        """Whether it was started, and has neither been stopped nor ended by itself since."""
        return self._process is not None and self._process.returncode is None

    @property
    def obituary(self) -> str:
        """How it ended by itself, and its last words; empty if it did not."""
        if self._process is None or self._process.returncode is None:
            return ""
        return f"{self.name} has ended with {self._process.returncode}: {self._last_words()}"

    async def start(self) -> None:
        """Start it and return once it serves. Raises BenchError with its last words if it does not."""
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *_mortal(self.command),
                cwd=CHECKOUT,
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in a terminal is for the benchmark, which then stops its servers in order.
                start_new_session=True,
            )
        try:
            self.url = await self._wait()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop it and everything that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        family = trees.tree(process.pid)
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        finally:
            # Also if we are told a second time to stop, or if it does not.
            trees.end(family)
            await process.wait()

    async def _wait(self) -> str:
        process = self._process
        assert process is not None
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and process.returncode is None:
            if url := self.ready(self._said()):
                return url
            await asyncio.sleep(_POLL_SECONDS)
        raise BenchError(f"{self.name} did not start: {self._last_words()}")

    def _last_words(self) -> str:
        lines = [line[:_SHOWN_CHARACTERS] for line in self._said().splitlines()[-_SHOWN_LINES:]]
        return " / ".join(lines) or "no word"

    def _said(self) -> str:
        return self.log.read_text(errors="replace")


def clean_environment(**more: str) -> dict[str, str]:
    """Ours without what would steer a registry, and with `more`."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("REGISTRY_", "MAKE"))}
    return {**own, **more}


def _mortal(command: Sequence[str]) -> list[str]:
    """The same command, told to stop by the kernel when we are gone without having said so."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--", *command] if setpriv else [*command]
