"""Processes as the kernel tells of them in /proc (proc(5)): what runs, what it holds, and how long to wait for it."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

_POLL_SECONDS: Final = 0.02


def wait_for(find: Callable[[], T], seconds: float = 20.0) -> T:
    """The first true answer, or the last one when the time is up."""
    end = time.monotonic() + seconds
    while not (answer := find()) and time.monotonic() < end:
        time.sleep(_POLL_SECONDS)
    return answer


def alive(processes: set[tuple[int, str]]) -> list[str]:
    """The command lines of those that still run."""
    return [command_line(pid) for pid, began in processes if started(pid) == began]


def descendants(pid: int) -> list[int]:
    """Children, their children, and so on."""
    parents = {child: int(status[1]) for child in _pids() if (status := _status(child))}
    found = [pid]
    for parent in found:
        found += [child for child, of in parents.items() if of == parent]
    return found[1:]


def mentioning(path: Path) -> list[int]:
    """Processes in whose command line the path stands, except our own."""
    return [pid for pid in _pids() if str(path) in command_line(pid) and pid != os.getpid()]


def command_line(pid: int) -> str:
    """Its words, with spaces between; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def started(pid: int) -> str:
    """When the process started, in the kernel's words; empty if it is gone or dead."""
    status = _status(pid)
    return status[19] if status and status[0] not in "ZX" else ""


def users(pids: Iterable[int]) -> set[int]:
    """Whose processes these are, as far as they still run."""
    lines = (line for pid in pids for line in _lines(f"/proc/{pid}/status") if line.startswith("Uid:"))
    return {int(line.split()[1]) for line in lines}


def memory_peak_bytes(pid: int) -> int:
    """The most memory that it has had since its start, or since `forget_memory_peak`."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def forget_memory_peak(pid: int) -> None:
    """Let the peak start anew from what it has now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _status(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the program's name: state, parent, …; none if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def socket_name(local_port: int, remote_port: int) -> str:
    """What /proc/PID/fd calls the socket at this end of the connection; empty if there is none."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, *rest = line.split()
        if [int(end.rpartition(":")[2], 16) for end in (local, remote)] == [local_port, remote_port]:
            return f"socket:[{rest[6]}]"
    return ""


def sockets_of(pid: int) -> set[str]:
    found: set[str] = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(str(descriptor.readlink()))
    return found
