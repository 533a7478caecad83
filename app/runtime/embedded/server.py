"""PostgreSQL as a part of this process: it starts, stops and dies with us, and nothing of it is left behind.

It listens on a Unix socket in a directory that is closed to everyone else, and on nothing else, which is why
it asks for no password. What it has acknowledged is on the disk, unless it was told that it need not be.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.runtime.embedded import binaries, cluster, identity, leftovers, sockets
from app.runtime.embedded.errors import EmbeddedError

if TYPE_CHECKING:
    from types import TracebackType

LOG_BYTES_MAX: Final = 1024 * 1024
# A server that was killed replays its log first; this is for the slowest of disks.
START_SECONDS: Final = 300
_POLL_SECONDS: Final = 0.01


@dataclass(frozen=True)
class Address:
    """Where the database is. `host` is the directory of the server's Unix socket; there is no password."""

    host: str
    port: int
    user: str
    database: str


class EmbeddedPostgres:
    """A PostgreSQL server on the cluster in `directory`, which it makes at the first start.

    The caller holds the instance lock of the directory above. `start` and `stop` block; a `with` block calls
    both. The server's messages go to `<directory>.log`. `durable=False`, for tests, trades what survives a
    crash of the machine for speed; `namespaces=False` does without user namespaces.
    """

    def __init__(
        self, directory: Path, *, max_connections: int = 100, durable: bool = True, namespaces: bool = True
    ) -> None:
        self._cluster = Path(os.path.abspath(directory))  # noqa: PTH100  (resolve would follow links out of our directory)
        self._log = self._cluster.with_name(f"{self._cluster.name}.log")
        self._max_connections = max_connections
        self._durable = durable
        self._namespaces = namespaces
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: Path | None = None

    @property
    def running(self) -> bool:
        """Whether the server is there: not before `start`, nor after `stop`, nor if it ended by itself."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Address:
        """Start the server and return when it takes connections. Raises EmbeddedError if it does not.

        Must be called from the main thread: Linux ends the server together with the thread that started it.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("the embedded PostgreSQL must be started from the main thread")
        try:
            programs, who = self._prepare()
            self._sockets = sockets.prepare(self._cluster, who)
            self._launch(programs, who, self._sockets)
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError):
                raise EmbeddedError(f"the embedded PostgreSQL cannot be started: {error}") from error
            raise
        return Address(str(self._sockets), sockets.PORT, cluster.USER, cluster.DATABASE)

    def stop(self) -> None:
        """Stop the server, in good order unless that takes too long. Does nothing if it is not running."""
        if self._process is not None:
            for number, seconds in leftovers.SHUTDOWN:
                self._process.send_signal(number)
                try:
                    self._process.wait(seconds)
                    break
                except subprocess.TimeoutExpired:
                    continue
            self._process = None
        if self._sockets is not None:
            sockets.discard(self._sockets, self._cluster)
            self._sockets = None

    def __enter__(self) -> Address:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _prepare(self) -> tuple[Path, identity.Identity]:
        """Make sure that there is a cluster which nobody uses; return its programs and who may run them."""
        root = self._cluster.parent
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        version = cluster.version(self._cluster)
        programs = binaries.locate(version or binaries.NEWEST)
        who = identity.choose(root, self._cluster, programs, namespaces=self._namespaces)
        if version is None:
            cluster.make(self._cluster, who, durable=self._durable)
        else:
            leftovers.clear(self._cluster)
            cluster.give(self._cluster, who)
        return programs, who

    def _launch(self, programs: Path, who: identity.Identity, socket_directory: Path) -> None:
        if self._log.exists() and self._log.stat().st_size > LOG_BYTES_MAX:
            self._log.replace(f"{self._log}.1")
        arguments = ["-D", str(self._cluster), *self._options(programs, socket_directory)]
        with open(self._log, "ab", opener=_private) as log:
            said = log.tell()
            self._process = subprocess.Popen(  # noqa: S603  (our own words)
                who.command(self._cluster, signal.SIGINT, str(programs / "postgres"), *arguments),
                env=cluster.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C reaches every process of the terminal's group, and PostgreSQL must outlive our drain.
                start_new_session=True,
            )
        self._wait(self._process, said)

    def _wait(self, process: subprocess.Popen[bytes], said: int) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            lines = leftovers.pid_file(self._cluster)
            if lines[:1] == [str(process.pid)] and lines[-1] == "ready":
                return
            if process.poll() is not None:
                with self._log.open("rb") as log:
                    log.seek(said)
                    words = cluster.last_lines(log.read().decode(errors="replace"))
                raise EmbeddedError(f"PostgreSQL did not start (its log is {self._log}): {words}")
            time.sleep(_POLL_SECONDS)
        raise EmbeddedError(f"PostgreSQL was not ready after {START_SECONDS} seconds: its log is {self._log}")

    def _options(self, programs: Path, socket_directory: Path) -> list[str]:
        quoted = '"' + str(socket_directory).replace('"', '""') + '"'
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": quoted,
            "port": str(sockets.PORT),
            "max_connections": str(self._max_connections),
            "shared_buffers": "128MB",
            "max_wal_size": "512MB",
            "max_logical_replication_workers": "0",
            "jit": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
            # A statement's error is told to its caller; the log keeps what nobody else hears, so it is small.
            "log_min_messages": "log",
            "log_checkpoints": "off",
            **(
                {}
                if self._durable
                else {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
            ),
            # One process per job instead of three I/O workers that sit idle on a small machine.
            **({"io_method": "sync"} if programs == binaries.locate(binaries.NEWEST) else {}),
        }
        return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
