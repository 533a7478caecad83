"""Our application on servers that are no part of the product, so that the cost of ours is known.

They use the directory and the PostgreSQL of a registry of ours that runs; what PostgreSQL takes counts as theirs. It
has connections for one guest at a time, so that is how they come.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Final

from app.server.choices import cores
from benchmarks import trees
from benchmarks.asgi import CONFIGURATION
from benchmarks.errors import BenchError
from benchmarks.ours import DATABASE, Ours
from benchmarks.peer import answering, free_port
from benchmarks.programs import CHECKOUT
from benchmarks.running import Running, clean_environment
from benchmarks.trees import Use

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_APPLICATION: Final = "benchmarks.asgi:create"
_SERVERS: Final = {
    "uvicorn": ("--factory", "--loop", "uvloop", "--no-access-log", "--log-level", "error"),
    "granian": (
        "--factory",
        "--loop",
        "uvloop",
        "--interface",
        "asgi",
        "--no-access-log",
        "--log-level",
        "error",
    ),
}
NAMES: Final = tuple(_SERVERS)
# What `serve --local` sets, with the database and the directory of the one that runs.
_CONFIG: Final = """\
version: 0.1
log:
  level: error
  accesslog:
    disabled: true
http:
  addr: 127.0.0.1:{port}
storage:
  filesystem:
    rootdirectory: {data}
  delete:
    enabled: true
database:
  host: {host}
  user: {database}
  dbname: {database}
  sslmode: disable
  preparedstatements: true
"""


class Side:
    """Our application under `server`."""

    is_guest = True

    def __init__(self, server: str, ours: Ours, directory: Path) -> None:
        self.name = server
        self.headers: Mapping[str, str] = {}
        self.blobs = ours.blobs
        self._ours = ours
        port = free_port()
        config = directory / f"{server}.yml"
        config.write_text(
            _CONFIG.format(port=port, data=ours.data, host=ours.socket_directory(), database=DATABASE)
        )
        words = ("--host", "127.0.0.1", "--port", str(port), "--workers", str(cores()))
        self.running = Running(
            server,
            [sys.executable, "-m", server, *_SERVERS[server], *words, _APPLICATION],
            clean_environment(PYTHONPATH=_import_path(), **{CONFIGURATION: str(config)}),
            directory / f"{server}.log",
            lambda _: answering(port),
        )

    def cpu_seconds(self) -> Use:
        return self._with_database(
            trees.cpu_seconds(self.running.pid), trees.cpu_seconds(self._ours.running.pid)
        )

    def memory_bytes(self) -> Use:
        return self._with_database(
            trees.memory_bytes(self.running.pid), trees.memory_bytes(self._ours.running.pid)
        )

    def _with_database(self, own: Use, ours: Use) -> Use:
        return Use(own.total + ours.database, ours.database)


def check_installed(names: Sequence[str]) -> None:
    """Raise BenchError if one of the servers is not there."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        words = " ".join(missing)
        raise BenchError(f"not installed: {words}; run {sys.executable} -m pip install {words}")


def _import_path() -> str:
    """Ours in front of what was there."""
    return os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
