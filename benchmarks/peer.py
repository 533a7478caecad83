"""The peer: Debian's docker-registry, on the same disk, as its package sets it up but quiet, and open unless told.

Its storage is filled past the API with symbolic links: a tag is one to the first tag, and a repository a directory
with links to the first one's parts. Listings read names and look no further, so they cost what they always cost.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from contextlib import closing, suppress
from http import HTTPStatus
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Final

from benchmarks import trees
from benchmarks.contenders import PEER
from benchmarks.errors import BenchError
from benchmarks.programs import PEER as PROGRAM
from benchmarks.programs import path_of
from benchmarks.running import Running, clean_environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.trees import Use

_CONFIG: Final = """\
version: 0.1
log:
  level: error
  accesslog:
    disabled: true
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: {root}
  delete:
    enabled: true
http:
  addr: 127.0.0.1:{port}
validation:
  disabled: true
auth: {auth}
"""
# How it answers where there is no need for credentials, and where there is.
_SERVING: Final = (HTTPStatus.OK, HTTPStatus.UNAUTHORIZED)


class Peer:
    """See the module."""

    is_guest = False

    def __init__(
        self,
        directory: Path,
        name: str = PEER,
        *,
        token: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.headers = headers or {}
        root = directory / name
        root.mkdir()
        self.blobs = root / "docker/registry/v2/blobs"
        self._repositories = self.blobs.with_name("repositories")
        port = free_port()
        config = directory / f"{name}.yml"
        auth = json.dumps({"token": dict(token)} if token else {})  # JSON is YAML
        config.write_text(_CONFIG.format(root=root, port=port, auth=auth))
        self.running = Running(
            self.name,
            [path_of(PROGRAM), "serve", str(config)],
            clean_environment(),
            directory / f"{name}.log",
            lambda _: answering(port),
        )

    def cpu_seconds(self) -> Use:
        return trees.cpu_seconds(self.running.pid)

    def memory_bytes(self) -> Use:
        return trees.memory_bytes(self.running.pid)

    async def copy_tags(self, repository: str, tag: str, names: Sequence[str]) -> None:
        await asyncio.to_thread(_link_tags, self._repository(repository) / "_manifests" / "tags", tag, names)

    async def copy_repository(self, source: str, names: Sequence[str]) -> None:
        targets = [self._repository(name) for name in names]
        await asyncio.to_thread(_link_repositories, self._repository(source), targets)

    async def add_accounts(self) -> None:
        raise BenchError(f"{self.name} knows no accounts")

    def _repository(self, name: str) -> Path:
        return self._repositories / name


def answering(port: int) -> str | None:
    """The URL of the registry at the port, if there is one that answers."""
    with suppress(OSError), closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", "/v2/")
        if connection.getresponse().status in _SERVING:
            return f"http://127.0.0.1:{port}"
    return None


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def _link_tags(directory: Path, tag: str, names: Sequence[str]) -> None:
    for name in names:
        (directory / name).symlink_to(tag)


def _link_repositories(source: Path, repositories: Sequence[Path]) -> None:
    parts = [part.name for part in source.iterdir()]
    for repository in repositories:
        repository.mkdir(parents=True)
        # Relative and so short that the file system keeps it with the name.
        way = os.path.relpath(source, repository)
        for part in parts:
            (repository / part).symlink_to(f"{way}/{part}")
