"""What an earlier run may have left behind: a server whose registry was killed, and the files of a dead one.

Whoever calls this holds the instance lock, so a server that still runs on the cluster has no owner.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.runtime.embedded.errors import EmbeddedError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Fast shutdown, then without the final checkpoint, then the last resort; and how long each may take.
SHUTDOWN: Final = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0))
_POLL_SECONDS: Final = 0.02


def pid_file(cluster: Path) -> list[str]:
    """The lines of the server's own pid file (process, directory, …, status), or none if there is none."""
    try:
        return [
            line.strip() for line in (cluster / "postmaster.pid").read_text(errors="replace").splitlines()
        ]
    except FileNotFoundError:
        return []


def clear(cluster: Path) -> None:
    """Stop a server that was left running on the cluster; clear the way if its number is another's now."""
    pid = _process(pid_file(cluster)[:1])
    if pid is None or not _exists(pid):
        return  # PostgreSQL sees for itself that a dead process's file is stale.
    if _is_server(pid, cluster):
        _stop(pid, cluster)
        return
    # The number was given to another process since, which PostgreSQL cannot tell from a second server.
    for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
        (cluster / name).unlink(missing_ok=True)


def _stop(pid: int, cluster: Path) -> None:
    for number, seconds in SHUTDOWN:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise EmbeddedError(
                f"a PostgreSQL (process {pid}) that another user started still uses {cluster}: stop it first"
            ) from error
        for _ in _until(seconds):
            if not _is_server(pid, cluster):
                return
    raise EmbeddedError(f"a PostgreSQL (process {pid}) still uses {cluster} and does not stop: stop it first")


def _until(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(_POLL_SECONDS)


def _process(line: list[str]) -> int | None:
    return int(line[0]) if line and line[0].isdecimal() and int(line[0]) > 0 else None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_server(pid: int, cluster: Path) -> bool:
    """Whether that process is a PostgreSQL on this cluster. A dead one that nobody has waited for is not."""
    command = _command(pid)
    return "postgres" in command and str(cluster) in command


def _command(pid: int) -> str:
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return ""
    listing = subprocess.run(  # noqa: S603  (our own words)
        ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listing.stdout
