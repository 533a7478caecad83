"""The docker engine: a daemon of the tests' own, and the command that speaks to it."""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.clients.programs import Sandbox
from tests.support.images import read_archive, write_archive
from tests.support.needs import program
from tests.support.processes import wait_for

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.support.registry import Image

_STOP_SECONDS = 30


class Engine:
    """A docker daemon and the command that speaks to it."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.root = sandbox.root
        self.logins = Path(sandbox.environment["DOCKER_CONFIG"]) / "config.json"

    def __call__(self, *words: str, fails: bool = False, given: str = "") -> str:
        socket = f"unix://{self.root}/docker.sock"
        return self._sandbox.run("docker", "--host", socket, *words, fails=fails, given=given)

    def load(self, image: Image, reference: str) -> None:
        self("load", "--quiet", "--input", str(write_archive(self.root / "load.tar", image, reference)))

    def saved(self, reference: str) -> tuple[bytes, list[bytes]]:
        """The config, and the layers as tars."""
        self("save", "--output", str(self.root / "save.tar"), reference)
        return read_archive(self.root / "save.tar")

    def remove_images(self) -> None:
        if images := self("images", "--quiet", "--all", "--no-trunc").split():
            self("rmi", "--force", *set(images))

    def remove_all(self) -> None:
        """Remove every image, and every login."""
        self.remove_images()
        self.logins.unlink(missing_ok=True)


@contextmanager
def engine() -> Generator[Engine]:
    """A daemon that runs."""
    # Not below pytest's directory: containerd's sockets lie deep, and their paths have 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="docker-", ignore_cleanup_errors=True) as directory:
        root = Path(directory)
        sandbox = Sandbox(root)
        # The engine's own image store: in containerd's an image's id is the digest of its manifest.
        (root / "daemon.json").write_text('{"features": {"containerd-snapshotter": false}}')
        places = {"data-root": "data", "exec-root": "exec", "pidfile": "pid", "config-file": "daemon.json"}
        words = [
            str(program("dockerd")),
            "--host",
            f"unix://{root}/docker.sock",
            *(f"--{option}={root}/{name}" for option, name in places.items()),
            *("--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=vfs"),
        ]
        with (root / "log").open("wb") as log:
            process = subprocess.Popen(words, env=sandbox.environment, stdout=log, stderr=log)
        try:
            assert wait_for(lambda: _answers(root, process), 30), (root / "log").read_text()
            yield Engine(sandbox)
        finally:
            process.terminate()
            process.wait(_STOP_SECONDS)


def _answers(root: Path, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, (root / "log").read_text()
    return "API listen" in (root / "log").read_text()
