"""The peer: Debian's docker-registry, on the same disk, as its package sets it up but quiet and open to all."""

from __future__ import annotations

import socket
from contextlib import closing, suppress
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import trees
from benchmarks.errors import BenchError
from benchmarks.programs import PEER, path_of
from benchmarks.running import Running, clean_environment
from benchmarks.trees import Use

if TYPE_CHECKING:
    from collections.abc import Sequence

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
"""


class Peer:
    """See the module."""

    name = "peer"

    def __init__(self, directory: Path) -> None:
        root = directory / "peer"
        root.mkdir()
        self.blobs = root / "docker/registry/v2/blobs"
        self._repositories = self.blobs.with_name("repositories")
        port = free_port()
        config = directory / "peer.yml"
        config.write_text(_CONFIG.format(root=root, port=port))
        self.running = Running(
            self.name,
            [path_of(PEER), "serve", str(config)],
            clean_environment(),
            directory / "peer.log",
            lambda _: answering(port),
        )

    def cpu_seconds(self) -> Use:
        return trees.cpu_seconds(self.running.pid)

    def memory_bytes(self) -> Use:
        return trees.memory_bytes(self.running.pid)

    async def copy_tags(self, repository: str, tag: str, names: Sequence[str]) -> None:
        tags = self._repository(repository) / "_manifests" / "tags"
        if not names or not (tags / tag).is_dir():
            raise BenchError(f"the peer has no tag {tag} in {repository}, or there is nothing to copy it to")
        _copy(tags / tag, [tags / name for name in names])

    async def copy_repository(self, source: str, names: Sequence[str]) -> None:
        _copy(self._repository(source), [self._repository(name) for name in names])

    def _repository(self, name: str) -> Path:
        return self._repositories / name


def answering(port: int) -> str | None:
    """The URL of the registry at the port, if there is one that answers."""
    with suppress(OSError), closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", "/v2/")
        if connection.getresponse().status == HTTPStatus.OK:
            return f"http://127.0.0.1:{port}"
    return None


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def _copy(source: Path, targets: Sequence[Path]) -> None:
    """Copy a small tree many times; the files are all read once."""
    entries = sorted(source.rglob("*"))
    directories = [path.relative_to(source) for path in entries if path.is_dir()]
    files = [(path.relative_to(source), path.read_bytes()) for path in entries if path.is_file()]
    for target in targets:
        target.mkdir(parents=True)
        for directory in directories:
            (target / directory).mkdir()
        for file, content in files:
            (target / file).write_bytes(content)
