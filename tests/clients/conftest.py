"""The registry that the clients of one test process share, and where they keep what is theirs."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.clients.engine import Engine, engine
from tests.clients.guarded import Guarded, built_in, with_issuer
from tests.clients.programs import Sandbox
from tests.support.images import Package, make_index
from tests.support.processes import alive
from tests.support.served import Served, serve

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


@dataclass(frozen=True)
class Seeded:
    """The data of a registry that has stopped. `package` is in it, as `seeded/package:v1`."""

    data: Path
    package: Package

    @contextmanager
    def copy(self, directory: Path) -> Generator[Path]:
        """The same data in a place of the test's own: sooner there than a new database, and gone afterwards."""
        copy = Path(shutil.copytree(self.data, directory / "data", symlinks=True))
        try:
            yield copy
        finally:
            shutil.rmtree(copy)


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    """What a first run on a new directory leaves behind."""
    seeded = Seeded(tmp_path_factory.mktemp("seeded") / "data", make_index("seeded"))
    with serve(seeded.data, HTTP_WORKERS="1") as served:
        served.push("seeded/package", "v1", seeded.package)
        running = served.processes()
        assert served.stop() == 0, served.said()
    assert alive(running) == []
    yield seeded
    shutil.rmtree(seeded.data)


@pytest.fixture
def data(seeded: Seeded, tmp_path: Path) -> Iterator[Path]:
    """A data directory in which `seeded.package` is."""
    with seeded.copy(tmp_path) as copy:
        yield copy


@pytest.fixture(scope="session")
def registry(seeded: Seeded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A registry as `make serve` runs it, on two workers."""
    settings = {"HTTP_WORKERS": "2", "LOG_ACCESSLOG": "{disabled: false, formatter: text}"}
    with seeded.copy(tmp_path_factory.mktemp("registry")) as data, serve(data, **settings) as served:
        yield served


@pytest.fixture(scope="session")
def own_tokens(seeded: Seeded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A registry with the built-in token service."""
    with seeded.copy(tmp_path_factory.mktemp("own-tokens")) as data, built_in(data) as guarded:
        yield guarded


@pytest.fixture(scope="session")
def outside_tokens(seeded: Seeded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A registry with a token service outside."""
    with seeded.copy(tmp_path_factory.mktemp("outside-tokens")) as data, with_issuer(data) as guarded:
        yield guarded


@pytest.fixture(params=["own_tokens", "outside_tokens"])
def guarded(request: pytest.FixtureRequest) -> Guarded:
    """Either of them, one after the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Runs client programs so that nothing of this machine's is read or changed."""
    # Not below tmp_path: podman takes no path of more than 50 characters.
    with tempfile.TemporaryDirectory(prefix="sandbox-") as root:
        yield Sandbox(Path(root))


@pytest.fixture(scope="session")
def daemon() -> Iterator[Engine]:
    with engine() as running:
        yield running


@pytest.fixture
def docker(daemon: Engine) -> Iterator[Engine]:
    """A docker engine without images and logins."""
    yield daemon
    daemon.remove_all()
