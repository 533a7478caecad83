"""The registry that the clients of one test process share, and where they keep what is theirs."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.clients.programs import Sandbox
from tests.support.images import Package, make_index
from tests.support.processes import alive
from tests.support.served import Served, serve

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Seeded:
    """The data of a registry that has stopped. `package` is in it, as `seeded/package:v1`."""

    data: Path
    package: Package

    def copy(self, directory: Path) -> Path:
        """The same data in a place of the test's own: sooner there than a new database."""
        return Path(shutil.copytree(self.data, directory / "data", symlinks=True))


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    """What a first run on a new directory leaves behind."""
    seeded = Seeded(tmp_path_factory.mktemp("seeded") / "data", make_index("seeded"))
    with serve(seeded.data) as served:
        served.push("seeded/package", "v1", seeded.package)
        running = served.processes()
        assert served.stop() == 0, served.said()
    assert alive(running) == []
    return seeded


@pytest.fixture(scope="session")
def registry(seeded: Seeded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A registry as `make serve` runs it, on two workers."""
    data = seeded.copy(tmp_path_factory.mktemp("registry"))
    with serve(data, HTTP_WORKERS="2", LOG_ACCESSLOG_FORMATTER="text") as served:
        yield served


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Runs client programs so that nothing of this machine's is read or changed."""
    # Not below tmp_path: podman takes no path of more than 50 characters.
    with tempfile.TemporaryDirectory(prefix="sandbox-") as root:
        yield Sandbox(Path(root))
