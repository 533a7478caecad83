"""A registry of several processes around the stand-in application, for one test."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).parents[2]
PATIENCE_SECONDS: Final = 30.0


class Running:
    """A started registry. `url` and `debug` are set once it is ready."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self.url = ""
        self.debug = ""
        self._log = log

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.rpartition("/")[2].rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def ready(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it did not start: {self.log}"
        self.url, debug = json.loads(line)
        self.debug = f"http://{debug}"

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)

    def workers(self) -> list[int]:
        """The worker processes that it has now."""
        return children(self.process.pid)


@contextmanager
def registry(tmp_path: Path, **http: Any) -> Iterator[Running]:
    """A registry that is ready. Keys of `http` go to that section; `_env` and `_log` are for the process."""
    with starting(tmp_path, **http) as running:
        running.ready()
        yield running


@contextmanager
def starting(tmp_path: Path, **http: Any) -> Iterator[Running]:
    """A registry that was just started; killed at the end if it still runs."""
    env = http.pop("_env", {})
    settings = {
        "http": {"addr": "127.0.0.1:0", "workers": 2, "debug": {"addr": "127.0.0.1:0"}, **http},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path)}},
        "log": {"accesslog": {"disabled": True}},
    }
    log = tmp_path / f"log-{time.monotonic_ns()}"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.server.standin", json.dumps(settings)],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(tmp_path), **env},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    running = Running(process, log)
    workers: list[int] = []
    try:
        yield running
    finally:
        if process.poll() is None:
            workers = running.workers()
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        eventually(lambda: not any(alive(pid) for pid in workers))


def children(pid: int) -> list[int]:
    """The live child processes of one."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            continue
        if fields[0] != "Z" and int(fields[1]) == pid:
            found.append(int(entry.name))
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; a dead one that nobody waited for does not."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def eventually(condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """What `condition` says once it says anything true. Fails if that takes too long."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)
    return found


class Raw:
    """A connection on which a test says exactly what it wants, HTTP/1.1."""

    def __init__(self, address: tuple[str, int] | str) -> None:
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(PATIENCE_SECONDS)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address, PATIENCE_SECONDS)
        self._kept = b""

    def get(self, target: str) -> None:
        self.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def answer(self) -> tuple[int, str, bytes]:
        """Status, headers and body of the next answer."""
        while b"\r\n\r\n" not in self._kept:
            self._more()
        head, _, self._kept = self._kept.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        size = int(length[1]) if length else 0
        while len(self._kept) < size:
            self._more()
        body, self._kept = self._kept[:size], self._kept[size:]
        return int(head.split()[1]), head.decode().lower(), body

    def closed(self) -> bool:
        """Whether the server has closed; waits for it."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _more(self) -> None:
        content = self.socket.recv(65536)
        if not content:
            raise EOFError(self._kept)
        self._kept += content
