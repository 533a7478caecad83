"""What a server and all its processes use, as the kernel counts it (proc(5))."""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROC: Final = Path("/proc")
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PSS: Final = re.compile(r"^Pss:\s+(\d+) kB$", re.MULTILINE)
# Behind the program's name in /proc/PID/stat: state, parent, …
_PARENT: Final = 1
_CPU: Final = slice(11, 15)
_STARTED: Final = 19
_GONE: Final = (FileNotFoundError, ProcessLookupError)
DATABASE: Final = "postgres"


@dataclass(frozen=True)
class Process:
    """One process: `cpu_seconds` are its own and those of its children that have ended."""

    pid: int
    parent: int
    program: str
    cpu_seconds: float
    started: str


@dataclass(frozen=True)
class Use:
    """What a tree uses: all of it, and of that its PostgreSQL."""

    total: float
    database: float

    def since(self, before: Use) -> Use:
        """What was added."""
        return Use(self.total - before.total, self.database - before.database)


def tree(root: int) -> list[Process]:
    """The process and everything below it."""
    every = {process.pid: process for process in _every_process()}
    children: dict[int, list[Process]] = {}
    for process in every.values():
        children.setdefault(process.parent, []).append(process)
    found = [every[root]] if root in every else []
    for process in found:
        found += children.get(process.pid, [])
    return found


def cpu_seconds(root: int) -> Use:
    """Processor time of the tree since its start. A process that ended counts where its parent waited for it."""
    processes = tree(root)
    return Use(
        sum(process.cpu_seconds for process in processes),
        sum(process.cpu_seconds for process in processes if process.program == DATABASE),
    )


def memory_bytes(root: int) -> Use:
    """Resident memory of the tree; pages that several processes share are counted once (PSS)."""
    sizes = [(process, _pss_bytes(process.pid)) for process in tree(root)]
    return Use(
        sum(size for _, size in sizes), sum(size for process, size in sizes if process.program == DATABASE)
    )


def end(processes: list[Process]) -> int:
    """Kill those that still run. Returns how many there were."""
    now = {process.pid: process for process in _every_process()}
    left = [process for process in processes if _is(process, now)]
    for process in left:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    return len(left)


def _is(process: Process, now: Mapping[int, Process]) -> bool:
    return process.pid in now and now[process.pid].started == process.started


def _every_process() -> list[Process]:
    found = [_read(entry) for entry in _PROC.iterdir() if entry.name.isdecimal()]
    return [process for process in found if process is not None]


def _read(entry: Path) -> Process | None:
    try:
        text = (entry / "stat").read_text(errors="replace")
    except _GONE:
        return None
    head, _, rest = text.rpartition(")")
    fields = rest.split()
    if fields[0] in "ZX":
        return None
    return Process(
        pid=int(entry.name),
        parent=int(fields[_PARENT]),
        program=head.partition("(")[2],
        cpu_seconds=sum(int(ticks) for ticks in fields[_CPU]) / _TICKS_PER_SECOND,
        started=fields[_STARTED],
    )


def _pss_bytes(pid: int) -> int:
    try:
        found = _PSS.search((_PROC / str(pid) / "smaps_rollup").read_text())
    except _GONE:
        return 0
    return int(found[1]) * 1024 if found is not None else 0
